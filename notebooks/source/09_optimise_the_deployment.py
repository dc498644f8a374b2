# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Optimise the deployment
#
# **What you'll do:** change the server's settings one at a time, and find the fastest that keeps a promise.
#
# **What you'll learn:** write a batcher · let the server make batches · recognise settings that do nothing ·
# weigh precision against physics · let a search find the best.
#
# **What you'll need:** this machine. No GPU, no other notebook before this one.
#
# **Time:** 50 minutes: 13 for reading, 37 for exercises.

# %% [markdown]
# ## Begin with a baseline
#
# The settings of a model are in its `config.pbtxt`. You edit a **working copy** in `work/models`, and the server
# serves that copy. Ours begins as plain as can be: one instance with one thread, no batching.

# %%
import queue
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from timeit import timeit

import numpy as np
import pandas as pd

from helpers import Client, jets, launch_server, plots, precision, repository, scrape, tune, verdict
from helpers.course import enter, exercise  #: from helpers.course import ____, enter, exercise

# %%
MODEL = "particlenet_AK4"
repository.checkout(MODEL, fresh=True)
PLAIN = """instance_group [ { count: 1 kind: KIND_CPU } ]
parameters { key: "intra_op_thread_count" value { string_value: "1" } }"""
repository.change_config(MODEL, PLAIN, dynamic_batching=None).differences

# %%
variants = [folder.name for folder in precision.make(MODEL, ["fp16", "int8_static"])]
server = launch_server("work/models", load=[MODEL, *variants])
server

# %% [markdown]
# (`precision.make` prepared two more models. You meet them later.)
#
# The traffic stays the same in all experiments: requests of one jet, 8 under way at any time. The promise is a
# **latency budget**: 95 of 100 requests shall be answered within 1.5 times what the baseline takes, so that slow and
# fast machines have the same task. Each experiment becomes a row of one table. It is measured in turn with what it
# changed: the server loads one configuration after the other, and keeps yours.

# %%
from helpers import Experiments, input_files

jets_file = input_files.write_jets(server, MODEL)
table = Experiments(server, MODEL, batch=1, concurrency=8, budget=1.5, input_data=jets_file)
table.measure("baseline")

# %% [markdown]
# Now the same once more, with nothing changed. **What do you expect** as its gain?

# %%
table.measure("baseline, again")

# %% [markdown]
# **What stands out?** Whatever stands in the column *gain* now, nothing has made it. Look at its interval: from which
# gain on will you believe an experiment of today?
#
# ## Add an instance
#
# An **instance** is a copy of the model that works beside the others. **What do you expect** of a second one, for
# throughput and latency?

# %% [markdown] exercise="9.1"
# ### Exercise 9.1 (5 minutes) — Serve two instances
#
# Change the count to 2 in the working copy, reload the model, and measure. The server keeps running all the time.
#
# The last line is ready. The column *instances* says what your server reports.

# %% exercise="9.1" tags=["starter"]
TWO = "instance_group [ { count: 2 kind: KIND_CPU } ]"  #: TWO = ____
print(repository.change_config(MODEL, TWO).differences)
server.reload(MODEL)
table.measure("2 instances")

# %% exercise="9.1" tags=["check"]
exercise("9.1").check(server, table, TWO)
# exercise("9.1").hint(1)
# exercise("9.1").solution()

# %% [markdown] exercise="9.1" tags=["hints"]
# 1. Copy the line that begins with `instance_group` from `PLAIN`, and change one number.

# %% [markdown] exercise="9.1" tags=["answer"]
# Two instances can use two cores, if these are free: the client that measures needs some of them, too. So *slower* and
# *cannot tell* are answers that a small or busy machine gives. On a GPU the gain comes from elsewhere: while one instance
# copies data, another one computes.

# %% [markdown]
# ## Write a batcher yourself
#
# Eight clients send one jet each. A program between them and the server can collect jets for 2 ms, send them as one
# request, and hand each client its own scores. Here are 64 jets, padded to one length, and what sends one request:

# %%
tagger = jets.Tagger(Client(server), MODEL)
sample = jets.read("ak4")[:64]
alike = tagger.inputs(sample)
equal_shapes = [{name: tensor[i : i + 1] for name, tensor in alike.items()} for i in range(64)]
clients = ThreadPoolExecutor(8)


def send(tensors):
    return tagger.client.infer(MODEL, tensors)["softmax"]


def rise(way, requests):
    before = scrape(server)
    list(clients.map(way, requests))
    return scrape(server) - before


# %% [markdown] exercise="9.2"
# ### Exercise 9.2 (8 minutes) — Write a batcher
#
# `scores` has one row for each jet of `batch`, in this order. What does client number `n` of the batch get? It sent a batch
# of one, and expects one.

# %% exercise="9.2" tags=["starter"]
waiting = queue.Queue()


def my_batcher(jet):  # each client calls it, from a thread of its own
    answer = Future()
    waiting.put((jet, answer))
    return answer.result(timeout=10)


def collect_and_send(wait_s=0.002):
    while True:
        batch = [waiting.get()]  # the first jet opens a batch
        time.sleep(wait_s)
        batch += [waiting.get() for _ in range(waiting.qsize())]  # those that came meanwhile
        scores = send({name: np.concatenate([jet[name] for jet, _ in batch]) for name in batch[0][0]})
        for n in range(len(batch)):
            batch[n][1].set_result(scores[n : n + 1])  #: batch[n][1].set_result(____)


threading.Thread(target=collect_and_send, daemon=True).start()

# %% exercise="9.2" tags=["check"]
exercise("9.2").check(server, my_batcher, equal_shapes)
# exercise("9.2").hint(1)
# exercise("9.2").solution()

# %% [markdown] exercise="9.2" tags=["hints"]
# 1. `scores[0]` is the row of the first jet; as a batch of one it is `scores[0:1]`.
# 2. The first client gets row 0, the next one row 1: `n` counts them.

# %% [markdown] exercise="9.2" tags=["answer"]
# With `scores` every client would get the scores of all, with `scores[0:1]` those of somebody else's jet. Nothing would fail,
# and the physics would be wrong. And 2 ms have a price: even a client that is alone
# waits for them.

# %% [markdown]
# **What do you expect** of your batcher, against eight clients that send alone? Both are measured in turn.

# %%
ways = [lambda way=way: list(clients.map(way, equal_shapes)) for way in (send, my_batcher)]
gains = [timeit(ways[0], number=1) / timeit(ways[1], number=1) for _ in range(6)]
print("my batcher over none:", *(f"{gain:.2f}" for gain in gains))
rise(my_batcher, equal_shapes)

# %% [markdown]
# **What stands out?** Six ratios on one side of 1 are chance only once in 32 times. Fewer requests reach the server, which
# saves it work; but your batcher makes them wait, and it has to run somewhere. The counters tell more: 64 jets came, in how
# many requests and runs?
#
# ## Let the server make batches
#
# Now **dynamic batching**, a batcher inside the server: one stanza. It puts waiting requests together and runs the model
# once for all. The gain is **over** two instances: the table says what each experiment has changed. **What do you expect**
# for throughput, for the time in the queue, and for the three counters?

# %%
BATCHING = "dynamic_batching { preferred_batch_size: [ 4, 8 ] max_queue_delay_microseconds: 1000 }"
repository.change_config(MODEL, BATCHING)
server.reload(MODEL)
table.measure("dynamic batching", over="2 instances")

# %% [markdown]
# **What stands out?** Your batcher made fewer requests; Triton takes all of them, and makes fewer runs: look at *jets per
# run*. Then look at *queue*. A request may wait a millisecond for company; but with each run more of those that wait are
# served, so the queue may even be shorter. What did it do to the throughput, and to p95? For a CPU a batch is nearly as
# much work as its jets one by one. A GPU is hardly busy with one jet, so there batches gain much: type
# `recorded("T4", MODEL, "ONNX")`, after `from helpers import recorded`.

# %% [markdown] exercise="9.3"
# ### Exercise 9.3 (6 minutes) — Prove that batching happened
#
# Send 64 requests of one jet, and work out from the server's counters how many jets each run of the model had. First
# with jets padded to one length, then with jets as long as they are. The check calls your function.

# %% exercise="9.3" tags=["starter"]
own_shapes = [tagger.inputs(sample[i : i + 1]) for i in range(64)]


def jets_per_run(requests):
    change = rise(send, requests)
    jets, runs = (change.value(f"nv_inference_{name}", model=MODEL) for name in ("count", "exec_count"))  #:
    return jets / runs  #: return ____


padded, ragged = jets_per_run(equal_shapes), jets_per_run(own_shapes)
print(f"padded: {padded:.2f} jets in each run, ragged: {ragged:.2f}")

# %% exercise="9.3" tags=["check"]
exercise("9.3").check(server, jets_per_run, equal_shapes, own_shapes)
# exercise("9.3").hint(1)
# exercise("9.3").solution()

# %% [markdown] exercise="9.3" tags=["hints"]
# 1. `nv_inference_count` counts jets, `nv_inference_exec_count` counts runs.
# 2. `change.value(name, model=MODEL)` reads a counter's rise.

# %% [markdown] exercise="9.3" tags=["answer"]
# Only requests of equal shape can share a run; how many jets each has does not matter. CMSSW sends one request for each
# event, with its jets padded to the longest among them, so two events seldom fit together.

# %% [markdown]
# ## Ask for an accelerator
#
# NVIDIA's optimiser **TensorRT** can take over an ONNX model; this stanza asks for it. **What do you expect** on this
# machine? The config view has what your file says, what the server reports, and a remark.

# %%
TENSORRT = 'optimization { execution_accelerators { gpu_execution_accelerator [ {name: "tensorrt"} ] } }'
repository.change_config(MODEL, TENSORRT)
server.reload(MODEL)
view = repository.compare(MODEL, MODEL, server.config(MODEL))
view.differences

# %% [markdown] exercise="9.4"
# ### Exercise 9.4 (3 minutes) — Find out what is missing
#
# The model is READY, and the server reports the stanza. Still it does nothing here. Read the view: what does it need?

# %% exercise="9.4" tags=["starter"]
needs = "GPU"  #: needs = ____

# %% exercise="9.4" tags=["check"]
exercise("9.4").check(view, needs)
# exercise("9.4").hint(1)
# exercise("9.4").solution()

# %% [markdown] exercise="9.4" tags=["hints"]
# 1. The last column of the view has a remark beside `tensorrt`.

# %% [markdown] exercise="9.4" tags=["answer"]
# A server accepts settings that have no effect, so only a measurement and the log tell. For a TorchScript model, this
# stanza does nothing on any machine. For this network in ONNX format it gave others 25 to 37 % more on a T4.

# %% [markdown]
# ## Compute with fewer bits
#
# `precision.make` wrote two variants of the network: `fp16` computes with 16-bit numbers, `int8_static` with whole
# numbers of 8 bits, whose ranges were found on real jets. Both have the baseline's settings, so we go back to these.
# **What do you expect:** are they faster? And the physics?

# %%
repository.change_config(MODEL, PLAIN, optimization=None, dynamic_batching=None)
server.reload(MODEL)
for name in variants:
    table.measure(name.removeprefix(f"{MODEL}_"), model=name)
seen = {row["experiment"]: table.judged(row["experiment"]) for row in table.rows[1:]}
drawn = pd.DataFrame(list(seen.values()), list(seen))
with plots.drawing(figsize=(11, 4)) as (figure, axes):
    drawn.plot.barh(y="gain", xerr="half_width", ax=axes, xlabel="Gain, with 95 % interval", legend=False)
    axes.axvline(1, color="black")
figure

# %%
costs = precision.cost(server, variants, reference=MODEL, jets=jets.read("ak4")[256:1256])
found = pd.DataFrame(costs[3:], [f"{row['model']}, {row['discriminant']}" for row in costs[3:]])
with plots.drawing(figsize=(11, 4)) as (figure, axes):
    found.plot.barh(y="auc_change", xerr="auc_change_half_width", capsize=4, ax=axes, legend=False)
    axes.set_xlabel("Change of AUC, with 95 % interval")
figure

# %% [markdown]
# **What stands out?** Few processors compute in 16 bits; the others convert each number twice. GPUs have units for both
# kinds. (For this network nobody has published how much that gives, as far as we know.) The first figure has the gains of
# all experiments so far, each over what it changed; the second the change of the **AUC**, the area under the ROC curve,
# on the same jets for all.

# %% [markdown] exercise="9.5"
# ### Exercise 9.5 (5 minutes) — Decide what physics allows
#
# Your analysis can bear a loss of 0.001 in the AUC of `b_vs_light`, not more. Which variants keep to that for certain,
# with the whole 95 % interval? List their names as in `variants`.

# %% exercise="9.5" tags=["starter"]
light = {row["model"]: row for row in costs if row["discriminant"] == "b_vs_light"}
lowest = {name: light[name]["auc_change"] - light[name]["auc_change_half_width"] for name in variants}
safe = [name for name in variants if lowest[name] > -0.001]  #: safe = ____
print(safe)  #:

# %% exercise="9.5" tags=["check"]
exercise("9.5").check(costs, safe)
# exercise("9.5").hint(1)
# exercise("9.5").solution()

# %% [markdown] exercise="9.5" tags=["hints"]
# 1. `lowest` is where the interval of each variant begins. A loss is negative.

# %% [markdown] exercise="9.5" tags=["answer"]
# An interval that reaches beyond −0.001 is no proof of a loss; it says that you need more jets to decide.

# %% [markdown]
# ## Let a search do it
#
# By hand you changed one setting at a time. `tune` does the same, and reads how long requests wait in the queue. It
# measures briefly first, and repeats the best few. At the end the server is as it was.

# %%
tune(server, MODEL, batch=1, concurrency=8, budget_ms=table.budget_ms, input_data=jets_file)

# %% [markdown]
# **What stands out?** Compare one instance of two **threads** with two of one. On a CPU, instances × threads should not
# exceed the cores. The search also says how sure it is, takes the simpler one of two that it cannot tell apart, and
# writes the winner as a `config.pbtxt` to copy. It keeps to one model: you compared the precisions yourself.

# %% [markdown] exercise="9.6"
# ### Exercise 9.6 (10 minutes) — Win the challenge
#
# Reach the highest throughput with a 95th percentile of at most `table.budget_ms`. Everything is yours: settings, batch
# size, concurrency, and a variant if exercise 9.5 allows it; only the jets stay those of `jets_file`. What counts is the
# gain over your own baseline. `table.measure("challenge", batch=…, concurrency=…)["challenge"]` measures both in turn and
# gives your row. Give further tries names of their own, `"challenge 2"` and so on: the figure below shows them all.

# %% exercise="9.6" tags=["starter"]
repository.change_config(MODEL, TWO)  #: repository.change_config(MODEL, ____)
server.reload(MODEL)
counted = scrape(server)
best = table.measure("challenge", batch=4, concurrency=2)["challenge"]  #: best = ____
print(verdict(table["baseline"], best))  #:

# %% exercise="9.6" tags=["check"]
exercise("9.6").check(server, counted, table, best, costs)
# exercise("9.6").hint(1)
# exercise("9.6").solution()

# %% [markdown] exercise="9.6" tags=["hints"]
# 1. Begin with what `tune` found, and with the knee of notebook 08.
# 2. Several jets in a request cost less each. Few requests under way keep the latency low.

# %% [markdown] exercise="9.6" tags=["answer"]
# Two instances and requests of some jets: on two free cores that nearly doubles the throughput. What is best for you
# depends on your machine, and on a budget that somebody else has set.

# %%
plots.throughput_latency_figure(table, budget_ms=table.budget_ms)

# %% [markdown]
# ## Enter the scoreboard
#
# Every experiment and every try is a point: far to the right is good, above the dashed line breaks the promise.
#
# Your best goes into `work/scoreboard.json`, which only you can read. An instructor who makes a folder for the whole class
# and names it in the environment variable `COURSE_SCOREBOARD` before JupyterLab starts finds everybody's there:
# `python -m helpers scoreboard /class/scoreboard/*.json`.

# %%
enter(table["baseline"], best)  # a team says its name: name="my team"

# %% [markdown]
# ## Remember
#
# - Change one thing, predict, measure, and compare with the spread.
# - Measure the baseline twice: that is how large a gain can be that nothing has made.
# - A batcher, yours or the server's, needs requests of equal shape that wait for each other; counters prove it.
# - A server accepts settings that do nothing. Read its report and its log.
# - Fewer bits cost physics; know how much before you gain speed.
#
# **In practice…** the server can remember its answers, too (`response_cache`, notebook 06): a miracle if you measure with
# the same jets again and again, and no help for jets that never come twice. GPUs differ from all this in size, not in
# kind: there, batching and TensorRT matter most. A search by NVIDIA, Model Analyzer, does what `tune` does. An ONNX Runtime
# that is built with Intel's **OpenVINO**, an accelerator for CPUs, takes it as a `cpu_execution_accelerator`, as it takes
# TensorRT on a GPU. Measure before you believe in it.
#
# **Next:** [Scale out](10_scale_out.ipynb), where one server is not enough.
#
# The next cell stops your server. Run it when you are done.

# %%
tagger.client.close()
server.stop()
server
