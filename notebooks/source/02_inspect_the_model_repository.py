# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Inspect the model repository
#
# **What you'll do:** read the folder that a server loads its models from, and add a model of your own to
# it.
#
# **What you'll learn:** read a model repository · read a `config.pbtxt` · ask the server what it made of it
# · serve two versions · write and load a Python model.
#
# **What you'll need:** this machine. No GPU, no other notebook before this one.
#
# **Time:** 20 minutes: 7 for reading, 13 for exercises.

# %% [markdown]
# ## Make a copy of your own
#
# A **model repository** is a folder with one folder for each model. The course has one. You get a working
# copy, in which you may change everything: `checkout` makes it, and keeps your changes when you call it
# again.

# %%
import shutil

import requests

from helpers import Client, launch_server, plots, repository, tracks
from helpers.course import exercise  #: from helpers.course import ____, exercise

# %%
models = repository.checkout("add_sub")
server = launch_server(models, load=["add_sub"])
server

# %% [markdown]
# Look at the line *repository* of the card: this server reads your copy.

# %% [markdown]
# ## Read the folders

# %%
print(repository.tree(models))

# %% [markdown]
# Three levels, and each has a meaning:
#
# - `add_sub`: the folder's name is the model's name, the one that clients ask for.
# - `1`: the **version**, always a whole number. A new training of a network gets the next number.
# - `model.py`: the model itself. Here it is Python; a PyTorch network would be `model.pt`, an ONNX one
#   `model.onnx`.
#
# `config.pbtxt` describes what goes in and what comes out, for all versions.

# %%
print((models / "add_sub" / "config.pbtxt").read_text())

# %% [markdown]
# The format is called **protobuf text**: a name, a colon, a value; lists in `[ ]`, groups in `{ }`. This is
# all there is to say about `add_sub`:
#
# | Field | Meaning |
# |---|---|
# | `backend` | the library that runs the model: `python`, `pytorch`, `onnxruntime`, …; the networks of this course say the same with the older word `platform` |
# | `input`, `output` | one group for each **tensor**, that is, each array that goes in or comes out |
# | `data_type` | the kind of number: `TYPE_FP32` is a float of 32 bits, `np.float32` in NumPy |
# | `dims` | the shape of one tensor; `-1` would mean "any length" |
# | `instance_group` | how many copies of the model run, and where |

# %%
print((models / "add_sub" / "1" / "model.py").read_text())

# %% [markdown]
# A Python model is a class with a method `execute`. Triton calls it with a list of requests, and wants one
# response for each.

# %% [markdown]
# ## Ask the server the same
#
# A client on another machine cannot see your folder. It asks the server instead, for the **metadata**:

# %%
base = f"http://{server.http_url}/v2/models/add_sub"
requests.get(base).json()

# %% [markdown]
# That is enough to send a request. The whole configuration is there, too. **What do you expect:** more
# fields than in the file, fewer, or the same?

# %%
reported = requests.get(f"{base}/config").json()
repository.compare(models / "add_sub", models / "add_sub", reported)

# %% [markdown]
# **What stands out?** Compare *file*, which is yours, with *server reports*. The server has more: it filled in
# what the file leaves out. This is called **auto-complete**, and it explains many
# surprises.

# %% [markdown] exercise="2.1"
# ### Exercise 2.1 (3 minutes) — Find what nobody wrote
#
# Look into `reported`, or into the table. How many copies (instances) of `add_sub` run? Which file does the
# server open in the version folder? How many versions does it serve at once?

# %% exercise="2.1" tags=["starter"]
found = {
    "instances": reported["instance_group"][0]["count"],  #: "instances": ____,
    "file": reported["default_model_filename"],  #: "file": ____,
    "versions": reported["version_policy"]["latest"]["num_versions"],  #: "versions": ____,
}

# %% exercise="2.1" tags=["check"]
exercise("2.1").check(server, found)
# exercise("2.1").hint(1)
# exercise("2.1").solution()

# %% [markdown] exercise="2.1" tags=["hints"]
# 1. All three stand in the column *server reports* of the table, marked as filled in by the server.
# 2. They are called `instance_group[0].count`, `default_model_filename` and
#    `version_policy.latest.num_versions`.

# %% [markdown] exercise="2.1" tags=["answer"]
# One instance, the file `model.py`, and only the latest version. `reported` is a dictionary of dictionaries
# and lists, as JSON always is.

# %% [markdown]
# ## Add a version
#
# You trained your network again, and want the new one beside the old one: copy the folder, give it the next
# number, and load. So that you can tell them apart, your version 2 subtracts the other way round.

# %%
shutil.copytree(models / "add_sub" / "1", models / "add_sub" / "2", dirs_exist_ok=True)
new_model = models / "add_sub" / "2" / "model.py"
new_model.write_text(new_model.read_text().replace("left - right", "right - left"))
server.reload("add_sub")

# %% [markdown]
# **What do you expect** from a client that subtracts 2 from 5 now, and says no version?

# %%
client = Client(server)
five, two = [5.0] * 16, [2.0] * 16
print(requests.get(base).json()["versions"])
client.infer("add_sub", INPUT0=five, INPUT1=two)["OUTPUT1"][:3]

# %% [markdown]
# The server dropped version 1, without a restart and without a pause: *only the latest* was its rule, as
# you found out. Clients that ask for no version get the new one, and here that changes their results.

# %% [markdown] exercise="2.2"
# ### Exercise 2.2 (2 minutes) — Serve the old one, too
#
# An analysis wants to stay with version 1 until its paper is out. Write the line for `config.pbtxt` that
# makes the server serve **all** versions. The check loads `add_sub` with your line added to its file, and
# asks both versions.

# %% exercise="2.2" tags=["starter"]
line = "version_policy { all { } }"  #: line = ____  # text in quotes

# %% exercise="2.2" tags=["check"]
exercise("2.2").check(server, line)
# exercise("2.2").hint(1)
# exercise("2.2").solution()

# %% [markdown] exercise="2.2" tags=["hints"]
# 1. The field is `version_policy`. The server filled it in as `version_policy { latest { num_versions: 1 }
#    }`.
# 2. Its other choices are `all { }`, without a number, and `specific { versions: [ 1, 2 ] }`.

# %% [markdown] exercise="2.2" tags=["answer"]
# A version policy is `latest`, `all` or `specific`. With `all { }`, a version that you add later is served
# after the next load, too.

# %% [markdown]
# A client names the version that it wants. Over HTTP it stands in the address:
# `/v2/models/add_sub/versions/1/infer`.

# %%
for version in requests.get(base).json()["versions"]:
    print(version, client.infer("add_sub", INPUT0=five, INPUT1=two, version=version)["OUTPUT1"][:3])

# %% [markdown]
# ## Write a second model
#
# A model need not be a network. Many pipelines have steps before and after it, and these can live on the
# server as well. Yours will compute the **invariant mass** of two muons, for a whole batch of events in one
# request:
#
# $$m = \sqrt{2\,p_{T1}\,p_{T2}\,\bigl(\cosh(\eta_1 - \eta_2) - \cos(\varphi_1 - \varphi_2)\bigr)}$$

# %%
folder = models / "dimuon_mass"
(folder / "1").mkdir(parents=True, exist_ok=True)

# %% [markdown]
# First what goes in and out. `max_batch_size: 64` means: clients may put up to 64 events into one request.
# Each tensor then has one more dimension in front, the event, which `dims` does not mention. So `PT` has
# the shape (events, 2).

# %%
# %%writefile {folder}/config.pbtxt
# backend: "python"
# max_batch_size: 64
# input [
#   { name: "PT"   data_type: TYPE_FP32  dims: [ 2 ] },
#   { name: "ETA"  data_type: TYPE_FP32  dims: [ 2 ] },
#   { name: "PHI"  data_type: TYPE_FP32  dims: [ 2 ] }
# ]
# output [
#   { name: "MASS" data_type: TYPE_FP32  dims: [ 1 ] }
# ]

# %% [markdown] exercise="2.3"
# ### Exercise 2.3 (8 minutes) — Find two peaks with a model of your own
#
# First two blanks: the mass in `model.py`, and, in the cell after it, the call that loads the model. Then
# send 2,000 muon pairs to your model and look at their masses. One peak is the Z boson. Where is the other,
# in GeV? Which particle could that be?

# %% exercise="2.3" tags=["starter"]
# %%writefile {folder}/1/model.py
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            names = ("PT", "ETA", "PHI")
            pt, eta, phi = (pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in names)
            d_eta, d_phi = eta[:, 0] - eta[:, 1], phi[:, 0] - phi[:, 1]
            mass = np.sqrt(2 * pt[:, 0] * pt[:, 1] * (np.cosh(d_eta) - np.cos(d_phi)))  #: mass = ____
            output = pb_utils.Tensor("MASS", mass.reshape(-1, 1).astype(np.float32))
            responses.append(pb_utils.InferenceResponse([output]))
        return responses


# %% exercise="2.3" tags=["starter"]
server.load("dimuon_mass")  #: ____

# %% exercise="2.3" tags=["starter"]
masses = client.infer("dimuon_mass", tracks.muon_pairs())["MASS"].ravel()  #: masses = ____
other_peak = 9.5  #: other_peak = ____
with plots.drawing() as (figure, axes):
    axes.hist(list(masses), bins=range(121))
    axes.set(xlabel="Invariant mass of the pair (GeV)", ylabel="Pairs per GeV")
figure

# %% exercise="2.3" tags=["check"]
exercise("2.3").check(server, masses, other_peak)
# exercise("2.3").hint(1)
# exercise("2.3").solution()

# %% [markdown] exercise="2.3" tags=["hints"]
# 1. `pt[:, 0]` is the transverse momentum of the first muon in all events at once. `np.sqrt`, `np.cosh` and
#    `np.cos` work on whole arrays.
# 2. After each change of `model.py`, run its cell and load the model again. The call is
#    `server.load("dimuon_mass")`.
# 3. `mass = np.sqrt(2 * pt[:, 0] * pt[:, 1] * (... - ...))`, with `cosh` for the pseudorapidity and `cos`
#    for the angle.
# 4. `tracks.muon_pairs()` is a dictionary with `PT`, `ETA` and `PHI`: `client.infer("dimuon_mass", tracks.muon_pairs())`.
#    The answer is a dictionary, too; `["MASS"].ravel()` makes one list of masses of it. Run the cell once
#    with the last blank in it, and look at the figure.

# %% [markdown] exercise="2.3" tags=["answer"]
# The formula, written for arrays. Loading starts a new Python process with your class. If its code has a
# mistake, the server refuses the model, says why, and goes on serving the others. The second peak, at 9.5
# GeV, is the Υ: a b quark and its antiquark. Its discovery in 1977, in muon pairs, was that of the b quark.

# %%
server

# %% [markdown]
# ## Remember
#
# - A model repository has a folder for each model, in it `config.pbtxt` and a folder for each version.
# - The server fills in what the file leaves out. Ask the server, not the file.
# - Models and versions come and go while the server runs.
# - A Python model may do anything between tensors in and tensors out.
#
# **In practice…** loading a model means running its code, so not everybody may do it: your `server` object
# sends a secret key with each such call. Big experiments hand their repositories out read-only, so that
# every site serves the same versions.
#
# **Next:** [Run inference](03_run_inference.ipynb), the client's side.
#
# The next cell stops your server. Run it when you are done. Your copy in `work/models` stays.

# %%
client.close()
server.stop()
server
