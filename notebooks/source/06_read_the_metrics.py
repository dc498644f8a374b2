# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Read the metrics
#
# **What you'll do:** read what a server counts, make numbers of your own from it, and watch them live.
#
# **What you'll learn:** read a metrics page · tell counters from gauges · tell requests, inferences and
# executions apart · follow single requests · drive a server with a slider.
#
# **What you'll need:** this machine. No GPU, no other notebook before this one.
#
# **Time:** 27 minutes: 10 for reading, 17 for exercises.

# %% [markdown]
# ## Look at the page
#
# A client can claim what it likes; the server counts. Triton keeps its counts on a **metrics page**, a page
# of plain text at a port of its own. We launch a server with the jet tagger of notebook 04, and get the page
# as any browser would.

# %%
import re
import time

import requests

# %%
from helpers import BackgroundLoad, Client, dashboard, jets, launch_server, paths, plots, scrape, trace
from helpers.course import exercise  #: from helpers.course import ____, exercise

trace_file = f"--trace-config=triton,file={paths.log_dir()}/metrics_trace.json"
options = {"cache_size_bytes": 64_000_000, "extra_arguments": [trace_file]}
server = launch_server("models", load=["add_sub", "particlenet_AK4"], **options)
server

# %%
page = requests.get(server.metrics_url).text
print("\n".join(line for line in page.splitlines() if "request_success" in line))

# %% [markdown]
# This format was made by **Prometheus**, a program that collects such pages from thousands of servers. `HELP`
# says what a metric is, `TYPE` which kind. Each line below is one number: name, labels in braces, value. Here
# the labels are the model and its version.

# %% [markdown] exercise="6.1"
# ### Exercise 6.1 (2 minutes) — Find a number on the page
#
# You have sent nothing yet. How many successful requests has the server counted for `particlenet_AK4`? Who
# sent them?

# %% exercise="6.1" tags=["starter"]
counted = scrape(server).value("nv_inference_request_success", model="particlenet_AK4")  #: counted = ____

# %% exercise="6.1" tags=["check"]
exercise("6.1").check(server, page, counted)
# exercise("6.1").hint(1)
# exercise("6.1").solution()

# %% [markdown] exercise="6.1" tags=["hints"]
# 1. The line begins with `nv_inference_request_success{model="particlenet_AK4"`. Its value stands at the end.
# 2. Who: look for `model_warmup` in the model's `config.pbtxt`.

# %% [markdown] exercise="6.1" tags=["answer"]
# The server itself: before the model was READY, the warm-up of its config sent them. They count like any
# other, and the first of them are slow. Remember that for later. `scrape(server).value(name, model=...)` reads a number
# for you.

# %% [markdown]
# ## Tell counters from gauges
#
# A **counter** only grows, from the moment when the model was loaded. A **gauge** says how things are now,
# and goes up and down. **What do you expect:** which of the two is a temperature, which a mileage?

# %%
kinds = re.findall(r"^# TYPE nv_(\S+) (\w+)", page, re.MULTILINE)
for kind in ("counter", "gauge"):
    print(f"{kind}: {', '.join(name for name, its_kind in kinds if its_kind == kind)}\n")

# %% [markdown]
# One gauge is worth a look: `pending_request_count`, the requests that wait. To see some we need a **load**.
# `BackgroundLoad` sends requests from a process of its own, here 8 at once.

# %%
waiting, pending = [], "nv_inference_pending_request_count"
with BackgroundLoad(server, "particlenet_AK4", batch=10, concurrency=8) as load:
    for _ in range(8):
        time.sleep(0.2)
        waiting.append(scrape(server).value(pending, model="particlenet_AK4"))
print(waiting)
load

# %% [markdown]
# **What stands out?** Eight moments, and nothing of what was between them: a short queue may never show. A
# counter forgets nothing: read it late, and it still has every request. (Do not trust every `TYPE`: it calls
# `nv_cache_num_hits` a gauge, and that only grows.)
#
# ## Take the difference
#
# A counter alone says little. Read it before and after, and subtract. We send one request with ten jets.

# %%
client = Client(server)
narrow = jets.read("ak4")
tagger = jets.Tagger(client, "particlenet_AK4")
ten_jets = tagger.inputs(narrow[:10])

# %%
before = scrape(server)
client.infer("particlenet_AK4", ten_jets)
scrape(server) - before

# %% [markdown]
# Three numbers that people mix up:
#
# - `nv_inference_request_success`: **requests**, the messages that were answered;
# - `nv_inference_count`: **inferences**, the jets in them;
# - `nv_inference_exec_count`: **executions**, how often the model ran.
#
# Now 80 requests of one jet each, 8 under way at once. **What do you expect** for the three?

# %%
eighty = tagger.inputs(narrow[:80])
single_jets = [{name: tensor[i : i + 1] for name, tensor in eighty.items()} for i in range(80)]
before = scrape(server)
client.infer_many("particlenet_AK4", single_jets, max_in_flight=8)
change = scrape(server) - before
for name in ("request_success", "count", "exec_count"):
    print(f"{name:>16}: {change.value(f'nv_inference_{name}', model='particlenet_AK4'):.0f}")

# %% [markdown]
# **What stands out?** Compare executions with requests. Fewer executions mean that the server has put requests
# together: the config has `dynamic_batching`, so the model runs once for several that wait. That takes equal
# shapes; these jets were padded to one length. Are the numbers equal? Then no request had to wait: run the cell
# again, with more under way.

# %% [markdown] exercise="6.2"
# ### Exercise 6.2 (3 minutes) — Move three counters
#
# Make the server count exactly **4 requests** and **40 inferences**.

# %% exercise="6.2" tags=["starter"]
before = scrape(server)
answers = [client.infer("particlenet_AK4", ten_jets) for _ in range(4)]  #: answers = ____

# %% exercise="6.2" tags=["check"]
exercise("6.2").check(server, before, answers)
# exercise("6.2").hint(1)
# exercise("6.2").solution()

# %% [markdown] exercise="6.2" tags=["hints"]
# 1. 40 inferences in 4 requests: how many jets are in each?
# 2. `client.infer("particlenet_AK4", ten_jets)` is one request. A list comprehension sends several.
# 3. Sent too often? Run the whole cell again: it reads `before` again, too.

# %% [markdown] exercise="6.2" tags=["answer"]
# Sent one after the other they also are 4 executions. With `client.infer_many(..., [ten_jets] * 4)` they could
# be fewer.

# %% [markdown]
# ## Compute a latency
#
# **Latency** is the time that one request takes. The server does not keep single times, but it adds them all
# up, in microseconds: `nv_inference_request_duration_us`. Divide by the requests and you have a mean. Let us
# do that with the page as it stands, since the model was loaded.

# %%
now = scrape(server)
total_us = now.value("nv_inference_request_duration_us", model="particlenet_AK4")
all_requests = now.value("nv_inference_request_success", model="particlenet_AK4")
print(f"{total_us / all_requests / 1000:.2f} ms per request, since the model was loaded")

# %% [markdown]
# **What do you expect** for 50 requests of ten jets, sent now: the same? This cell sends them and keeps the
# difference.

# %%
before = scrape(server)
for _ in range(50):
    client.infer("particlenet_AK4", ten_jets)
change = scrape(server) - before

# %% [markdown] exercise="6.3"
# ### Exercise 6.3 (4 minutes) — Find the mean latency
#
# How long did one of these 50 requests take inside the server, in **milliseconds**?

# %% exercise="6.3" tags=["starter"]
duration_us = change.value("nv_inference_request_duration_us", model="particlenet_AK4")  #:
mean_ms = duration_us / 50 / 1000  #: mean_ms = ____

# %% exercise="6.3" tags=["check"]
exercise("6.3").check(server, change, mean_ms)
# exercise("6.3").hint(1)
# exercise("6.3").solution()

# %% [markdown] exercise="6.3" tags=["hints"]
# 1. Use `change`, not the page: `change.value("nv_inference_request_duration_us", model=...)`.
# 2. Divide by the number of requests, and by 1000 to get milliseconds.

# %% [markdown] exercise="6.3" tags=["answer"]
# Always take differences: the number since the model was loaded has the slow warm-up in it, and whatever
# anybody did before you.

# %% [markdown]
# ## Follow single requests
#
# Where does the time go, and how do requests differ? Counters add them up. For that Triton has a **trace**: it writes down
# when each request came, waited and was computed, into the file that we named at the launch. It costs time, so it is off
# until its owner asks. `trace` asks for so many requests, sends them, and reads the file.
#
# **What do you expect** of one request, and of eight that come at once? The model has two instances.

# %%
plots.lives_figure(trace(server, lambda: client.infer("particlenet_AK4", ten_jets)))

# %%
before = scrape(server)
lives = trace(server, lambda: client.infer_many("particlenet_AK4", [ten_jets] * 8, max_in_flight=8), 8)
plots.lives_figure(lives)

# %% [markdown] exercise="6.4"
# ### Exercise 6.4 (4 minutes) — Prove the picture
#
# **What stands out?** White is the queue, blue the network itself; *input* and *output* move tensors, and are thin. Bars that
# begin and end together are one batch. Is the picture right? Which part of the time of all eight requests was spent in the
# queue? The check asks the counters.

# %% exercise="6.4" tags=["starter"]
# Each column of lives is a moment, in ms: lives["QUEUE_START"], lives["REQUEST_END"] ...
waited_ms = (lives["COMPUTE_START"] - lives["QUEUE_START"]).sum()  #: waited_ms = ____
share = waited_ms / (lives["REQUEST_END"] - lives["REQUEST_START"]).sum()  #: share = ____  # from 0 to 1

# %% exercise="6.4" tags=["check"]
exercise("6.4").check(server, before, share)
# exercise("6.4").hint(1)
# exercise("6.4").solution()

# %% [markdown] exercise="6.4" tags=["hints"]
# 1. A request waits from `QUEUE_START` until `COMPUTE_START`. `(lives["B"] - lives["A"]).sum()` adds up for all eight.
# 2. It lives from `REQUEST_START` until `REQUEST_END`.

# %% [markdown] exercise="6.4" tags=["answer"]
# Trace and counters read the same clock. The trace shows each request and costs a file; counters cost nothing and show
# sums. The difference of both to the client's view is the way between client and server: the server cannot see it.

# %% [markdown]
# ## Answer from the cache
#
# Triton can keep answers. Then an equal request need not be computed again. It takes two things: the server
# was launched with `cache_size_bytes`, and the model's config must ask for it. We load the model again, with
# one more line. **What do you expect** for ten equal requests?

# %%
config = (server.repository / "particlenet_AK4" / "config.pbtxt").read_text()
server.load("particlenet_AK4", config=config + "response_cache { enable: true }")
before = scrape(server)
for _ in range(10):
    client.infer("particlenet_AK4", ten_jets)
time.sleep(2.5)  # the numbers of the cache and of the machine are renewed every 2 seconds
change = scrape(server) - before
change

# %% [markdown]
# **What stands out?** Ten requests, but ten inferences in a single execution: nine answers are
# `nv_cache_num_hits`. A cache makes benchmarks look wonderful. Are your jets ever equal? So we switch it off.

# %%
server.load("particlenet_AK4", config=config)

# %% [markdown]
# ## Look for the GPU

# %%
# !nvidia-smi --query-gpu=name,utilization.gpu,memory.used,memory.total,power.draw --format=csv

# %% [markdown]
# With a GPU the server's page has lines whose names begin with `nv_gpu_`: utilization, memory, power and energy, with
# the GPU's identifier as label. NVIDIA's program `nvidia-smi` tells the same, a line for each GPU. (`!` hands a line to
# the shell.) *Command not found*? Then this machine has no GPU. One with an NVIDIA H200 said this, with `particlenet_PT`
# under a load of 16 jets per request, two requests at a time:
#
# | name | utilization.gpu | memory.used | memory.total | power.draw |
# |---|--:|--:|--:|--:|
# | NVIDIA H200 | 20 % | 2.7 GB | 150.8 GB | 148 W |
#
# The GPU was busy a fifth of the time, and this is what matters for a service: the rest is room for other clients.
# Without a GPU these lines are missing, and everything works on the CPU. `nv_cpu_utilization` and
# `nv_cpu_memory_used_bytes` are always there; they are about the whole machine, your browser included.
#
# ## Watch it live
#
# The dashboard does all of this twice a second: scrape, subtract, divide. It also sends a load, and the two
# sliders change it. Try them: what happens to each column?

# %%
board = dashboard(server, load="particlenet_AK4")
board

# %% [markdown] exercise="6.5"
# ### Exercise 6.5 (4 minutes) — Prove that batching happened
#
# Leave *Batch* at 1, and move *Concurrency* until *Mean batch* is above 1.5. Then run the next cell, which
# watches for 3 seconds. Compute the mean batch that the model ran from the counters in `busy`.

# %% exercise="6.5" tags=["starter"]
board.controls.concurrency.value = 12  #:
before = scrape(server)
time.sleep(3)
busy = scrape(server) - before
inferences = busy.value("nv_inference_count", model="particlenet_AK4")  #:
mean_batch = inferences / busy.value("nv_inference_exec_count", model="particlenet_AK4")  #: mean_batch = ____

# %% exercise="6.5" tags=["check"]
exercise("6.5").check(server, busy, mean_batch)
# exercise("6.5").hint(1)
# exercise("6.5").solution()

# %% [markdown] exercise="6.5" tags=["hints"]
# 1. Requests are put together only while they wait. So more of them must be under way than the model's two
#    instances can take.
# 2. Mean batch = inferences / executions. Both are in `busy`: `busy.value("nv_inference_count", model=...)`.

# %% [markdown] exercise="6.5" tags=["answer"]
# Each request had one jet, and yet the model ran on several at once. `busy` itself shows the same division.

# %% [markdown]
# ## Remember
#
# - Counters only grow: take the difference of two readings. Gauges are as they are now.
# - A request is a message, an inference an entry in it, an execution one run of the model.
# - Durations are sums in microseconds; divided by requests they give means, never percentiles.
# - A cache answers without computing: no inference, no execution.
#
# **In practice…** Prometheus collects such pages, and Grafana draws them, as our dashboard does. SuperSONIC,
# which runs Triton for several experiments, starts and stops servers by the mean queue time of these counters.
#
# **Next:** [Measure with perf_analyzer](07_measure_with_perf_analyzer.ipynb), the client's side of the story.

# %% [markdown]
# The next cell stops your server, and the dashboard with it. Run it when you are done.

# %%
board.stop()
client.close()
server.stop()
server
