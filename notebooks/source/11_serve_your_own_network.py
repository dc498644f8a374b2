# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Serve a network of your own
#
# **What you'll do:** take a network from PyTorch to a model that is served, measured and documented.
#
# **What you'll learn:** export a network · write its config · prove that the server computes the same · size it
# within a budget · hand in a model card.
#
# **What you'll need:** this machine. No GPU, no other notebook before this one.
#
# **Time:** 45 minutes: 15 for reading, 30 for exercises.

# %% [markdown]
# ## Choose a network
#
# The first time, take ours: a small **transformer** that tags narrow jets. It has 47,000 parameters, ParticleNet
# 232,000. Experiments have moved to such networks, larger ones. The second time, put the complete path of **your own**
# ONNX file into `OWN`, and give your model a name.

# %%
import hashlib
import shutil
import subprocess

import numpy as np
from IPython.display import Markdown

from helpers import Client, Experiments, input_files, jets, launch_server, paths, precision, repository
from helpers.course import exercise  #: from helpers.course import ____, exercise

# %%
OWN, MODEL = "", "jet_transformer"
folder = repository.checkout("particlenet_AK4", fresh=True) / MODEL
(folder / "1").mkdir(parents=True, exist_ok=True)
ONE = "instance_group { count: 1 kind: KIND_CPU }"
repository.change_config("particlenet_AK4", ONE, dynamic_batching=None)
server = launch_server("work/models", load=["particlenet_AK4"])
server

# %% [markdown]
# (ParticleNet is there to be compared with, as one instance.) The network is one class in PyTorch. We put it into the
# model's folder, with its trained weights: who finds the model later can make it again. A server ignores files that it
# does not know.

# %%
ours = paths.root() / "notebooks" / "data" / "jet_transformer"
shutil.copytree(ours, folder, dirs_exist_ok=True)
print((ours / "jet_transformer.py").read_text().partition("\n\n\n")[2])

# %% [markdown]
# ## See why weights are not enough
#
# `jet_transformer.pt` holds the weights, as `torch.save` writes them. **What do you expect** when a server gets this
# file as its model?

# %% tags=["raises-exception"]
shutil.copy(ours / "jet_transformer.pt", folder / "1" / "model.onnx")
server.reload(MODEL, config='backend: "onnxruntime"')

# %% [markdown]
# **What stands out?** Weights are numbers. What to do with them is in the class, and a server has neither your class nor
# your Python. So one **exports** the network, as a list of operations in a file of its own:
#
# - **TorchScript**, as `particlenet_PT` in notebook 04, reads your Python code. It never understood all of Python, and
#   PyTorch has declared it outdated.
# - `torch.export` takes its place: it runs the network once and notes each operation. Sizes that vary become symbols.
# - What it noted is written as **ONNX**, which many programs run, on any processor; that is the portable way. (PyTorch can
#   also compile it, to machine code for one kind of processor and one PyTorch. Tritons from 26.03 on serve that, ours does not.)
#
# The export runs on real inputs, here 64 jets. ParticleNet takes six tensors, and ours the four that are no points. (For
# your own network, put 64 of its inputs into `inputs`, by their names.)

# %%
client, sample = Client(server), jets.read("ak4")
six = jets.Tagger(client, "particlenet_AK4").inputs(sample[:64], candidates=50, vertices=4)
inputs = {name: tensor for name, tensor in six.items() if "points" not in name}
np.savez(folder / "inputs.npz", **inputs)
{name: tensor.shape for name, tensor in inputs.items()}

# %% [markdown] exercise="11.1"
# ### Exercise 11.1 (6 minutes) — Export a network whose sizes vary
#
# If you say nothing, all sizes stay for ever what they were in the example. Say which axes of the vertices' tensors
# vary, as the line above does for the candidates. The second cell runs your script, half a minute, and the third one lets
# the server look at the file. (With a file of your own, run them as they are: the script fails, and your file takes the
# place of what it should have written.)

# %% exercise="11.1" tags=["starter"]
# %%writefile {folder}/export.py
import numpy as np
import torch
from jet_transformer import JetTransformer

network = JetTransformer().eval()
network.load_state_dict(torch.load("jet_transformer.pt", weights_only=True))
example = {name: torch.from_numpy(tensor) for name, tensor in np.load("inputs.npz").items()}
np.savez("local.npz", softmax=network(**example).detach())

pf_axes = {0: "jets", 2: "candidates"}
sv_axes = {0: "jets", 2: "vertices"}  #: sv_axes = ____
axes = {"pf_features": pf_axes, "pf_mask": pf_axes, "sv_features": sv_axes, "sv_mask": sv_axes}
options = {"dynamic_shapes": axes, "output_names": ["softmax"], "external_data": False}
torch.onnx.export(network, kwargs=example, f="1/model.onnx", **options)

# %%
python = paths.server_env() / "bin" / "python"
done = subprocess.run([python, "export.py"], cwd=folder, capture_output=True, text=True)
print(done.stdout, done.stderr[-300:] if done.returncode else "")

# %%
if OWN or done.returncode:
    shutil.copy(OWN or ours / "exported.onnx", folder / "1" / "model.onnx")
server.reload(MODEL, config='backend: "onnxruntime"')
server.metadata(MODEL)

# %% exercise="11.1" tags=["check"]
exercise("11.1").check(server, MODEL, done, (folder / "export.py").read_text())
# exercise("11.1").hint(1)
# exercise("11.1").solution()

# %% [markdown] exercise="11.1" tags=["hints"]
# 1. `pf_axes` is a dictionary: number of the axis → its name. The tensors of vertices are jets × features × vertices.
# 2. Both have the axis of `jets`, and the same name for it. Only the last one is called otherwise.

# %% [markdown] exercise="11.1" tags=["answer"]
# The batch and the last axis vary, the features do not. An axis that was left out is fixed at the size of the example;
# each request must then have 64 jets or 4 vertices.

# %% [markdown]
# If your script said `No module named 'torch'`, your server was installed without PyTorch. Then, and whenever the script
# fails, the last cell takes our own export, so that you can go on. `make setup TORCH=yes` brings PyTorch.
#
# ## Write the config
#
# The server read names, types and shapes from the file, and guessed the rest. It cannot know how many jets you
# will send: without a word from you, 4 at most in one request.

# %% [markdown] exercise="11.2"
# ### Exercise 11.2 (6 minutes) — Write the config by hand
#
# Complete `config.pbtxt`: up to 64 jets in a request, and the input that is missing. `dims` leaves the axis of jets out.
# Replace the blank in the second cell by the call that loads the model with it. (For your own network, write its own
# inputs and outputs; `server.metadata(MODEL)` shows them.)

# %% exercise="11.2" tags=["starter"]
# %%writefile {folder}/config.pbtxt
# backend: "onnxruntime"
# max_batch_size: 64  #: max_batch_size: ____
# input [
#   { name: "pf_features"  data_type: TYPE_FP32  dims: [ 20, -1 ] },
#   { name: "pf_mask"      data_type: TYPE_FP32  dims: [ 1, -1 ] },
#   { name: "sv_features"  data_type: TYPE_FP32  dims: [ 11, -1 ] },
#   { name: "sv_mask"      data_type: TYPE_FP32  dims: [ 1, -1 ] }  #: ____
# ]
# output [
#   { name: "softmax"      data_type: TYPE_FP32  dims: [ 8 ] }
# ]
# instance_group [ { count: 1 kind: KIND_CPU } ]

# %% exercise="11.2" tags=["starter"]
server.reload(MODEL)  #: ____

# %% exercise="11.2" tags=["check"]
exercise("11.2").check(server, MODEL, (folder / "config.pbtxt").read_text())
# exercise("11.2").hint(1)
# exercise("11.2").solution()

# %% [markdown] exercise="11.2" tags=["hints"]
# 1. The missing input is `sv_mask`: one row for each jet, and as many columns as there are vertices.
# 2. `server.reload(MODEL)` takes what is in the folder. What it says when it refuses tells what to write.

# %% [markdown] exercise="11.2" tags=["answer"]
# -1 stands for any size. What you leave out, this server fills in from an ONNX file; `max_batch_size` is yours to say.

# %% [markdown]
# ## Prove that the server computes the same
#
# The script wrote the answers of PyTorch into `local.npz`. Where it did not run, ONNX's own reference program computes
# them here, which is plain NumPy. **What do you expect:** the same numbers?

# %%
LOCAL = """import numpy as np, onnx.reference
network = onnx.reference.ReferenceEvaluator("1/model.onnx")
answers = network.run(None, dict(np.load("inputs.npz")))
np.savez("local.npz", **dict(zip(network.output_names, answers)))"""
if OWN or not (folder / "local.npz").exists():
    subprocess.run([python, "-c", LOCAL], cwd=folder, check=True)
local, served = dict(np.load(folder / "local.npz")), client.infer(MODEL, inputs)
difference = max(np.abs(served[name] - local[name]).max() / np.abs(local[name]).max() for name in local)
print(f"largest difference: {difference:.1e} of the largest output")

# %% [markdown]
# **What stands out?** Small, and not zero. A 32-bit number keeps 24 binary digits, so each addition rounds by up to
# 2⁻²⁴ of its result. Two programs that add in another order round otherwise. How large may that get?

# %% [markdown] exercise="11.3"
# ### Exercise 11.3 (5 minutes) — Derive the tolerance
#
# If all errors go the same way, they add up: (additions one behind another) × 2⁻²⁴. Count roughly, with the class
# above: each of the two layers adds about 450 numbers one behind another (48 for each of its linear maps and norms, 54
# over all points), and there are 300 more before and behind. What is the `tolerance`?

# %% exercise="11.3" tags=["starter"]
tolerance = (2 * 450 + 300) * 2**-24  #: tolerance = ____
print(f"{difference:.1e} seen, {tolerance:.1e} allowed")

# %% exercise="11.3" tags=["check"]
exercise("11.3").check(server, MODEL, inputs, local, tolerance)
# exercise("11.3").hint(1)
# exercise("11.3").solution()

# %% [markdown] exercise="11.3" tags=["hints"]
# 1. 2⁻²⁴ is `2**-24` in Python, about 6 in 100 million.
# 2. Add the additions of both layers and the 300, and multiply.

# %% [markdown] exercise="11.3" tags=["answer"]
# About 7·10⁻⁵. Errors go both ways, so one mostly sees the square root of the count, 35, and less. A tolerance of 10⁻³
# would be too wide: a network that computes with 16 bits, each rounded by 5·10⁻⁴, would pass.

# %% [markdown]
# ## Ask whether the physics is good enough
#
# ParticleNet has five times the parameters, and its neighbours. **What do you expect** of the areas under the ROC curves?

# %%
physics = [] if OWN else precision.cost(server, [MODEL], "particlenet_AK4", sample[256:2256])
physics

# %% [markdown]
# **What stands out?** The change has its 95 % interval, for the same jets. Our transformer saw few jets in training, and
# is small. Whether what it loses is worth what it gains is for an analysis to say. First: what does it gain?
#
# ## Find the batch size
#
# Four requests are under way at any time. The **budget**: 95 of 100 requests shall be answered within six times what
# requests of one jet take.

# %%
file = input_files.write(folder / "jets.json", inputs)
table = Experiments(server, MODEL, concurrency=4, budget=6, input_data=file)
for batch in [size for size in (1, 4, 16, 64) if size <= server.config(MODEL)["max_batch_size"]]:
    table.measure(f"batch {batch}", batch=batch)
table

# %% [markdown] exercise="11.4"
# ### Exercise 11.4 (4 minutes) — Choose the batch size
#
# Which row has the highest throughput with a 95th percentile inside `table.budget_ms`? Give its name.

# %% exercise="11.4" tags=["starter"]
inside = [row for row in table.rows if row["latency_p95_us"] / 1000 <= table.budget_ms]  #:
best = max(inside, key=lambda row: row["throughput_infer_per_s"])["experiment"]  #: best = ____

# %% exercise="11.4" tags=["check"]
exercise("11.4").check(table, best)
# exercise("11.4").hint(1)
# exercise("11.4").solution()

# %% [markdown] exercise="11.4" tags=["hints"]
# 1. The budget stands above the table. `table.rows` are the rows, as dictionaries; `latency_p95_us` is in µs.
# 2. The column *p95 (ms)* has an interval. If it reaches over the budget, choose a row that is clearly inside.

# %% [markdown] exercise="11.4" tags=["answer"]
# More jets in a request share what each request costs, until the time of the jets themselves fills the budget.

# %% [markdown]
# And ParticleNet, in turn with your rows of the same batch size?

# %%
file = input_files.write(folder / "six.json", six)
for row in [] if OWN else table.rows[:3:2]:
    name, batch = f"ParticleNet, {row['experiment']}", row["batch"]
    table.measure(name, model="particlenet_AK4", batch=batch, over=row["experiment"], input_data=file)
table

# %% [markdown]
# ## Choose the number of instances
#
# Would a second instance help? The server gets the other setting in the call that loads the model; the file stays.

# %%
server.load(MODEL, config={**server.config(MODEL), "instance_group": [{"count": 2, "kind": "KIND_CPU"}]})
table.measure("2 instances", batch=4, over="batch 4")

# %% [markdown] exercise="11.5"
# ### Exercise 11.5 (5 minutes) — Keep what the verdict supports
#
# Two instances, if they are faster for certain and inside the budget; else one, which needs half the memory. Say the
# `count`, write it into `config.pbtxt`, and reload.

# %% exercise="11.5" tags=["starter"]
two = table["2 instances"]  #:
faster = table.judged("2 instances").answer == "faster"  #:
good = faster and two["latency_p95_us"] / 1000 <= table.budget_ms  #:
count = 2 if good else 1  #: count = ____
repository.change_config(MODEL, f"instance_group {{ count: {count} kind: KIND_CPU }}")  #:
server.reload(MODEL)  #:

# %% exercise="11.5" tags=["check"]
exercise("11.5").check(server, MODEL, table, count)
# exercise("11.5").hint(1)
# exercise("11.5").solution()

# %% [markdown] exercise="11.5" tags=["hints"]
# 1. The last row's *verdict* says it: `table.judged("2 instances")`.
# 2. Write the number into the cell of `config.pbtxt` above and run it, or use `repository.change_config(MODEL, "…")`; then
#    `server.reload(MODEL)`.

# %% [markdown] exercise="11.5" tags=["answer"]
# One instance already uses all cores by its threads, so a second one gains where a single request leaves some idle. If the
# verdict cannot tell, take the simpler one.

# %% [markdown]
# ## Hand in a model card
#
# A number without its machine, date and load is worth little, and a network without its limits is dangerous. A **model
# card** has all of it on one page: the exact file, by its SHA-256, the config, and your measurements.

# %% [markdown] exercise="11.6"
# ### Exercise 11.6 (4 minutes) — Say what it is for, and what it is not for
#
# One sentence each, for a colleague who finds the model in a year. What was it trained on, and where does that end?

# %% exercise="11.6" tags=["starter"]
purpose = "Tags the flavour of simulated AK4 jets, where ParticleNet is too slow."  #: purpose = ____
limits = "Not for data: trained without pile-up, and never calibrated."  #: limits = ____
file = folder / "1" / server.config(MODEL)["default_model_filename"]
digest, row = hashlib.sha256(file.read_bytes()).hexdigest(), table.rows[0]
card = f"""# Model card: {MODEL}

**Purpose.** {purpose} **Limits.** {limits} Differs by {difference:.1e}, {tolerance:.1e} is allowed.

SHA-256 of the file: `{digest}`. Measured on {row["device"]}, {row["time"]}.

```
{(folder / "config.pbtxt").read_text()}
{table!r}

{physics!r}
```"""
(folder / "MODEL_CARD.md").write_text(card)
Markdown(card)

# %% exercise="11.6" tags=["check"]
exercise("11.6").check(server, MODEL, purpose, limits)
# exercise("11.6").hint(1)
# exercise("11.6").solution()

# %% [markdown] exercise="11.6" tags=["hints"]
# 1. Jets of which kind, of which momentum, from which simulation? The README of `training/jets` says what was left out.
# 2. If you changed the model since, make the card again: it says what the server had then.

# %% [markdown] exercise="11.6" tags=["answer"]
# The card lies in the model's folder, as `MODEL_CARD.md`, beside weights, class and script: that folder is what you hand in.

# %% [markdown]
# ## Now yours
#
# Set `OWN` and `MODEL` in the second cell, and start again. Whatever the file has, the server goes on, and says what was
# found and what to type: no ONNX file, an opset newer than its ONNX Runtime, weights in a second file, a first axis
# that is fixed, an input without a name, a config that does not fit. No file at hand? ONNX Runtime brings one,
# `.server/lib/python3.*/site-packages/onnxruntime/datasets/sigmoid.onnx`, whose first axis is fixed. The server's
# message says so, and `onnx.tools.update_model_dims` opens it.
#
# ## Remember
#
# - A server needs the network's operations in a file. Axes that vary must be said at the export.
# - `max_batch_size` is yours to say, and the counters and the verdict tell what is worth it.
# - Agreement needs a tolerance that you can derive: wide enough for rounding, too narrow for a mistake.
# - Physics, speed, machine, date and limits belong on one page.
#
# **In practice…** experiments keep such a folder in a release of its own, and compare each new version with the last on
# the same events. `model_warmup` in `particlenet_AK4` shows how a model gets warm before it is READY. A GPU wants larger
# batches, and instances of `KIND_GPU`.
#
# **Next:** your analysis. The folder in `work/models` runs on any Triton server; [Scale out](10_scale_out.ipynb) shows how
# many you need.

# %% [markdown]
# The next cell stops your server. Run it when you are done.

# %%
client.close()
server.stop()
server
