# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Launch a server
#
# **What you'll do:** launch a Triton server, watch it start, stop and die, and bring it back.
#
# **What you'll learn:** ask a server for its health · read its log · choose its ports · write the command
# for a GPU node · recover a dead server.
#
# **What you'll need:** this machine. No GPU, no other notebook before this one.
#
# **Time:** 25 minutes: 9 for reading, 16 for exercises.

# %% [markdown]
# ## Start a process with a name
#
# A server is only a program that waits for questions. Ours is called `tritonserver`. It needs to know two
# things: where its models are, and on which **ports** to listen. A port is a number that tells programs on
# one machine apart, like the room number in a building.

# %%
import os
import signal
import time

import requests

from helpers import Client, launch_server, scrape
from helpers.course import exercise  #: from helpers.course import ____, exercise

# %%
server = launch_server("models", load=["add_sub"])
server

# %% [markdown]
# Look at the card, line by line:
#
# - **device**: where the models run. Without a GPU this is your processor.
# - **HTTP**, **gRPC**: two ways to send requests. **metrics**: a page with the server's counters.
# - **pid**: the number of the process, as in `ps` or `top`.
# - the models, each with its version and state. **READY** means: send requests.
#
# Run the same call again. **What do you expect:** a second server, or the first one?

# %%
server = launch_server("models", load=["add_sub"])

# %% [markdown]
# The first one: same process, nothing started twice. So you can run any cell of this course again without
# harm.

# %% [markdown]
# ## Ask for its health
#
# Big systems ask their servers every few seconds how they are. Triton answers three such questions over
# HTTP. Status code **200** means yes; **400** means no. In a terminal you would type `curl -i
# localhost:9000/v2/health/ready`.

# %%
base = f"http://{server.http_url}"
for question in ("health/live", "health/ready", "models/add_sub/ready"):
    print(question, "->", requests.get(f"{base}/v2/{question}").status_code)

# %% [markdown]
# *live*: the process answers. *ready*: nothing is broken or still loading. The last question is about one
# model only. These three are not the same, as you can show now.

# %% [markdown] exercise="1.1"
# ### Exercise 1.1 (4 minutes) — Ask the right question
#
# The next cell takes `add_sub` out of service. **Guess** which of the three questions gets another answer
# now; then run the cell with the loop again. A program wants to know, before it sends a request, whether
# the server would answer it. Write that function. The check calls it while `add_sub` is out of service and
# while it serves, and with a model that does not exist.

# %%
server.unload("add_sub")


# %% exercise="1.1" tags=["starter"]
def may_send(model):
    return requests.get(f"{base}/v2/models/{model}/ready").status_code == 200  #: return ____  # True or False


# %% exercise="1.1" tags=["check"]
exercise("1.1").check(server, may_send)
# exercise("1.1").hint(1)
# exercise("1.1").solution()

# %% [markdown] exercise="1.1" tags=["hints"]
# 1. Only one of the three questions changes its answer. Put the name `model` into its address, in an
#    f-string as in the loop.
# 2. A status code is a number. To be True or False, it must be compared with 200.

# %% [markdown] exercise="1.1" tags=["answer"]
# The server lives (200), and nothing in it is broken, so it is ready (200). It only has no model `add_sub`
# any more (400). A program that needs one model should therefore ask for that model.

# %%
server.load("add_sub")
server

# %% [markdown]
# ## Read the log
#
# While it starts, Triton writes down what it does: its **log**. When something goes wrong, the reason is
# there. The lines are long, so we cut them.

# %%
log = server.log(0)
lines = log.splitlines()
for line in lines:
    if not line.startswith("+"):
        print(line[:100])

# %% [markdown]
# The first letter is the severity: **I** information, **W** warning, **E** error. Then follow month and
# day, the time, the pid, and the line of Triton's own source code. Reading from the top:
#
# | Part | What it says |
# |---|---|
# | `pinned_memory`, `cuda_memory` | memory for a GPU. Warnings here only mean: no GPU on this machine |
# | `loading: add_sub:1` | Triton found version 1 of the model in the repository |
# | `ModelInstanceInitialize` | one copy of the model is made; such a copy is called an **instance** |
# | `successfully loaded` | the model is READY |
# | first tables | the **backends**, the libraries that run models, and the models with their states |
# | last table | the options of the server, as it understood them |
# | `Started … at` | the three ports are open: now clients may come |

# %% [markdown]
# **What stands out?** Look for lines that begin with **W** or **E**. Without a GPU there are some, and
# everything works: read what a line says before you worry.

# %% [markdown] exercise="1.2"
# ### Exercise 1.2 (5 minutes) — Read the log like a shifter
#
# You are on shift, and the expert on the phone asks three things about this server. Answer from the log
# above: how many seconds lie between *loading* and *successfully loaded* `add_sub` for the first time, how
# many instances of it were made in that time, and which port the *metrics* service got.


# %% exercise="1.2" tags=["starter"]
def clock(words):  #:
    line = next(line for line in lines if words in line)  #:
    hours, minutes, seconds = line.split()[1].split(":")  #:
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)  #:


loading = log[: log.index("successfully loaded")]  #:
report = {
    "loading_s": clock("successfully loaded") - clock("loading: add_sub"),  #: "loading_s": ____,  # such as 0.7
    "instances": loading.count("ModelInstanceInitialize: add_sub"),  #: "instances": ____,
    "metrics_port": server.metrics.port,  #: "metrics_port": ____,
}

# %% exercise="1.2" tags=["check"]
exercise("1.2").check(server, report)
# exercise("1.2").hint(1)
# exercise("1.2").solution()

# %% [markdown] exercise="1.2" tags=["hints"]
# 1. The time stands behind the month and the day, as hours:minutes:seconds. Subtract the two times, to a tenth
#    of a second.
# 2. Count the lines with `ModelInstanceInitialize: add_sub`. The port is the number behind the last colon
#    of a `Started` line.

# %% [markdown] exercise="1.2" tags=["answer"]
# Most of the time goes into starting a Python process for the instance. One instance is what the model's
# configuration asks for. The ports stand in the last three lines of the start.

# %% [markdown]
# ## Choose the ports
#
# One base number gives all three: 9000 means HTTP on 9000, gRPC on 9001, metrics on 9002. On a shared
# machine somebody may sit there already. **What do you expect** from a second server with the same base
# number?

# %%
second = launch_server("models", load=["add_sub"], base_port=server.http.port, name="second")
print(second.http_url, second.grpc_url, second.metrics_url)
second.stop()

# %% [markdown]
# It took the next free three. A program should therefore never guess the port: it asks `server.http_url`.
# `stop()` ended the second server and did not touch the first.

# %% [markdown]
# ## Write the command for a GPU node
#
# What did `launch_server` really start? A dry run prints the command and starts nothing.

# %%
launch_server("models", load=["add_sub"], dry_run=True)

# %% [markdown]
# You know most of it now: the repository, the ports, and `127.0.0.1`, which means "only for programs on
# this machine". The options at the end ask for a key from anyone who wants to change models; only your
# `server` object has it.
#
# Why so careful? A Triton believes everyone who reaches it, and anyone who may load a model can run programs as
# you. This one, version 2.51.0 of 2024, also has known holes, so it answers your machine only. Where
# strangers share a machine, take the newer one in an image: `docs/safety.md` says which.
#
# On a node with a GPU, Triton runs inside a **container**, a packed file system with everything that it
# needs. Two programs start containers there: Apptainer and Docker.

# %%
launch_server("models", load=["add_sub"], runtime="apptainer", gpu=True, dry_run=True)

# %% [markdown]
# **What stands out?** Before the word `tritonserver`, `--nv` lets the GPU into the container, and `-B` shows
# the container your folder of models. After it stand the options that you know, without those for our own
# backends, and a new one, `--allow-client-shm`: the image's Triton 2.74.0 shares memory with its clients only with it.

# %% [markdown] exercise="1.3"
# ### Exercise 1.3 (3 minutes) — Find room for your ports
#
# A GPU node with Docker lets only the ports from 9300 to 9309 through to the network. Two colleagues have
# servers there, with the base ports 9300 and 9304. Choose the options of yours.

# %% exercise="1.3" tags=["starter"]
options = {"runtime": "docker", "base_port": 9307}  #: options = {"runtime": ____, "base_port": ____}

# %% exercise="1.3" tags=["check"]
exercise("1.3").check(options)
# exercise("1.3").hint(1)
# exercise("1.3").solution()

# %% [markdown] exercise="1.3" tags=["hints"]
# 1. The runtime is a word in quotes, as in the cell above.
# 2. Each server needs three ports in a row. Write down which ones the two colleagues have.

# %% [markdown] exercise="1.3" tags=["answer"]
# The colleagues have 9300 to 9302 and 9304 to 9306. Port 9303 is free, but alone. So HTTP gets 9307, gRPC
# 9308 and metrics 9309, the last one that is let through.

# %% [markdown]
# ## Stop, restart, and lose the counters
#
# A server that you own can be restarted. Everything that lived in its memory is gone afterwards. We send it
# five requests first.

# %%
name = "nv_inference_request_success"
with Client(server) as client:
    for _ in range(5):
        client.infer("add_sub", INPUT0=[1.0] * 16, INPUT1=[2.0] * 16)
print("pid", server.pid, "counted", scrape(server).value(name, model="add_sub"))

# %% [markdown]
# **What do you expect** from the counter after a restart?

# %%
server = server.restart()
print("pid", server.pid, "counted", scrape(server).value(name, model="add_sub"))

# %% [markdown]
# Another process, and the counter starts at 0. Tools that plot such counters must know this: a curve that
# falls means a restart.
#
# What about your notebook? *Interrupt kernel* does not touch the server. After *Restart kernel* it is still
# there, and `launch_server` finds it. When the kernel is shut down, the server waits some seconds and then
# stops, so that nothing stays behind on a shared node.

# %% [markdown] exercise="1.4"
# ### Exercise 1.4 (4 minutes) — Bring back a dead server
#
# Servers die: no memory left, a node rebooted, a colleague who typed `kill` with your pid. The next cell
# does the last one. Look at the card that it shows, then bring the server back.

# %%
dead_pid = server.pid
os.kill(dead_pid, signal.SIGKILL)
time.sleep(1)
server

# %% exercise="1.4" tags=["starter"]
revived = server.restart()  #: revived = ____
if revived and not callable(revived):  # otherwise it is no server yet, and the dead one is still needed
    server = revived

# %% exercise="1.4" tags=["check"]
exercise("1.4").check(revived, dead_pid)
# exercise("1.4").hint(1)
# exercise("1.4").solution()

# %% [markdown] exercise="1.4" tags=["hints"]
# 1. The card of the dead server says what to type.
# 2. `restart` returns the new server. Put it behind `revived =`.

# %% [markdown] exercise="1.4" tags=["answer"]
# `server.restart()` launches the same repository with the same options. `launch_server("models",
# load=["add_sub"])` works as well: the old server is gone, so it starts a new one.

# %% [markdown]
# ## Remember
#
# - A server is a process with a model repository and three ports: HTTP, gRPC, metrics.
# - *Live*, *ready* and *this model is ready* are three questions. Ask the one that you mean.
# - The log says why; the first letter of a line says how bad it is.
# - Nearly the same options start the server on a laptop and in a container on a GPU node.
# - A Triton that strangers can reach is a risk; yours listens to your machine only.
#
# **In practice…** nobody starts a hundred servers by hand. A job of CMS that finds no server can start one
# on its own node, and on a cluster a program called Kubernetes asks the health questions and restarts what
# does not answer.
#
# **Next:** [Inspect the model repository](02_inspect_the_model_repository.ipynb), where the models come
# from.
#
# The next cell stops your server. Run it when you are done.

# %%
server.stop()
server
