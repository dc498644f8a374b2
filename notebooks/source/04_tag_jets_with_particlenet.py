# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Tag jets with ParticleNet
#
# **What you'll do:** send real jets to a served neural network and find out how well it tells a Higgs boson
# from ordinary quarks and gluons.
#
# **What you'll learn:** turn jets into tensors · batch requests · draw ROC curves · compare two formats of
# one network · recognise a client that is fast but wrong.
#
# **What you'll need:** this machine. No GPU, no other notebook before this one.
#
# **Time:** 38 minutes: 12 for reading, 26 for exercises.

# %% [markdown]
# ## Meet the network
#
# A **jet** is the spray of particles that a quark or a gluon leaves in the detector. A fast Higgs boson
# that decays to two b quarks leaves one wide jet. To **tag** a jet is to say where it came from.
#
# **ParticleNet** takes a jet as a cloud of points: its particles, called **candidates**, and its
# **secondary vertices**, the places where b and c hadrons decayed.
#
# ![ParticleNet: a jet's points are linked to their nearest neighbours, three EdgeConv layers learn from them, a mean over all points leads to 20 probabilities](images/particlenet.png)

# %%
import time

import awkward as ak
import numpy as np
import pandas as pd
import tritonclient.grpc as grpcclient

from helpers import Client, jets, launch_server, plots, scrape
from helpers.course import exercise  #: from helpers.course import ____, exercise

# %%
server = launch_server("models", load=["particlenet_PT", "particlenet", "particlenet_AK4_PT"])
server

# %% [markdown]
# `particlenet_PT` and `particlenet` are one network in two file formats. Both have 20 classes and are for
# wide jets (AK8: radius 0.8). `particlenet_AK4_PT` has 8 classes and is for narrow ones (AK4: radius 0.4).
#
# ## Look at a jet
#
# Our 2,000 AK8 jets are simulated, with an idealised detector; the network never saw them. They come from a
# ROOT file with **jagged** branches: each jet has as many values as it has candidates.

# %%
sample = jets.read("ak8")
sample.pfcand_etarel

# %% [markdown]
# **What do you expect** to see in a Higgs jet that an ordinary one, called **QCD** jet, does not have? These
# two were chosen because they show it well; put other numbers into the slices and see how often it is so.

# %%
higgs, qcd = sample[jets.truth(sample, "Hbb")], sample[jets.truth(sample, "QCD")]
plots.show_jets(ak.concatenate([higgs[5:6], qcd[4:5]]))

# %% [markdown]
# **What stands out?** The larger a marker, the higher its transverse momentum. The Higgs jet has two cores,
# one for each b quark, and stars: at this momentum a b hadron flies about a centimetre before it decays.
#
# ## Make six tensors
#
# The model's metadata says what it takes. For `pf`, the candidates, and `sv`, the vertices: points (where),
# features (what), and a **mask**: 1 for a real one, 0 for **padding**, which fills short jets up.

# %%
for tensor in server.metadata("particlenet_PT")["inputs"]:
    print(tensor["name"], tensor["datatype"], tensor["shape"])

# %% [markdown]
# The first -1 is the batch, the last the number of candidates: you may choose both. Features are not sent
# raw. A table beside the model, `preprocess.json`, says for each one: subtract the median, scale, clip. The
# helper does it with NumPy, as CMSSW, the reconstruction program of CMS, does it in C++.

# %%
client = Client(server)
tagger = jets.Tagger(client, "particlenet_PT")
tensors = tagger.inputs(higgs[:1])
{name: tensor.shape for name, tensor in tensors.items()}

# %% [markdown]
# Now you have everything for a raw request over gRPC.

# %%
inputs = [grpcclient.InferInput(name, tensor.shape, "FP32") for name, tensor in tensors.items()]
for each, tensor in zip(inputs, tensors.values(), strict=True):
    each.set_data_from_numpy(tensor)
by_grpc = grpcclient.InferenceServerClient(server.grpc_url)
answer = by_grpc.infer("particlenet_PT", inputs, headers=server.headers)
answer.as_numpy("softmax__0").round(3)

# %% [markdown]
# Twenty probabilities. Which one is which? The table beside the model knows the labels. Each column is a Higgs jet.

# %%
pd.DataFrame(tagger.tag(higgs[:5]).probabilities, columns=tagger.labels).T.round(3)

# %% [markdown] exercise="4.1"
# ### Exercise 4.1 (3 minutes) — Weigh a request
#
# Fifty jets travel in one request, `fifty`, all padded to the longest of them. How many megabytes (10⁶ bytes)
# are the six tensors together? Which part of the places for candidates is padding, from 0 to 1?

# %% exercise="4.1" tags=["starter"]
fifty = tagger.inputs(higgs[:50])
megabytes = sum(tensor.nbytes for tensor in fifty.values()) / 1e6  #: megabytes = ____
padding = 1 - fifty["pf_mask__2"].mean()  #: padding = ____

# %% exercise="4.1" tags=["check"]
exercise("4.1").check(fifty, megabytes, padding)
# exercise("4.1").hint(1)
# exercise("4.1").solution()

# %% [markdown] exercise="4.1" tags=["hints"]
# 1. An array knows its size: `.nbytes`. `fifty.values()` are the six arrays.
# 2. The mask of the candidates is 1 where there is one. Its mean is the part that is filled.

# %% [markdown] exercise="4.1" tags=["answer"]
# Padding travels and is computed like everything else. So it pays to put jets of similar length together.

# %% [markdown]
# ## Tag them all
#
# `tagger.tag` sends 50 jets in a request, jets of similar length together. **What do you expect:** how many
# jets a second?

# %%
scores = tagger.tag(sample)
print(f"{np.mean(scores.best == ak.to_numpy(sample.jet_class)):.0%} right")
scores

# %% [markdown]
# Many of the 20 classes are close relatives. Is that much? Throwing a die would be right for 5 %, and always
# saying the most common class, `QCDothers`, for 19 % of these jets. Where do the wrong ones go? A **confusion
# matrix** says it. Here relatives are put together; each line adds up to 100 %. Look for the largest numbers off
# the diagonal. What do these jets have in common? (W and Z bosons have nearly the same mass, and both decay to two
# quarks.)

# %%
both = ak.to_numpy(sample.jet_class), scores.best
kinds = (pd.Series(names).str.extract("(H..|QCD|T|W|Z)")[0] for names in both)
confusion = 100 * pd.crosstab(*kinds, rownames=["truth"], colnames=["tagged as"], normalize="index")
confusion.round().astype(int)

# %% [markdown] exercise="4.2"
# ### Exercise 4.2 (4 minutes) — Put 100 jets into one request
#
# Get the probabilities of the first 100 jets of `sample` with a single request. The check looks at the
# server's counters.

# %% exercise="4.2" tags=["starter"]
before = scrape(server)
hundred = client.infer("particlenet_PT", tagger.inputs(sample[:100]))  #: hundred = ____

# %% exercise="4.2" tags=["check"]
exercise("4.2").check(server, before, hundred)
# exercise("4.2").hint(1)
# exercise("4.2").solution()

# %% [markdown] exercise="4.2" tags=["hints"]
# 1. `tagger.inputs(...)` makes the tensors of one request from as many jets as you give it.
# 2. `client.infer(model, tensors)` sends them. Or: `tagger.tag` has an argument `batch`.
# 3. Sent too often? Run the whole cell again: it reads `before` again, too.

# %% [markdown] exercise="4.2" tags=["answer"]
# 100 jets fit, because the model's `max_batch_size` is 160. Beyond that, `client.infer` would split them.

# %% [markdown]
# ## Draw ROC curves
#
# To find Higgs jets among QCD jets, all other classes do not matter. A **discriminant** compares two:
# P(Hbb) / (P(Hbb) + P(QCD)). Cut on it, and some signal passes (**efficiency**), and some background
# (**mistag rate**). All cuts together give the **ROC curve**. The area under it, **AUC**, is the chance
# that a signal jet scores higher than a background jet.

# %%
plots.roc_curves({name: scores.roc(name, sample) for name in scores.discriminants}, mistag=0.01)

# %% [markdown]
# **What stands out?** Read the mistag rate at 50 % efficiency. The steps at the bottom are single jets:
# there, the sample ends, not the network.

# %% [markdown] exercise="4.3"
# ### Exercise 4.3 (5 minutes) — Find the working point
#
# Find the `cut` that 1 % of the QCD jets pass, and the `efficiency`: the fraction of Higgs jets, between 0 and
# 1, at or above it.

# %% exercise="4.3" tags=["starter"]
discriminant = scores["hbb_vs_qcd"]
of_qcd, of_higgs = discriminant[jets.truth(sample, "QCD")], discriminant[jets.truth(sample, "Hbb")]
cut = np.quantile(of_qcd, 0.99)  #: cut = ____
efficiency = np.mean(of_higgs >= cut)  #: efficiency = ____

# %% exercise="4.3" tags=["check"]
exercise("4.3").check(scores, sample, cut, efficiency)
# exercise("4.3").hint(1)
# exercise("4.3").solution()

# %% [markdown] exercise="4.3" tags=["hints"]
# 1. 1 % above the cut means 99 % below it. `np.quantile(values, q)` is the value with a fraction q below.
# 2. The cut comes from the background, `of_qcd`; the efficiency from the signal, `of_higgs`.
# 3. `np.mean(of_higgs >= cut)` is a fraction.

# %% [markdown] exercise="4.3" tags=["answer"]
# The background sets the cut, the signal then says what it costs. Both come from samples of a limited size: the next exercise
# asks how sure they are.

# %% [markdown] exercise="4.4"
# ### Exercise 4.4 (4 minutes) — Say how sure that is
#
# Only a few QCD jets `passed` your cut. Another sample of this size would have a few more, or a few less. What
# is the statistical uncertainty of the mistag rate, as a fraction of the rate (`relative`)? How many QCD jets
# would you need, at the same cut, for 10 % (`needed`)?

# %% exercise="4.4" tags=["starter"]
passed = np.sum(of_qcd >= cut)
relative = 1 / np.sqrt(passed)  #: relative = ____
needed = 100 * len(of_qcd) / passed  #: needed = ____

# %% exercise="4.4" tags=["check"]
exercise("4.4").check(of_qcd, cut, relative, needed)
# exercise("4.4").hint(1)
# exercise("4.4").solution()

# %% [markdown] exercise="4.4" tags=["hints"]
# 1. Counts scatter as Poisson says: N jets have the uncertainty √N.
# 2. 10 % takes 100 jets above the cut. Which part of all QCD jets is above it?

# %% [markdown] exercise="4.4" tags=["answer"]
# With 8 or 9 jets left, the rate is known to a third of its value, however large the sample looks. The
# efficiency, from more than half of the Higgs jets, is known much better.

# %% [markdown]
# ## Change the engine
#
# `particlenet` holds the same weights in ONNX format, and another program runs it. **What do you expect:**
# the same numbers to the last digit?

# %%
onnx_tagger = jets.Tagger(client, "particlenet")
onnx_scores = onnx_tagger.tag(sample[:300])
apart = np.abs(scores[:300].probabilities - onnx_scores.probabilities).max(axis=1)
with plots.drawing() as (figure, axes):
    axes.hist(np.maximum(apart, 1e-9), np.geomspace(1e-9, 1, 91))
    axes.set(xscale="log", xlabel="Largest difference of a probability in the jet", ylabel="Jets")
figure

# %% [markdown]
# **What stands out?** Most are equal to about one part in a million: 32-bit numbers, added in another order.
# If a jet stands apart, two of its points were equally far away, and the two programs chose different
# neighbours. Speed is another matter: notebook 07 measures it, with its spread.
#
# ## Ask as CMS does
#
# CMSSW works event by event. It sends one request for each event; the batch is its jets, padded to the
# longest of them. In the metrics a *request* is a message, here an event; an *inference* is one jet; an
# *execution* is one run of the model, which may be for several requests that came together. **What do you
# expect** of the three for 200 jets?

# %%
before = scrape(server)
by_event = tagger.tag(sample[:200], per_event=True)
scrape(server) - before

# %% [markdown] exercise="4.5"
# ### Exercise 4.5 (5 minutes) — Swap the model
#
# The narrow jets need the other model, `particlenet_AK4_PT`. Tag all of them, and make the ROC curve of
# `b_vs_light`. Every line that you need is above.

# %% exercise="4.5" tags=["starter"]
narrow = jets.read("ak4")
ak4_scores = jets.Tagger(client, "particlenet_AK4_PT").tag(narrow)  #: ak4_scores = ____
b_roc = ak4_scores.roc("b_vs_light", narrow)  #: b_roc = ____

# %% exercise="4.5" tags=["check"]
exercise("4.5").check(server, narrow, ak4_scores, b_roc)
# exercise("4.5").hint(1)
# exercise("4.5").solution()

# %% [markdown] exercise="4.5" tags=["hints"]
# 1. Make a new tagger: `jets.Tagger(client, "...")`. It brings the table of its own model.
# 2. `scores.roc("hbb_vs_qcd", sample)` made a curve for the wide jets.

# %% [markdown] exercise="4.5" tags=["answer"]
# Another model, another table, other labels, and not one line of the client changed. Try
# `plots.roc_curves({name: ak4_scores.roc(name, narrow) for name in ak4_scores.discriminants})`: c jets are the hard
# ones.

# %% [markdown]
# ## Find what is fast but wrong
#
# Colleagues want more jets per second. They send the same 100 jets to `particlenet`, and change the client:
#
# - `by length`: jets of similar length share a request, so that there is less padding;
# - `put back`: the same, and the answers return to the order of the jets;
# - `ones`: each mask is 1 everywhere, so none has to be made;
# - `random`: masks of random numbers. A well-known demonstration did so, saw an answer, and called it a success.
#
# **What do you expect:** which of them keep the physics?

# %%
few = sample[jets.truth(sample, "Hbb", "QCD")][:100]
order = np.argsort(ak.num(few.pfcand_etarel))
generator = np.random.default_rng(seed=4)


def ask(jets_in_order, mask=None):
    answers = []
    for start in range(0, len(few), 25):
        tensors = onnx_tagger.inputs(jets_in_order[start : start + 25])
        if mask:
            names = [name for name in tensors if "mask" in name]
            tensors |= {name: mask(tensors[name].shape).astype(np.float32) for name in names}
        answers.append(client.infer("particlenet", tensors)["softmax"])
    return np.concatenate(answers)


clients = {
    "careful": lambda: ask(few),
    "by length": lambda: ask(few[order]),
    "put back": lambda: ask(few[order])[np.argsort(order)],
    "ones": lambda: ask(few, np.ones),
    "random": lambda: ask(few, lambda shape: generator.normal(size=shape)),
}

# %%
tried = {}
for name, send in clients.items():
    begin = time.perf_counter()
    tried[name] = onnx_tagger.scores({"softmax": send()})
    sums = tried[name].probabilities.sum(axis=1)
    print(f"{name}: {time.perf_counter() - begin:.2f} s, all sums 1: {np.allclose(sums, 1)}")
plots.roc_curves({name: each.roc("hbb_vs_qcd", few) for name, each in tried.items()})

# %% [markdown] exercise="4.6"
# ### Exercise 4.6 (5 minutes) — Unmask the wrong clients
#
# **What stands out?** No error, no warning, and probabilities that sum to 1. Jets whose truth you know show more, and a curve
# does not show everything.
#
# For each client: which part of the 100 jets has the careful client's discriminant `hbb_vs_qcd`, to 0.001? A network that
# adds in another order moves one jet in a hundred at most. Name the clients that are wrong.

# %% exercise="4.6" tags=["starter"]
careful = tried["careful"]["hbb_vs_qcd"]
same = {name: np.mean(np.abs(each["hbb_vs_qcd"] - careful) < 0.001) for name, each in tried.items()}  #: same = {name: ____ for name, each in tried.items()}
wrong = ["by length", "ones", "random"]  #: wrong = ____  # a list of names
print({name: f"{part:.0%}" for name, part in same.items()})

# %% exercise="4.6" tags=["check"]
exercise("4.6").check(server, few, tried, same, wrong)
# exercise("4.6").hint(1)
# exercise("4.6").solution()

# %% [markdown] exercise="4.6" tags=["hints"]
# 1. `each["hbb_vs_qcd"]` are the discriminants of one client, in its order.
# 2. `np.mean(np.abs(each["hbb_vs_qcd"] - careful) < 0.001)` is a part from 0 to 1.
# 3. A curve that looks right is no proof: look at `same`.

# %% [markdown] exercise="4.6" tags=["answer"]
# `by length` gives each jet the score of another one: a histogram of its scores would be perfect. `ones` makes candidates
# out of the padding, and the curve hardly shows it. `put back` is what `tagger.tag` does: less padding, and right.

# %% [markdown]
# ## Remember
#
# - A jet goes to the server as points, features and masks, prepared as the model's table says.
# - One request can carry many jets; the server counts both.
# - The same weights in another format give the same physics.
# - An answer is no proof. Compare with a careful client, jet by jet, before you enjoy the speed.
#
# **In practice…** our detector is idealised, so these curves are better than those of an experiment. Names,
# shapes and tables are those of CMS: put one of its models with its `preprocess.json` into `models/`, and
# this notebook tags with it.
#
# **Next:** [Find tracks](05_find_tracks_with_exatrkx.ipynb), where one request runs through several models.
#
# The next cell stops your server. Run it when you are done.

# %%
for connection in (by_grpc, client):
    connection.close()
server.stop()
server
