# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Measure with perf_analyzer
#
# **What you'll do:** find out how many jets a second your server tags, how long they wait, and where the
# time goes.
#
# **What you'll learn:** read a perf_analyzer command · trade latency for throughput · choose a percentile ·
# split a latency into its parts · tell a measurement from noise.
#
# **What you'll need:** this machine. No GPU, no other notebook before this one.
#
# **Time:** 35 minutes: 16 for reading, 19 for exercises.

# %% [markdown]
# ## Prepare a server
#
# Two models, one network: `particlenet_AK4` in ONNX format, `particlenet_AK4_PT` in TorchScript. Both tag
# narrow jets.

# %%
import timeit

import numpy as np
import pandas as pd

from helpers import (
    Client,
    input_files,
    launch_server,
    measure,
    measure_in_turn,
    perf_analyzer,
    plots,
    scrape,
    verdict,
)
from helpers.course import exercise  #: from helpers.course import ____, exercise

# %%
server = launch_server("models", load=["particlenet_AK4", "particlenet_AK4_PT"])
server

# %% [markdown]
# ## Read a command
#
# **perf_analyzer** is NVIDIA's own load generator. It sends made-up requests, as many as the server can
# take, and reads a clock. In a terminal, type `python -m helpers perf_analyzer` and its arguments. (NVIDIA
# makes it for Linux only. Elsewhere this notebook says so, and goes on with what was recorded on a machine of ours.
# For models of text NVIDIA had GenAI-Perf, which is now **AIPerf**; for tensors perf_analyzer is still the tool.)

# %%
shapes = """--shape pf_points:2,50 --shape pf_features:20,50 --shape pf_mask:1,50 \
--shape sv_points:2,4 --shape sv_features:11,4 --shape sv_mask:1,4"""
command = f"""perf_analyzer -m particlenet_AK4 --percentile=95 -u {server.grpc_url} -i grpc --async \
-p 1000 --max-trials 6 -v {shapes} --concurrency-range 1:1 -b 10"""

# %% [markdown]
# | part | means |
# |---|---|
# | `-m` | the model |
# | `--percentile=95` | look at the latency that 95 % of the requests stay below |
# | `-u`, `-i` | address and protocol: gRPC has its own port |
# | `--async` | send without a thread for each request |
# | `-p 1000`, `--max-trials 6` | measure in **windows** of 1,000 ms, six at most |
# | `-v` | tell about each window (*Pass*) |
# | `--shape pf_points:2,50` | 50 candidates; the config has -1 here, any length |
# | `--concurrency-range 1:1` | one request under way: the next goes out when the answer is here |
# | `-b 10` | 10 jets in each request |
#
# **What do you expect?** One jet takes about 2 ms on one core of a laptop. Write down a number of jets per second.

# %%
perf_analyzer(command)

# %% [markdown]
# **What stands out?** *Throughput* is in inferences per second, that is, jets: about 10 jets over the latency,
# as it must be with one request under way. The last number is the exit status. It is 0 when three windows in
# a row agreed within 10 %; 2 when none did, and then there is no result, only the windows.

# %% [markdown] exercise="7.1"
# ### Exercise 7.1 (3 minutes) — Send one jet at a time
#
# Run the command again with 1 jet in a request, and nothing else changed. The check asks the server's counters
# how many it saw.

# %% exercise="7.1" tags=["starter"]
before = scrape(server)
one_jet = command.replace("-b 10", "-b 1")  #: one_jet = ____
status = perf_analyzer(one_jet)  #: status = ____

# %% exercise="7.1" tags=["check"]
exercise("7.1").check(server, before, command, one_jet, status)
# exercise("7.1").hint(1)
# exercise("7.1").solution()

# %% [markdown] exercise="7.1" tags=["hints"]
# 1. `command` is text. Which part of it says how many jets go into a request?
# 2. `command.replace("old", "new")` changes a part of a text, wherever it stands. Then hand the new text to
#    `perf_analyzer`.

# %% [markdown] exercise="7.1" tags=["answer"]
# With `-b 1` inferences and requests are equal. On a busy machine the status may be 2: the windows did not
# agree. The requests were sent all the same.

# %% [markdown]
# ## Let a helper do the chores
#
# `measure` runs the same program. It asks the server for the shapes, warms the model up, decides how many windows
# it needs, at least six, and measures them. The result is one **row**, a pandas Series with many columns, times in µs.

# %%
ten = measure(server, "particlenet_AK4", batch=10)
ten

# %%
print(ten["command"].replace(" --", " \\\n  --"))

# %% [markdown]
# Behind ± is half of a 95 % interval, from the scatter of the windows; in brackets are both ends of one. No number
# without it! It holds while you measured, and does not know what the machine does a minute later. The command is
# there for you to copy.
#
# ## Go from 1 to 100 jets
#
# **What do you expect** of throughput and latency when a request carries 1, 10, 100 jets? Rows
# make one table in pandas, here side by side. `throughput_spread_infer_per_s` is what stood behind ±; `latency_low_us` and
# `latency_high_us` are the ends that stood in brackets.

# %%
by_batch = {1: measure(server, "particlenet_AK4", batch=1), 10: ten}
by_batch[100] = measure(server, "particlenet_AK4", batch=100)
shown = ["throughput_infer_per_s", "throughput_spread_infer_per_s"]
shown += ["latency_p50_us", "latency_p95_us", "latency_low_us", "latency_high_us"]
pd.DataFrame(by_batch).loc[shown].astype(float).round(1)

# %% [markdown] exercise="7.2"
# ### Exercise 7.2 (5 minutes) — Weigh gain against price
#
# From 1 to 100 jets a request: by which factor does the throughput rise (`gain`), and by which factor the
# 95th percentile of the latency (`price`)?

# %% exercise="7.2" tags=["starter"]
one, hundred = by_batch[1], by_batch[100]
gain = hundred["throughput_infer_per_s"] / one["throughput_infer_per_s"]  #: gain = ____
price = hundred["latency_p95_us"] / one["latency_p95_us"]  #: price = ____

# %% exercise="7.2" tags=["check"]
exercise("7.2").check(by_batch, gain, price)
# exercise("7.2").hint(1)
# exercise("7.2").solution()

# %% [markdown] exercise="7.2" tags=["hints"]
# 1. `list(one.index)` shows the names of a row's columns.
# 2. You need `throughput_infer_per_s` and `latency_p95_us`; a factor is the new number over the old one.

# %% [markdown] exercise="7.2" tags=["answer"]
# On a CPU the gain is mostly small, and the price is nearly the batch size: a core has no idle units that a larger
# batch could fill. A GPU has thousands. That is why CMS's numbers for a GPU look so different.

# %% [markdown]
# ## Choose a percentile
#
# A mean hides how single requests differ. This cell times 200 requests of 10 jets, one after the other, with a clock of
# our own. **What do you expect:** a Gaussian?

# %%
with Client(server) as client:
    ten_jets = client.example("particlenet_AK4", 10)
    times_s = timeit.repeat(lambda: client.infer("particlenet_AK4", ten_jets), repeat=200, number=1)
times_ms = 1000 * np.array(times_s)
with plots.drawing() as (figure, axes):
    axes.hist(times_ms, np.geomspace(times_ms.min(), times_ms.max(), 26), histtype="step", color="black")
    for percent, line in ((50, "-"), (95, ":")):
        value = np.percentile(times_ms, percent)
        axes.axvline(value, color="black", linestyle=line, label=f"p{percent} {value:.3g} ms")
    axes.set(xscale="log", xlabel="Latency seen by the client (ms)", ylabel="Requests per bin")
    plots.decades(axes.xaxis)
    axes.legend()
figure

# %% [markdown]
# **What stands out?** Look for an edge at the left: no request is faster than its arithmetic. To the right goes a tail,
# short on a quiet machine and long on a busy one, of requests that something held up. So people name percentiles. The
# median, **p50**, is the latency of a typical request, and **p99** is what one request in a hundred exceeds. An event
# needs *all* of its answers, so the slow ones decide. **What do you expect** of p99 / p50 in the rows above?

# %%
for batch, row in by_batch.items():
    print(
        f"batch {batch}: p50 {row['latency_p50_us'] / 1000:.1f} ms, "
        f"p99 {row['latency_p99_us'] / 1000:.1f} ms, of {row['requests']} requests"
    )

# %% [markdown]
# **What stands out?** The tail depends on the machine and its other users, more than on the model. And a
# p99 of fewer than a few hundred requests is little more than the slowest of them.
#
# ## Split the latency
#
# Server and client both read clocks on the way. Together they tell where the time of a mean request went.

# %%
plots.latency_split_figure(by_batch.values(), share=True)
# %% [markdown]
# **What stands out?** Which part is the longest, and is there a queue? With one request under way, none has to wait.
# *Network* also holds what the server does before its own clock starts.

# %% [markdown] exercise="7.3"
# ### Exercise 7.3 (5 minutes) — Make requests wait
#
# Measure `particlenet_AK4` with a batch of 10 and 8 requests under way. Which fraction (0 to 1) of the mean
# latency, `latency_avg_us`, do requests spend in the queue?

# %% exercise="7.3" tags=["starter"]
busy = measure(server, "particlenet_AK4", batch=10, concurrency=8)  #: busy = ____
share = busy["queue_us"] / busy["latency_avg_us"]  #: share = ____

# %% exercise="7.3" tags=["check"]
exercise("7.3").check(server, busy, share)
# exercise("7.3").hint(1)
# exercise("7.3").solution()

# %% [markdown] exercise="7.3" tags=["hints"]
# 1. `measure(server, "particlenet_AK4", batch=10)` is above. The argument that you need is called
#    `concurrency`.
# 2. The column is `queue_us`; both times are means, so that their ratio is a fraction.

# %% [markdown] exercise="7.3" tags=["answer"]
# The model has two instances. Six of eight requests find them busy and wait; then the server puts those that
# wait into one larger batch, so that the inference takes longer, too. The latency now says little about the
# model, and much about the load. `plots.latency_split_figure([ten, busy])` shows it.

# %% [markdown]
# ## Warm up
#
# The next cell loads the TorchScript model without its own warm-up and times its first 20 requests. **What do
# you expect** of the first one?

# %%
config = (server.repository / "particlenet_AK4_PT" / "config.pbtxt").read_text()
server.load("particlenet_AK4_PT", config=config.partition("model_warmup")[0])
with Client(server) as client:
    tensors = client.example("particlenet_AK4_PT", batch=10)
    ask = timeit.Timer(lambda: client.infer("particlenet_AK4_PT", tensors))
    first_ms = [1000 * ask.timeit(number=1) for _ in range(20)]
with plots.drawing() as (figure, axes):
    axes.semilogy(range(1, 21), first_ms, "ko-", label="request after request")
    axes.set(xlabel="Request number", ylabel="Latency (ms)", xticks=range(1, 21, 3))
    plots.decades(axes.yaxis)
figure

# %% [markdown]
# **What stands out?** Somebody pays for the first request, and it should not be your average. `measure`
# sends requests that do not count, first.
#
# ## Doubt the inputs
#
# What perf_analyzer calls random are random *bits*. Read as 32-bit numbers they look like this:

# %%
np.frombuffer(np.random.default_rng(7).bytes(24), np.float32)

# %% [markdown]
# No jet looks like that. Does it matter for the speed? A helper writes real jets of the course into a file,
# padded with masks, as CMSSW sends them.

# %%
jets_50 = input_files.write_jets(server, "particlenet_AK4")
inputs = [{"input_data": "random"}, {"input_data": jets_50}]
bits, real = measure_in_turn(server, "particlenet_AK4", *inputs, batch=10)
pd.DataFrame({"random": bits, "real": real}).loc[shown].astype(float).round(1)

# %%
verdict(bits, real)

# %% [markdown]
# `measure_in_turn` measures both by turns, and `verdict` compares pair by pair: what the machine does meanwhile
# hits both alike. **What stands out?** This network does the same sums whatever the numbers are, so *the same* is what
# one expects, and *cannot tell* is all that a busy machine allows. Other models differ: the track finder of notebook 05
# refuses random hits, and works longer on larger events.

# %% [markdown] exercise="7.4"
# ### Exercise 7.4 (6 minutes) — Find out what padding costs
#
# Half of our narrow jets have 15 candidates or fewer. Write the jets again, padded or cut to 20 candidates
# (`pf`) and 4 vertices (`sv`). Measure `jets_50` and your new file in turn, with a batch of 10.

# %% exercise="7.4" tags=["starter"]
jets_20 = input_files.write_jets(server, "particlenet_AK4", lengths={"pf": 20, "sv": 4})  #: jets_20 = ____
loads = {"input_data": jets_50}, {"input_data": jets_20}  #:
pair = measure_in_turn(server, "particlenet_AK4", *loads, batch=10)  #: pair = ____

# %% exercise="7.4" tags=["check"]
exercise("7.4").check(server, pair)
# exercise("7.4").hint(1)
# exercise("7.4").solution()

# %% [markdown] exercise="7.4" tags=["hints"]
# 1. `input_files.write_jets` has an argument `lengths`, a dictionary such as `{"pf": 50, "sv": 4}`.
# 2. `measure_in_turn(..., {"input_data": ...}, {"input_data": ...}, batch=10)` takes the files that `input_files.write_jets` returned.

# %% [markdown] exercise="7.4" tags=["answer"]
# Padding is computed like everything else, and thrown away by the mask. That is why CMSSW pads only to the
# longest jet of an event.

# %% [markdown]
# ## Believe it or not
#
# Ask for the impossible: windows of 100 ms that agree within 0.1 %.

# %%
impossible = "-p 100 --max-trials 3 --stability-percentage 0.1"
status = perf_analyzer(command.replace("-p 1000 --max-trials 6", impossible))
status

# %% [markdown]
# *Failed to obtain stable measurement*, status 2, and no result at all. (On a busy machine the status may be
# 3: no request ended within a window.) A script that does not look at the status would go on with an old
# file. `measure` keeps what it saw and says how good it is:

# %%
rough = measure(server, "particlenet_AK4", batch=10, precision=0.001, max_seconds=1)
rough["stable"], rough["note"]

# %% [markdown]
# ## Remember
#
# - Throughput counts jets, latency counts requests; say which batch and which concurrency.
# - Give the percentile that your users feel, and the spread.
# - Under load requests wait: latency then says more about the load than about the model.
# - Warm up each shape, and send inputs that look like yours.
# - A result that is not stable is no result.
#
# **In practice…** client and server share this machine's cores, so they disturb each other. At an
# experiment they are on different machines, and *network* means what it says. Measure there again. For a PyTorch model on
# a GPU, Triton's own backend stops the clock of *compute* before the GPU is done, so part of its time counts as *output*.
#
# **Next:** [Sweep batch size and concurrency](08_sweep_batch_and_concurrency.ipynb), where you measure 14 points
# instead of three.

# %% [markdown]
# The next cell stops your server. Run it when you are done.

# %%
server.stop()
server
