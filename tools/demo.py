"""The demonstration of `make demo`: run by tools/site.py as a notebook, and written as one page, which shows no code."""

# %% [markdown]
# # A Triton server on this machine
# %%
import time

import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from helpers import Client, CourseError, jets, launch_server, machine, plots, scrape, tracks
from helpers.measuring.measure import sweep
from helpers.measuring.perf_analyzer import find_perf_analyzer

found = display(Markdown("…"), display_id="found")
began = time.monotonic()
server = launch_server("models", name="demo")
ready = [model.name for model in server.models() if model.state == "READY"]
seconds = time.monotonic() - began
facts = [f"On this machine ({machine.device()}), {len(ready)} of {len(server.models())} models were READY after {seconds:.0f} s."]
print(facts[-1])


# %%
def inputs_of(client, model):
    """Jets or hits of the course's samples where a model takes such, made-up numbers for others."""
    example = client.example(model)
    if any(name.startswith("pf_points") for name in example):
        tagger = jets.Tagger(client, model)
        return tagger.inputs(jets.read(jets.sample_for(tagger))[:8])
    return {"FEATURES": tracks.load_events()[0].features} if "FEATURES" in example else example


def is_right(inputs, answer):
    """True if sum and difference are right, and the numbers of other models are finite."""
    if set(inputs) == {"INPUT0", "INPUT1"}:
        return np.array_equal(answer["OUTPUT0"], inputs["INPUT0"] + inputs["INPUT1"])
    return all(array.size and np.isfinite(array).all() for array in answer.values() if array.dtype.kind == "f")


# The stages of ExaTrk are asked by ExaTrk itself.
seen, sent, before = [], dict.fromkeys((model for model in ready if model not in tracks.STAGES), 0), scrape(server)
for model in sent:
    for protocol in ("grpc", "http"):
        with Client(server, protocol) as client:
            inputs, latencies_ms = inputs_of(client, model), []
            sent[model] += 1
            assert is_right(inputs, client.infer(model, inputs)), f"{model} over {protocol} gave a wrong answer"
            for _ in range(20):
                start = time.perf_counter()
                client.infer(model, inputs)
                latencies_ms.append(1e3 * (time.perf_counter() - start))
                sent[model] += 1
        low, median, high = np.percentile(latencies_ms, [5, 50, 95])
        seen.append({"model": model, "protocol": protocol, "p5_ms": low, "p50_ms": median, "p95_ms": high})
seen, counted = pd.DataFrame(seen), scrape(server) - before
for model, requests in sent.items():
    assert counted.value("nv_inference_request_success", model=model) >= requests, (
        f"the server counted fewer requests of {model} than were sent"
    )
facts.append(f"{sum(sent.values())} requests were answered over gRPC and HTTP, and the server's own counters agree.")
print(facts[-1])

# %% [markdown]
# ## How long a request takes, and where its time inside the server goes
# First what one client waits for (median, and between which two 90 % are), then the server's own counters.
# %%
display(seen.round(2))
display(counted)

# %% [markdown]
# ## Measured with perf_analyzer
# One network in two formats, at two batch sizes.
# %%
try:
    find_perf_analyzer()
    taggers = [model for model in ("particlenet_AK4", "particlenet_AK4_PT") if model in ready]
    rows = sweep(server, taggers, (1, 16), output="demo")
    display(plots.sweep_figure(rows))
    for row in rows.query("batch == 16").to_dict("records"):
        rate = f"{row['throughput_infer_per_s']:.0f} ± {row['throughput_spread_infer_per_s']:.0f} jets/s"
        facts.append(f"`{row['model']}` tags {rate} in batches of 16, 95 % of them within {row['latency_p95_us'] / 1e3:.0f} ms.")
except CourseError as error:
    facts.append(f"Nothing was measured with perf_analyzer: {error}")
found.update(Markdown("\n".join(f"- {fact}" for fact in facts)))
print("\n".join(facts[2:]))
# %% [markdown]
# ## The server
# %%
display(server)
server.stop()
# %% [markdown]
# Next: `make lab` opens the first notebook.
