# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Sweep batch size and concurrency
#
# **What you'll do:** find out how to send requests so that your server does most, and say how sure you are.
#
# **What you'll learn:** sweep and plot · read the knee · give an honest verdict · check Little's law ·
# compare with figures by others.
#
# **What you'll need:** this machine. No GPU, no other notebook before this one.
#
# **Time:** 35 minutes: 13 for reading, 22 for exercises.

# %% [markdown]
# ## Choose what to vary
#
# A client can turn two knobs without touching the server. The **batch size** is the number of
# jets in one request. The **concurrency** is the number of requests under way at any time. Which setting is
# best depends on the model and on the machine, so you measure: a **sweep**.

# %%
import pandas as pd

from helpers import input_files, launch_server, measure_in_turn, plots, recorded, scrape, sweep, verdict
from helpers.course import exercise  #: from helpers.course import ____, exercise

# %%
MODELS = ["particlenet_AK4", "particlenet_AK4_PT"]
server = launch_server("models", load=[*MODELS, "deeptau_nosplit"])
server

# %% [markdown]
# Both models are one network, the tagger of narrow jets: `particlenet_AK4` in ONNX format, `particlenet_AK4_PT`
# in PyTorch's.
#
# ## Sweep the batch size
#
# `sweep` calls `perf_analyzer` for each model and batch size. At each batch size it measures the two models in turn,
# so that they can be compared. **What do you expect** of throughput and latency, from 1 to 32 jets in a request?

# %%
by_batch = sweep(server, MODELS, batches=(1, 4, 16, 32), precision=0.1)
single_jets = by_batch.iloc[0]
budget_ms = round(20 * single_jets["latency_p95_us"] / 1000, 1)
plots.sweep_figure(by_batch, budget_ms=budget_ms)

# %% [markdown]
# **What stands out?** Find the point from which the throughput hardly rises: this is the **knee**. Beyond it, larger
# batches cost time and bring nothing. (On a busy machine the throughput may even fall there.)
#
# Error bars are 95 % intervals; on these axes, equal steps are equal factors. An open point is one whose throughput is
# not known to 10 %, or its 95th percentile to 20 %. The panels below divide by the first model, whose own error stands
# on its own points alone. The dashed line is our **latency budget**: 95 of 100 requests shall be answered within 20
# times what the first model takes for a single jet.
#
# Each row was written to `work/sweeps` as soon as it was measured, so that an interrupt loses none.

# %%
by_batch

# %% [markdown]
# A terminal does the same: `python -m helpers sweep -m particlenet_AK4 -u HOST:PORT --batch 1 4 16 32`.
#
# ## See why batches help

# %%
onnx = by_batch.query("model == 'particlenet_AK4'")
plots.latency_split_figure(onnx, share=True)

# %% [markdown]
# **What stands out?** Which parts get a smaller share in larger batches? A request has costs that hardly depend on its
# size: network, queue, copies. Alone, one jet pays for all of that. In a batch of 32, each pays a 32nd.

# %% [markdown] exercise="8.1"
# ### Exercise 8.1 (5 minutes) — Read the knee
#
# Let us call knee the smallest batch size that reaches 90 % of the highest throughput. Find it for
# `particlenet_AK4`: the batch size as `knee`, and as `knee_ms` the 95th percentile of its latency in
# milliseconds. The rows are in `onnx`.

# %% exercise="8.1" tags=["starter"]
highest = onnx["throughput_infer_per_s"].max()
at_knee = onnx[onnx["throughput_infer_per_s"] >= 0.9 * highest].iloc[0]  #:
knee = at_knee["batch"]  #: knee = ____
knee_ms = at_knee["latency_p95_us"] / 1000  #: knee_ms = ____

# %% exercise="8.1" tags=["check"]
exercise("8.1").check(onnx, knee, knee_ms)
# exercise("8.1").hint(1)
# exercise("8.1").solution()

# %% [markdown] exercise="8.1" tags=["hints"]
# 1. Multiply `highest` by 0.9, and go through the table from the smallest batch.
# 2. `onnx` is a pandas table: `onnx["batch"]`, `onnx["throughput_infer_per_s"]`, `onnx["latency_p95_us"]` are columns.
# 3. The latency is in microseconds.

# %% [markdown] exercise="8.1" tags=["answer"]
# On a CPU the knee often comes early, because a few jets fill a core. A GPU works on thousands of numbers at once,
# and its knee comes at larger batches.

# %% [markdown]
# ## Compare ONNX with PyTorch
#
# Measure twice, and you get two numbers, even of the same thing. So is one faster, or is it chance? `verdict` takes
# the spreads into account.
#
# Mind what is compared. Here ONNX has two copies that share the cores out among them, and PyTorch one copy with all
# the cores. With one request under way, ONNX computes with half of the **threads** that PyTorch has. So this is a
# comparison of two deployments as they are, not of two formats; notebook 09 changes one setting at a time.

# %%
at = by_batch.set_index(["model", "batch"], drop=False)
verdict(at.loc["particlenet_AK4", 1], at.loc["particlenet_AK4_PT", 1])

# %% [markdown]
# The second is compared with the first. There are four answers. *Faster* and *slower*: the whole 95 % interval
# of the gain says so. *The same*: it is within 5 %. *Cannot tell*: the interval is too wide. Then measure more; wishing
# does not help. The two were measured in turn and are compared pair by pair, because a machine changes from minute to
# minute by more than the scatter of one measurement shows.

# %% [markdown] exercise="8.2"
# ### Exercise 8.2 (4 minutes) — Judge at batch 16
#
# Compare the two deployments at batch size 16, ONNX being the baseline. How many times the throughput of ONNX does
# PyTorch have (`gain`), and what is the answer: `"faster"`, `"slower"`, `"the same"` or `"cannot tell"`?

# %% exercise="8.2" tags=["starter"]
before, after = at.loc["particlenet_AK4", 16], at.loc["particlenet_AK4_PT", 16]
gain = after["throughput_infer_per_s"] / before["throughput_infer_per_s"]  #: gain = ____
answer = verdict(before, after).answer  #: answer = ____

# %% exercise="8.2" tags=["check"]
exercise("8.2").check(by_batch, gain, answer)
# exercise("8.2").hint(1)
# exercise("8.2").solution()

# %% [markdown] exercise="8.2" tags=["hints"]
# 1. The gain is the new throughput divided by that of the baseline.
# 2. `verdict(before, after)` gives the answer, with its reason.

# %% [markdown] exercise="8.2" tags=["answer"]
# Whichever is faster here, it is so on this machine, with this batch size and these threads. That says little about
# the format. On the GPU that you meet below, PyTorch wins by far.

# %% [markdown]
# ## Sweep the concurrency
#
# Until now, one request was under way at any time. While its answer travels, the server waits. **What do you
# expect** of two, four and eight requests at once?

# %%
by_load = sweep(server, "particlenet_AK4", batches=(8,), concurrencies=(1, 2, 4, 8), precision=0.1)
plots.throughput_latency_figure(by_load, budget_ms=budget_ms)

# %% [markdown]
# **What stands out?** The legend of the first figure says it: on a CPU, Triton made two **instances** of this
# model, copies that work side by side. One request keeps one of them busy, two requests both, where two cores
# are free. Where does your curve bend upwards? From there on, more requests mostly wait.

# %%
plots.latency_split_figure(by_load)

# %% [markdown]
# From which concurrency on is there a queue? Requests wait there until an instance is free. The config of this model
# lets the server put waiting requests together (**dynamic batching**), so computing may take longer, too.
#
# ## Check Little's law
#
# There is a law about everything that waits, from people in a shop to requests at a server:
#
# *requests under way = requests per second × seconds that each takes, on average*

# %% [markdown] exercise="8.3"
# ### Exercise 8.3 (5 minutes) — Check it on your own numbers
#
# Work out the right side for each row of `by_load`: four numbers. The throughput counts jets, and
# each request has 8 of them.

# %% exercise="8.3" tags=["starter"]
under_way = by_load["throughput_infer_per_s"] / by_load["batch"] * by_load["latency_avg_us"] / 1e6  #: under_way = ____
under_way  #:

# %% exercise="8.3" tags=["check"]
exercise("8.3").check(by_load, under_way)
# exercise("8.3").hint(1)
# exercise("8.3").solution()

# %% [markdown] exercise="8.3" tags=["hints"]
# 1. Requests per second: the throughput divided by the batch size.
# 2. Seconds: `by_load["latency_avg_us"]` is the mean, in microseconds. The law is about the mean, not a percentile.

# %% [markdown] exercise="8.3" tags=["answer"]
# The four numbers are the concurrencies. The law holds whatever the server does; where it does not, the
# measurement is wrong. It also says what to expect: once the throughput is at its limit, twice the concurrency
# is twice the latency.

# %% [markdown]
# ## Use what you found

# %% [markdown] exercise="8.4"
# ### Exercise 8.4 (5 minutes) — Beat the baseline within the budget
#
# The baseline sends one jet at a time, one request after the other. Choose a batch size and a concurrency that
# are faster beyond doubt, with a 95th percentile within `budget_ms`. Your figures tell which.
# `measure_in_turn(server, model, {…}, {…})` measures two loads by turns and returns two rows; the first is the baseline.

# %% exercise="8.4" tags=["starter"]
counted = scrape(server)
baseline = {"batch": 1, "concurrency": 1}
pair = measure_in_turn(server, "particlenet_AK4", baseline, {"batch": 4, "concurrency": 2}, turns=6)  #: pair = ____
print(verdict(*pair))  #:
pair[1]  #:

# %% exercise="8.4" tags=["check"]
exercise("8.4").check(server, counted, pair, budget_ms)
# exercise("8.4").hint(1)
# exercise("8.4").solution()

# %% [markdown] exercise="8.4" tags=["hints"]
# 1. `pair = measure_in_turn(server, "particlenet_AK4", baseline, {"batch": …, "concurrency": …})`
# 2. Take a batch size near the knee, and a concurrency before the curve bends upwards.
# 3. *Cannot tell*? Add `turns=12`, and close what else keeps this machine busy.

# %% [markdown] exercise="8.4" tags=["answer"]
# Both knobs help, and both cost latency. With a smaller budget, the best setting is another one.

# %% [markdown]
# ## Set your CPU beside a GPU
#
# Others have measured this network on GPUs. A comparison is fair only under the same conditions. Theirs were
# concurrency 4, and jets of 100 candidates and 10 vertices. So measure yours once more, like that.
#
# They measured a second network, too: **DeepTau** tells tau leptons from jets, muons and electrons. A jet has 2,440
# numbers here, a tau 105,703, and nearly all of them are zero. What `perf_analyzer` makes up by itself are random bits, so
# `input_files.write_taus` writes real taus into a file for it. **What do you expect:** how many times as long does a tau
# take as a jet?

# %%
alike = sweep(server, "particlenet_AK4", (1, 4, 16), (4,), lengths={"pf": 100, "sv": 10}, precision=0.1)
taus_file = input_files.write_taus()
taus = sweep(server, "deeptau_nosplit", (1, 4, 16), (4,), input_data=taus_file, precision=0.1)

# %%
names = {"particlenet_AK4": "PN-AK4 ONNX", "deeptau_nosplit": "DeepTau"}
on_t4 = [recorded("T4", "particlenet_AK4", "ONNX"), recorded("T4", "deeptau_nosplit", "TensorFlow")]
both, theirs = pd.concat([alike, taus]), pd.concat(on_t4)
plots.sweep_figure(both.replace({"model": names}), reference=theirs.replace({"model": names}))

# %% [markdown]
# **What stands out?** Grey dashed lines are **recorded**: somebody else's, with their hardware in the legend. No
# latencies and no spreads were published with them. Their DeepTau is CMS's own, as a TensorFlow graph; yours is a network with the
# same inputs that this course trained. Look at how far batches help each of the two, on your machine and on theirs.
#
# In a terminal: `python -m helpers sweep -m particlenet_AK4 deeptau_nosplit -u HOST:PORT -b 1 4 16 -c 4 --input-data real`.
# Or one point at a time, by the tool itself: `python -m helpers perf_analyzer -m deeptau_nosplit -u HOST:PORT -i grpc
# --async --percentile=95 --concurrency-range 4:4 -b 100`. There, each request has 42 MB.
#
# `recorded("T4")` has more rows. **TensorRT** is NVIDIA's own optimiser of networks. The
# format in which PyTorch saves a network is called **TorchScript**. PyTorch does not develop it any more, and
# the format that travels best today is ONNX.

# %% [markdown] exercise="8.5"
# ### Exercise 8.5 (3 minutes) — Count the machines
#
# How many machines like yours have the throughput of one T4, ONNX without TensorRT, at batch size 4?

# %% exercise="8.5" tags=["starter"]
on_gpu = recorded("T4", "particlenet_AK4", "ONNX").set_index("batch")["throughput_infer_per_s"]
on_cpu = alike.set_index("batch")["throughput_infer_per_s"]
machines = on_gpu[4] / on_cpu[4]  #: machines = ____

# %% exercise="8.5" tags=["check"]
exercise("8.5").check(alike, machines)
# exercise("8.5").hint(1)
# exercise("8.5").solution()

# %% [markdown] exercise="8.5" tags=["hints"]
# 1. `on_gpu[4]` and `on_cpu[4]` are inferences per second. Which one is divided by which?

# %% [markdown] exercise="8.5" tags=["answer"]
# One GPU replaces several laptops, if it is kept busy. A single reconstruction job cannot do that, a
# hundred can: that is why CMS shares GPUs as a service.

# %% [markdown]
# This course was run on a GPU too: an NVIDIA H200, with the file of `particlenet_AK4_PT`, the server and the commands
# that you have here. So these recorded rows have latencies, and were taken under the conditions of your first sweep.

# %%
torch = by_batch.query("model == 'particlenet_AK4_PT'")
plots.sweep_figure(torch, reference=recorded("H200", "particlenet_AK4_PT"))

# %% [markdown]
# **What stands out?** One jet takes even this GPU 3 ms; most of that is waiting for the next of many small steps to be
# started. How far is it ahead of your machine at batch 1, and how far at 32? Thirty jets take it hardly longer than one.
# A GPU wants large batches, or many clients whose requests the server puts together: the next notebook does that.

# %% [markdown]
# ## Remember
#
# - Beyond the knee, larger batches cost latency and bring no throughput. Work near the knee.
# - Concurrency keeps all instances busy; beyond that, requests only wait.
# - Requests under way = requests per second × mean latency. Check your numbers with it.
# - A difference counts when it is larger than the spread. *Cannot tell* is an answer.
#
# **In practice…** clients of CMS do not choose a batch size: an event has as many jets as it has. There, dynamic
# batching makes the large batches, and the knee tells how large.
#
# **Next:** [Optimise the deployment](09_optimise_the_deployment.ipynb), where you turn the server's own knobs.

# %% [markdown]
# The next cell stops your server. Run it when you are done.

# %%
server.stop()
server
