# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Scale out
#
# **What you'll do:** put several servers behind one address, and find out how many your traffic needs.
#
# **What you'll learn:** see saturation in the queue · predict the number of servers · prove that they share ·
# lose a server and no answer · run an analysis with Dask.
#
# **What you'll need:** this machine. No GPU, no other notebook before this one.
#
# **Time:** 42 minutes: 16 for reading, 26 for exercises.

# %% [markdown]
# ## Put a front before your server
#
# In CMS, hundreds of jobs send to one address, and a client does not know which server answers. The program at that address
# is **Envoy**, a proxy: it hands each request to the server that has the fewest under way, and leaves out servers
# that do not answer. A **fleet** is Envoy and the servers behind it.

# %%
import os
import signal
from concurrent.futures import ThreadPoolExecutor

from helpers import Client, input_files, jets, launch_fleet, plots, recorded, repository, scaling, scrape
from helpers.course import exercise  #: from helpers.course import ____, exercise

# %% [markdown]
# Each server gets one instance with one thread, so that two of them can use two cores. We begin with a fleet of one.

# %%
MODEL = "particlenet_AK4"
PLAIN = """
instance_group [ { count: 1 kind: KIND_CPU } ]
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
"""
repository.checkout(MODEL, fresh=True)
repository.change_config(MODEL, PLAIN, dynamic_batching=None)
fleet = launch_fleet("work/models", servers=1, load=[MODEL])
fleet

# %% [markdown]
# ## Saturate one server
#
# A request holds the 8 jets of one event. **What do you expect** of the throughput, and of the time in the queue, when
# 1, 2, 4 and 8 requests are under way?

# %%
jets_file = input_files.write_jets(fleet, MODEL)
load = {"batch": 8, "input_data": jets_file, "precision": 0.1, "max_seconds": 2}
one = scaling.by_concurrency(fleet, MODEL, (1, 2, 4, 8), **load)
plots.scale_figure(one)

# %% [markdown]
# **What stands out?** Error bars are 95 % intervals. Find the point from which more requests bring no more throughput:
# there the server is **saturated**. Whatever comes beyond that waits in the queue, at the right. If the throughput falls
# again, the client takes cores from the server: here both run on one machine.

# %% [markdown] exercise="10.1"
# ### Exercise 10.1 (5 minutes) — Find the saturation point
#
# Find the smallest concurrency that reaches 90 % of the highest throughput (`saturated`). Then work out with Little's
# law how many requests stood in the queue, on average, when 8 were under way (`in_queue`):
#
# *requests in the queue = requests per second × seconds that each is in the queue*

# %% exercise="10.1" tags=["starter"]
fastest = one["throughput_infer_per_s"].max()
saturated = one[one["throughput_infer_per_s"] >= 0.9 * fastest]["concurrency"].iloc[0]  #: saturated = ____
last = one.iloc[-1]
in_queue = last["throughput_infer_per_s"] / last["batch"] * last["queue_us"] / 1e6  #: in_queue = ____

# %% exercise="10.1" tags=["check"]
exercise("10.1").check(fleet, one, saturated, in_queue)
# exercise("10.1").hint(1)
# exercise("10.1").solution()

# %% [markdown] exercise="10.1" tags=["hints"]
# 1. Multiply `fastest` by 0.9, and go through the rows from the smallest concurrency.
# 2. The throughput counts jets, and `last["queue_us"]` is in microseconds.

# %% [markdown] exercise="10.1" tags=["answer"]
# One request is worked on, and nearly all others wait. A few clients keep one server busy: while one reads its answer,
# the request of another is at work. The next ones only wait for each other.

# %% [markdown]
# ## Predict how many servers you need
#
# Forty jobs want to use your server. Together they send 1.2 times what it can do, and 95 of 100 requests shall be
# answered within ten times the time of one request.

# %%
traffic = scaling.Traffic(jobs=40, events_per_s=1.2 * fastest / 40 / 8, jets_per_event=8)
budget_ms = round(10 * 8 / fastest * 1000)
print(f"{traffic.requests_per_s:.0f} requests/s come, budget {budget_ms} ms")

# %% [markdown]
# `plan` uses the theory of queues: requests at random, one queue, several equal servers (experts say **M/M/c**). It
# takes the time of a request as random, too. A network is more regular than that, so the real waits are shorter: the
# formula is on the safe side.

# %% [markdown] exercise="10.2"
# ### Exercise 10.2 (8 minutes) — Choose before you measure
#
# How many servers do you need at least? Call `scaling.plan(traffic, one, budget_ms)`: it takes the mean of your rows that
# reach the limit. Read its `table`. Could you have said it without the formula?

# %% exercise="10.2" tags=["starter"]
servers = scaling.plan(traffic, one, budget_ms).servers  #: servers = ____

# %% exercise="10.2" tags=["check"]
exercise("10.2").check(fleet, one, traffic, budget_ms, servers)
# exercise("10.2").hint(1)
# exercise("10.2").solution()

# %% [markdown] exercise="10.2" tags=["hints"]
# 1. Type `scaling.plan(traffic, one, budget_ms).table` in a cell of its own. Which rows are inside the budget?
# 2. With a utilisation above 1, more comes than can be done, and the queue grows without end.

# %% [markdown] exercise="10.2" tags=["answer"]
# 1.2 times one server's work is too much for one and 0.6 for each of two. At 60 % of the limit, waits are short. The
# closer to the limit, the longer they get: do not run servers at 95 %.

# %% [markdown]
# ## Add a server
#
# **What do you expect** of a second server, in both panels?

# %%
fleet.grow()
two = scaling.by_concurrency(fleet, MODEL, (1, 2, 4, 8), **load)
plots.scale_figure([one, two], scaling.expected([one, two]))

# %% [markdown]
# **What stands out?** Grey lines are **expected** from the measurement of one server, by a simulation of clients that
# wait: two servers should do twice as much, and need twice the requests for the same queue. How far below the line are
# your points? Here two servers, Envoy and perf_analyzer share your cores. On two machines they would not.
#
# Now the forty jobs, as so many requests a second:

# %%
forty = scaling.under_load(fleet, MODEL, request_rate_per_s=traffic.requests_per_s, **load)
plots.capacity_figure(scaling.plan(traffic, one, budget_ms), measured=[forty])

# %% [markdown]
# A line is the formula, an open point the simulation of requests that all take the same time, and the black star is
# yours. If it lies above its line, the reason is the one before: two servers on your cores do less than twice what one
# does, and near the limit a little less makes a long wait.
#
# The same with GPUs that others measured, for a thousand jobs of 2 events/s with 4 jets:

# %%
for model in (MODEL, f"{MODEL}_PT"):
    for _, row in recorded("T4", model).query("batch == 4").iterrows():
        plan = scaling.plan(scaling.Traffic(1000, 2, 4), row, budget_ms=20)
        one_gpu = row["throughput_infer_per_s"]
        print(f"{row['variant']}: {one_gpu:.0f} jets/s on one GPU, so {plan.servers} of them")

# %% [markdown]
# What you do to one server, as in notebook 09, divides the number of servers. No spreads were published, so these
# numbers have none.
#
# ## Let forty students in
#
# Forty clients, one address. Each sends 20 jets, 5 in a request.

# %% [markdown] exercise="10.3"
# ### Exercise 10.3 (6 minutes) — Prove that the load was shared
#
# Which part of the requests did each server answer? Take it from the servers' own counters, as a list of two numbers
# between 0 and 1.

# %% exercise="10.3" tags=["starter"]
sample = jets.read("ak4")


def student(number):
    with Client(fleet) as client:
        return jets.Tagger(client, MODEL).tag(sample[20 * number : 20 * number + 20], batch=5)


before = [scrape(server) for server in fleet.servers]
with ThreadPoolExecutor(40) as room:
    answers = list(room.map(student, range(40)))
after = [scrape(server) for server in fleet.servers]
done = [(b - a).value("nv_inference_request_success", model=MODEL) for a, b in zip(before, after)]  #: done = ____
shares = [count / sum(done) for count in done]  #: shares = ____

# %% exercise="10.3" tags=["check"]
exercise("10.3").check(fleet, before, shares)
# exercise("10.3").hint(1)
# exercise("10.3").solution()

# %% [markdown] exercise="10.3" tags=["hints"]
# 1. `after[0] - before[0]` says what the first server did; `.value(name, model=MODEL)` reads a counter's rise.
# 2. Requests are counted by `nv_inference_request_success`. Divide by the sum over both servers.

# %% [markdown] exercise="10.3" tags=["answer"]
# Neither did all of it. Each request goes to the server with the fewest under way, so a server that is slower for a moment
# gets fewer. `fleet.shares()` does the same sums.

# %% [markdown]
# ## Kill a server
#
# A hundred requests are to be answered, eight under way at a time, and one server dies without a warning, as when a
# machine loses its power. **What do you expect:** how many answers are lost?

# %%
client, room = Client(fleet), ThreadPoolExecutor(8)
tagger = jets.Tagger(client, MODEL)
tensors = [tagger.inputs(sample[i : i + 8]) for i in range(0, 800, 8)]
coming = [room.submit(client.infer, MODEL, inputs) for inputs in tensors]
early = sum(request.done() for request in coming)
os.kill(fleet.servers[0].pid, signal.SIGKILL)
survived = [request.result() for request in coming]
print(f"{early} answers were there when it died; in the end {len(survived)} of {len(coming)} came")
fleet

# %% [markdown]
# **What stands out?** None is lost. Requests without an answer were sent again, to the server that lives. That is allowed,
# because tagging a jet twice does no harm. The one that died is started again by itself, behind the same address; the next
# cell waits until Envoy sends it requests again.

# %%
fleet = launch_fleet("work/models", servers=2, load=[MODEL])
fleet.in_rotation()

# %% [markdown]
# ## Run an analysis with Dask
#
# An analysis has more jets than one program can read. **Dask** cuts the work into tasks and gives them to **workers**.
# Here a task reads 250 jets, has them tagged, and writes their scores to a ROOT file of its own. Each worker keeps one
# connection. Our files hold the course's jets over and over, each with an id of its own.
#
# Everyone who reaches a Dask scheduler can run code as its owner. So `local_workers` starts a cluster with **certificates**,
# which exist in this notebook and its workers only: `LocalCluster(security=True)`, without Dask's open pages.

# %%
files = scaling.replicate("ak4", 4000, jets_per_file=2000)
with scaling.local_workers(2) as cluster:
    options = {"output": "work/analysis/first", "jets_per_chunk": 250}
    tagged = scaling.tag_files(files, cluster, fleet, MODEL, **options)
print(tagged)
tagged.workers

# %% [markdown]
# A file appears under its name when it is whole. So you may interrupt this, kill a worker, or kill all of it: run the
# cell again, and it goes on with the chunks that are missing.

# %% [markdown] exercise="10.4"
# ### Exercise 10.4 (7 minutes) — Prove that no jet was lost
#
# The ids go from 0 to 3999. How many of them have no scores (`lost`), and how many scores are there more than once
# (`doubled`)?

# %% exercise="10.4" tags=["starter"]
ids, scores = tagged.scores()
lost = len(set(range(4000)) - set(ids.tolist()))  #: lost = ____
doubled = len(ids) - len(set(ids.tolist()))  #: doubled = ____

# %% exercise="10.4" tags=["check"]
exercise("10.4").check(fleet, tagged, lost, doubled)
# exercise("10.4").hint(1)
# exercise("10.4").solution()

# %% [markdown] exercise="10.4" tags=["hints"]
# 1. `ids` is an array with one number for each jet that has scores. A Python `set` holds each number once.
# 2. `set(range(4000))` are the ids that should be there.

# %% [markdown] exercise="10.4" tags=["answer"]
# `tagged.check()` compares with the ids in the files of jets. The number of jets alone would not do: one lost and one
# doubled look like none.

# %% [markdown]
# ## Connect to somebody else's server
#
# Most servers that you will use are not yours. `connect` takes an address, and the **token** that its owner gave you; for a
# server of your own on this machine it finds it. **What do you expect** that you may do with it, and what not?

# %%
from helpers import connect

theirs = connect(fleet.servers[0].http_url)
print(theirs.state(), theirs.owned, [tensor["name"] for tensor in theirs.metadata(MODEL)["outputs"]])
jets.Tagger(Client(theirs), MODEL).tag(sample[:100])

# %% tags=["raises-exception"]
theirs.reload(MODEL)

# %% [markdown]
# **What stands out?** Tagging, metadata, config and counters work as on your own. What changes the server is its owner's. On a
# server of the experiment, look at two things first: are the model's version and labels yours, and how long is the queue?
#
# ## See what changes on a cluster
#
# Two things. The cluster comes from your batch system, and the address from the people who run the servers:
#
# ```python
# from dask_jobqueue import SLURMCluster                        # or HTCondorCluster
# cluster = SLURMCluster(queue="short", cores=1, memory="2GB", walltime="01:00:00", security=True, shared_temp_directory="~")
# cluster.scale(jobs=50)
#
# fleet = connect("grpcs://triton.example.org:443", token="…")  # a fleet on Kubernetes
# ```
#
# On Kubernetes, **SuperSONIC** puts the same Envoy before the same servers, and starts more of them by itself when the
# time in the queue grows. `containers/kubernetes/` has what it needs to serve this course's models, and
# `containers/CLIENTS.md` shows the same request from coffea and from CMSSW.

# %% [markdown]
# ## Remember
#
# - A saturated server does no more; its queue says so first.
# - Number of servers: what comes, divided by what one does, and some room: waits explode near the limit.
# - One address hides who answers. The servers' own counters tell.
# - Write whole files, name jets by ids, and a crash costs nothing.
#
# **In practice…** one GPU serves many jobs, so a fleet is a way to fill GPUs as much as to add them. A proxy can be full,
# too: watch its own queue and CPU. Clients that cannot bear a wait keep a small model of their own.
#
# **Next:** [Serve a network of your own](11_serve_your_own_network.ipynb), from PyTorch to a model card.

# %% [markdown]
# The next cell stops your fleet, Envoy and all servers. Run it when you are done.

# %%
client.close()
fleet.stop()
fleet
