# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Run inference
#
# **What you'll do:** send requests to a server in every way that it offers, and read the errors when they
# go wrong.
#
# **What you'll learn:** build a request by hand · choose how large inputs travel · keep many requests under way · read the errors ·
# see what a server is for.
#
# **What you'll need:** this machine. No GPU, no other notebook before this one.
#
# **Time:** 35 minutes: 14 for reading, 21 for exercises.

# %% [markdown]
# ## Prepare server and data
#
# Our data: 16 towers of a calorimeter, the detector part that measures energy. Each tower has an
# electromagnetic part (`ecal`) and a hadronic part (`hcal`), in GeV. `add_sub` adds them up.

# %%
import gzip
import io
import subprocess
import time
import timeit
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import requests
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
import tritonclient.utils.shared_memory as shm

from helpers import Client, launch_server, paths, scrape, taus
from helpers.course import exercise  #: from helpers.course import ____, exercise

# %%
server = launch_server("models", load=["add_sub", "particlenet_AK4", "deeptau_nosplit"])
generator = np.random.default_rng(seed=42)
ecal, hcal = (generator.exponential(mean, 16).astype(np.float32) for mean in (20, 10))
server

# %% [markdown]
# ## Send a request over gRPC
#
# `tritonclient` is NVIDIA's own client library. **gRPC** is a protocol that packs numbers as they are in
# memory, and the one that CMS uses. A request takes three steps: connect, fill the inputs, send. For each
# input you must give name, shape and data type.
#
# Where other people use the machine, too, your server answers only requests that carry its **secret**, in their
# headers. On a machine of your own there is none, and `server.headers` is empty.

# %%
by_grpc = grpcclient.InferenceServerClient(server.grpc_url)
first = grpcclient.InferInput("INPUT0", [16], "FP32").set_data_from_numpy(ecal)
second = grpcclient.InferInput("INPUT1", [16], "FP32").set_data_from_numpy(hcal)
inputs = [first, second]
answer = by_grpc.infer("add_sub", inputs, headers=server.headers)
np.array_equal(answer.as_numpy("OUTPUT0"), ecal + hcal)

# %% [markdown]
# Look: NumPy agrees with all 16 sums. Always check a server against something that you trust. "It answered" is
# not a check. A server sends all outputs, unless you ask for some: `outputs=[grpcclient.InferRequestedOutput("OUTPUT1")]`.
#
# ## Send the same over HTTP
#
# **HTTP** is what browsers speak. `tritonclient.http` has the same names and takes the same steps, and sends the numbers
# as bytes, too. But Triton also reads **JSON**, which is text, so any language that can send text can send a request:

# %%
body = {"inputs": [{"name": "INPUT0", "shape": [16], "datatype": "FP32", "data": ecal.tolist()}]}
body["inputs"].append({"name": "INPUT1", "shape": [16], "datatype": "FP32", "data": hcal.tolist()})
infer_url = f"http://{server.http_url}/v2/models/add_sub/infer"
requests.post(infer_url, json=body, headers=server.headers).json()["outputs"][1]["data"][:4]

# %% [markdown]
# ## Count on the server
#
# The course's `Client` asks the server for names, shapes and types, checks your arrays before anything is
# sent, and returns a dictionary. From now on it does the chores.
#
# Whatever a client claims, the server knows. Its metrics page is plain text; in a terminal you would type
# `curl localhost:9002/metrics`. Most of its numbers are **counters**, which only grow. To learn what *one*
# request did, read them before and after, and subtract.

# %%
client, before = Client(server), scrape(server)
client.infer("add_sub", INPUT0=ecal, INPUT1=hcal)
scrape(server) - before

# %% [markdown]
# **What stands out?** One request, one inference, one execution. `compute_infer` is the time in the model,
# in microseconds; `queue` is the time spent waiting for it. Notebook 06 takes this table apart.

# %% [markdown]
# ## Choose how large inputs travel
#
# Sixteen numbers travel fast, whichever way they go. `deeptau_nosplit` takes more. It looks at a tau lepton and all that
# lies around it, in grids of cells: 105,703 numbers, 423 kB. Most cells are empty, so most numbers are zero.
#
# These are five ways for ten taus. **Compressed** means that the client packs the request before it sends it, and that
# the server unpacks it. **Shared memory** is memory that client and server both use, where they are on one machine:
# the request only says where the numbers are. So you make a region of memory, copy the numbers into it, and register it with
# the server. That needs your key: whoever may register memory may read it.

# %%
ten, tau = taus.tensors(taus.read().take(range(10))), "deeptau_nosplit"
over_http = Client(server, "http")
sent = [grpcclient.InferInput(name, x.shape, "FP32").set_data_from_numpy(x) for name, x in ten.items()]
*starts, size = np.cumsum([0, *(x.nbytes for x in ten.values())]).tolist()
region, key = f"taus-{time.time_ns()}", server.admin_headers("grpc")
memory = shm.create_shared_memory_region(region, region, size)
shm.set_shared_memory_region(memory, list(ten.values()))
by_grpc.register_system_shared_memory(region, f"/{region}", size, headers=key)
told = [grpcclient.InferInput(name, x.shape, "FP32") for name, x in ten.items()]
for tensor, x, start in zip(told, ten.values(), starts):
    tensor.set_shared_memory(region, x.nbytes, start)

# %%
def as_json():
    data = [{"name": n, "shape": x.shape, "datatype": "FP32", "data": x.tolist()} for n, x in ten.items()]
    return requests.post(infer_url.replace("add_sub", tau), json={"inputs": data}, headers=server.headers)


send_by = {
    "JSON": as_json,
    "HTTP": lambda: over_http.infer(tau, ten),
    "gRPC": lambda: client.infer(tau, ten),
    "compressed": lambda: by_grpc.infer(tau, sent, headers=server.headers, compression_algorithm="gzip"),
    "shared memory": lambda: by_grpc.infer(tau, told, headers=server.headers),
}

# %% [markdown]
# **What do you expect?** First put the five names into your order, the fastest first. Then run the cell. It sends by
# each way in turn, seven times, and leaves out the first round. You see milliseconds, and megabytes that travel.

# %%
predicted = ["JSON", "HTTP", "gRPC", "compressed", "shared memory"]  # your order
rounds = [{way: timeit.timeit(send, number=1) for way, send in send_by.items()} for _ in range(7)]
seen = 1000 * pd.DataFrame(rounds[1:]).agg(["median", "min", "max"]).T
raw = b"".join(x.tobytes() for x in ten.values())
seen["MB"] = np.array([len(as_json().request.body), *2 * [len(raw)], len(gzip.compress(raw)), 0]) / 1e6
seen.round(2)

# %% [markdown]
# **What stands out?** Are the ways in the same order by time as by megabytes? JSON has hardly more bytes than the binary
# ways, because `0.0` is short. But a million numbers must be written as text, and read again. Compressed, the zeros
# nearly vanish, and packing them takes time. All five times include what the network computes. So the others may be hard
# to tell apart: look at *min* and *max*.

# %% [markdown] exercise="3.1"
# ### Exercise 3.1 (5 minutes) — Move to another machine
#
# Your client moves away, and a network of 1 Gbit/s lies in between: 125 MB each second. What would a request take in each
# way, if all else stayed the same? Add what its bytes need on the network to `seen["median"]`, in ms. And which way is the
# fastest there?

# %% exercise="3.1" tags=["starter"]
there_ms = seen["median"] + 1000 * seen["MB"] / 125  #: there_ms = ____
fastest = there_ms.drop("shared memory").idxmin()  #: fastest = ____  # its name

# %% exercise="3.1" tags=["check"]
exercise("3.1").check(seen, predicted, there_ms, fastest)
# exercise("3.1").hint(1)
# exercise("3.1").solution()

# %% [markdown] exercise="3.1" tags=["hints"]
# 1. `seen["MB"] / 125` are seconds. `seen["median"]` are milliseconds.
# 2. Columns of a table can be added: `seen["median"] + ...` has one number for each way.
# 3. Which of the five needs one and the same machine?

# %% [markdown] exercise="3.1" tags=["answer"]
# 4.2 MB take 34 ms on such a network. Whether packing pays depends on how fast it is, and on your numbers: these
# are mostly zeros. Jets hardly get smaller.

# %% [markdown]
# ## Keep many requests under way
#
# So far the client waits for each answer before it asks again, and meanwhile the server is idle. An **asynchronous** client
# sends on (`by_grpc.async_infer`). How many requests are under way at once is called the **concurrency**. The helper
# `infer_many` keeps it constant. **What do you expect** for 200 requests with a concurrency of 1 and of 8? Compare the two
# lines *Wall time*: with eight, the server finds the next request waiting. It still works on one at a time, since this model
# has one instance.

# %%
towers = [{"INPUT0": ecal * scale, "INPUT1": hcal * scale} for scale in range(200)]
# %time one_by_one = client.infer_many("add_sub", towers, max_in_flight=1)
# %time eight_at_once = client.infer_many("add_sub", towers, max_in_flight=8)

# %% [markdown] exercise="3.2"
# ### Exercise 3.2 (5 minutes) — Find a hot tower in the stream
#
# A hundred events, and one of them has the hottest tower. Send all of `stream` once, with a concurrency of
# 4, and find out which request has the largest sum in any tower. The check counts the requests that the
# server saw.

# %% exercise="3.2" tags=["starter"]
events = generator.exponential(20, (100, 16)).astype(np.float32)
stream = [{"INPUT0": energies, "INPUT1": hcal} for energies in events]
before = scrape(server)
answers = client.infer_many("add_sub", stream, max_in_flight=4)  #: answers = ____
hottest = np.argmax([answer["OUTPUT0"].max() for answer in answers])  #: hottest = ____  # index, 0 to 99

# %% exercise="3.2" tags=["check"]
exercise("3.2").check(server, before, stream, answers, hottest)
# exercise("3.2").hint(1)
# exercise("3.2").solution()

# %% [markdown] exercise="3.2" tags=["hints"]
# 1. `client.infer_many` returns one dictionary for each request, in the order of the requests, whatever
#    came back first.
# 2. `np.argmax([answer["OUTPUT0"].max() for answer in answers])` is the index of the largest.
# 3. Sent too often? Run the whole cell again: it reads `before` again, too.

# %% [markdown] exercise="3.2" tags=["answer"]
# The answers come back in the order of the requests, so the index of the largest answer is the index of the
# request.

# %% [markdown]
# ## Break it on purpose
#
# You will meet these errors sooner or later: three here, three in the exercise. Meet them now, while nothing
# depends on it. The first line makes error messages short.

# %% tags=["raises-exception"]
# %xmode Minimal
by_grpc.infer("particlenet", inputs, headers=server.headers)

# %% [markdown]
# **1. Unknown model.** The server has no such name. Look at the card for the right one, and mind small and
# capital letters.

# %% tags=["raises-exception"]
grpcclient.InferenceServerClient(server.http_url).infer("add_sub", inputs)

# %% [markdown]
# **2. Wrong door.** gRPC was spoken at the HTTP port. *Socket closed* or *connection refused* nearly always
# means port or host.

# %% tags=["raises-exception"]
by_grpc.load_model("add_sub")

# %% [markdown]
# **3. Locked door.** Loading models runs code, so it needs the owner's key. `server.load("add_sub")` sends
# it; a stranger cannot.

# %% [markdown] exercise="3.3"
# ### Exercise 3.3 (6 minutes) — Correct a request
#
# A colleague's request fails, and it has three faults. Write a correct one with the same numbers: all 16 of
# `ecal` and of `hcal`, as in `body` above. The check sends it to your server.

# %%
faulty = {"name": "INPUT_0", "shape": [1, 16], "datatype": "FP64", "data": ecal.tolist()}
broken = [faulty, body["inputs"][1]]
requests.post(infer_url, json={"inputs": broken}, headers=server.headers).json()["error"]

# %% exercise="3.3" tags=["starter"]
correct = {"name": "INPUT0", "shape": [16], "datatype": "FP32", "data": ecal.tolist()}  #: correct = ____
corrected = {"inputs": [correct, body["inputs"][1]]}

# %% exercise="3.3" tags=["check"]
exercise("3.3").check(server, corrected, ecal, hcal)
# exercise("3.3").hint(1)
# exercise("3.3").solution()

# %% [markdown] exercise="3.3" tags=["hints"]
# 1. Copy the dictionary `faulty`, and correct what the message says. Then send it again: a server reports one
#    fault at a time.
# 2. The three faults: the name, the shape, the datatype.

# %% [markdown] exercise="3.3" tags=["answer"]
# The name is `INPUT0`, the shape `[16]` without a batch dimension, and the datatype `FP32`. The server
# stops at the first fault, so it takes as many rounds as there are faults, unless you look at the
# metadata first.

# %% [markdown]
# ## Ask what a server is for
#
# A web server is twenty lines of Python. Why Triton, then? This one has a network behind it, the jet tagger of the next
# notebook. It runs as a process of its own, with ONNX Runtime, which runs the network in our Triton, too.
#
# Both get the same jet from the same client, as bytes over HTTP, in turn. **What do you expect** with one client, and
# with eight at once?

# %%
script = paths.root() / "notebooks" / "data" / "web_server.py"
network = server.repository / "particlenet_AK4" / "1" / "model.onnx"
print(script.read_text())
command, pipe = [paths.server_env() / "bin" / "python", script, network], subprocess.PIPE
web_server = subprocess.Popen(command, stdin=pipe, stdout=pipe)
port = int(web_server.stdout.readline())

# %%
jet, file = client.example("particlenet_AK4"), io.BytesIO()
np.savez(file, **jet)
tensors = [httpclient.InferInput(name, x.shape, "FP32").set_data_from_numpy(x) for name, x in jet.items()]
blob, size = httpclient.InferenceServerClient.generate_request_body(tensors)
headers = {**server.headers, "Inference-Header-Content-Length": str(size)}
ways = {
    "web": {"url": f"http://127.0.0.1:{port}", "data": file.getvalue()},
    "Triton": {"url": infer_url.replace("add_sub", "particlenet_AK4"), "data": blob, "headers": headers},
}


def per_second(way, clients, number=24):
    with requests.Session() as session, ThreadPoolExecutor(clients) as pool:
        begin = time.perf_counter()
        assert all(answer.ok for answer in pool.map(lambda _: session.post(**ways[way]), range(number)))
        return number / (time.perf_counter() - begin)


# %%
before = scrape(server)
turns = [{(way, n): per_second(way, n) for way in ways for n in (1, 8)} for _ in range(6)]
web_server.communicate()  # closes its input: it ends
pd.DataFrame(turns).round()  # jets/s, for each server and number of clients

# %% [markdown] exercise="3.4"
# ### Exercise 3.4 (5 minutes) — Judge both servers
#
# Divide Triton's rate by that of the web server, turn by turn. If nothing were behind it, all six would be above 1, or all
# below 1, only once in 32 times. So, with 8 clients: is Triton `"faster"` (all above 1), `"slower"` (all below), or is it
# `"cannot tell"`?

# %% exercise="3.4" tags=["starter"]
gains = [turn["Triton", 8] / turn["web", 8] for turn in turns]  #: gains = ____
judged = "faster" if min(gains) > 1 else "slower" if max(gains) < 1 else "cannot tell"  #: judged = ____

# %% exercise="3.4" tags=["check"]
exercise("3.4").check(server, before, turns, judged)
# exercise("3.4").hint(1)
# exercise("3.4").solution()

# %% [markdown] exercise="3.4" tags=["hints"]
# 1. `turns[0]["Triton", 8]` is the rate of the first turn, in jets per second.
# 2. `min(gains) > 1` is true if all are above 1.

# %% [markdown] exercise="3.4" tags=["answer"]
# It depends on the machine, and on what else it does. The web server has a thread for each client, and all of them run
# the network at once. Triton keeps requests in a queue, and puts those that wait into one batch.

# %% [markdown]
# **What stands out?** Compare what each server gains from one client to eight, not only who wins. On a GPU a batch costs little
# more than a jet, so there the queue decides. And speed is half of it. What would you have to write for a second model, a
# new version without a restart, gRPC, counters, a check of shapes, a batch?
#
# ## Remember
#
# - A request is: model, and for each input a name, a shape, a data type and the numbers.
# - gRPC and HTTP carry the same request. How large inputs travel matters: as text, packed, or not at all.
# - Concurrency hides waiting; shared memory hides copying. Both must be measured.
# - Errors say what was expected and what came. Read them to the end.
# - A server is more than a network behind a port: a queue, batches, versions, counters.
#
# **In practice…** in CMSSW, the reconstruction program of CMS, a SONIC producer sends asynchronous gRPC
# requests and works on other parts of the event while it waits.
#
# **Next:** [Tag jets](04_tag_jets_with_particlenet.ipynb), with a real network.
#
# The next cell stops your server. Run it when you are done.

# %%
shm.destroy_shared_memory_region(memory)
for connection in (by_grpc, over_http, client):
    connection.close()
server.stop()
server
