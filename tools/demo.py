"""The demonstration of `make demo`: run by tools/site.py as a notebook, and written as one page, which shows no code."""

# %% [markdown]
# # A Triton server on this machine
# %%
import time

import matplotlib.pyplot as plt
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
    features = tracks.load_events()[0].features
    if model in tracks.STAGES:
        # What the stages before it make of the hits.
        values = {"sp_features": features}
        for stage in tracks.STAGES[: tracks.STAGES.index(model)]:
            answer = client.infer(stage, {name: values[name] for name in client.signature(stage).inputs})
            values |= {{"embedding_output": "embedding", "kept_edges": "edge_index"}.get(name, name): answer[name] for name in answer}
        return {name: values[name] for name in client.signature(model).inputs}
    example = client.example(model)
    if any(name.startswith("pf_points") for name in example):
        tagger = jets.Tagger(client, model)
        return tagger.inputs(jets.read(jets.sample_for(tagger))[:8])
    return {"FEATURES": features} if "FEATURES" in example else example


def is_right(inputs, answer):
    """True if sum and difference are right, and the numbers of other models are finite."""
    if set(inputs) == {"INPUT0", "INPUT1"}:
        return np.array_equal(answer["OUTPUT0"], inputs["INPUT0"] + inputs["INPUT1"])
    return all(array.size and np.isfinite(array).all() for array in answer.values() if array.dtype.kind == "f")


seen, sent, before = [], dict.fromkeys(ready, 0), scrape(server)
for model in ready:
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
# Left: what one client waits for (median, 5 to 95 %). Right: the server's own counters, as parts of a request's time.
# %%
parts = pd.DataFrame(counted.requests).set_index("model").loc[ready]
parts = parts[["overhead_us", "queue_us", "compute_input_us", "compute_infer_us", "compute_output_us"]].clip(lower=0)
with plt.style.context({"font.size": 14}):
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 1.5 + 0.5 * len(ready)), sharey=True, layout="constrained")
    for (protocol, rows), marker, shift in zip(seen.groupby("protocol"), "os", (-0.15, 0.15), strict=True):
        spread = [rows.p50_ms - rows.p5_ms, rows.p95_ms - rows.p50_ms]
        left.errorbar(rows.p50_ms, np.arange(len(rows)) + shift, xerr=spread, fmt=marker, capsize=3, label=protocol)
    left.set(xscale="log", xlabel="Latency seen by the client (ms)", yticks=range(len(ready)), yticklabels=ready)
    begin = np.zeros(len(ready))
    for (name, share), hatch in zip((100 * parts.div(parts.sum(axis=1), axis=0)).items(), ("", "xx", "\\\\", "", "//"), strict=True):
        right.barh(
            range(len(ready)), share, left=begin, label=name.removesuffix("_us").replace("compute_", ""), hatch=hatch, edgecolor="black"
        )
        begin += share.to_numpy()
    right.set(xlabel="Part of the time inside the server (%)", xlim=(0, 100))
    left.invert_yaxis()
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower left", ncols=2, frameon=False)
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower right", ncols=5, frameon=False)
    plt.close(figure)
display(figure)

# %% [markdown]
# ## Measured with perf_analyzer
# One network in two formats, at two batch sizes.
# %%
try:
    find_perf_analyzer()
    taggers = [model for model in ("particlenet_AK4", "particlenet_AK4_PT") if model in ready]
    rows = sweep(server, taggers, (1, 16), output="demo", again=True)
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
