# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Find tracks: Exa.TrkX
#
# **What you'll do:** send the hits of a collision to a server, and get back the tracks of its particles.
#
# **What you'll learn:** chain models on one server · look at each stage · measure efficiency · find the
# slowest stage · decide whether a second instance helps.
#
# **What you'll need:** this machine. No GPU, no other notebook before this one.
#
# **Time:** 35 minutes: 17 for reading, 18 for exercises.

# %% [markdown]
# ## Know the task
#
# A charged particle flies through the detector and leaves a **hit** in each layer. We see only the hits,
# thousands at once. Which of them belong to the same particle? Each group of hits is a **track**.
#
# The Exa.TrkX collaboration answers this with a chain of five steps. Three of them are neural networks:

# %% [markdown]
# ![Hits go through five boxes inside the server: the embedding puts hits of a particle close together, the graph joins close hits, the filter removes hopeless edges, the GNN judges each edge by its neighbours, and the tracks follow good edges; out comes one label for each hit](images/exatrkx.png)

# %% [markdown]
# An **edge** is a line between two hits that may follow each other. **GNN** means graph neural network.
#
# In Triton, such a chain is called an **ensemble**. It is a model without code: its config says which model
# gets which tensor. The client sends one request and never sees what lies between.

# %%
import time

import numpy as np
from scipy import stats

from helpers import Client, launch_server, paths, plots, scrape, trace, tracks
from helpers.course import exercise  #: from helpers.course import ____, exercise

# %%
trace_file = f"--trace-config=triton,file={paths.log_dir()}/tracks_trace.json"
server = launch_server("models", load=["ExaTrk", "ExaTrk_bls"], extra_arguments=[trace_file])
server

# %% [markdown]
# We named two models, and the card shows seven: Triton loads the stages of an ensemble with it.
#
# ## Look at an event
#
# The course brings 20 simulated collisions with a pair of top quarks, and the truth about them.

# %%
events = tracks.load_events()
event = events[4]
event

# %%
plots.event_display(event)

# %% [markdown]
# Grey dots are hits. **What do you expect:** how many tracks could you draw by hand? We want particles with a
# transverse momentum $p_T$ above 0.5 GeV and at least 5 hits (*to be found* above).
#
# `ExaTrk` takes three numbers for each hit: $r$ in metres, $\phi/\pi$, $z$ in metres.

# %%
features = event.features
features[:3]

# %% [markdown]
# ## Call the stages by hand
#
# Each stage is a model of its own. The **embedding** gives each hit a place in a space of 8 dimensions. It
# was trained to put a particle's next hit close to the last one.

# %%
client = Client(server)
embedding = client.infer("ExaTrk_embedding", sp_features=features)["embedding_output"]
plots.embedding_display(event, embedding)

# %% [markdown]
# **What stands out?** Eight particles, each with its own marker. On the left, the next hit of a particle is
# far away. On the right, it is the neighbour, as on a string of pearls; here you see two of eight dimensions.
#
# Now join hits that are close in the embedding (**graph**), throw out edges that are surely wrong (**filter**),
# and let the **GNN** give each edge that is left a score from 0 to 1.

# %%
edges = client.infer("ExaTrk_graph", sp_features=features, embedding=embedding)["edge_index"]
kept = client.infer("ExaTrk_filter", sp_features=features, edge_index=edges)["kept_edges"]
scores = client.infer("ExaTrk_gnn", sp_features=features, edge_index=kept)
good = kept[:, scores["edge_score"] > 0.7]  # the cut of the last stage

# %%
plots.graph_display(event, {"After the graph": edges, "After the filter": kept, "GNN score > 0.7": good})

# %% [markdown]
# Solid lines are true edges: a hit of a particle and its next one. **What stands out?** Each step removes
# false edges (dotted) and keeps nearly all true ones. In numbers, *efficiency* is the part of the true edges
# that are there, *purity* the part of all edges that are true:

# %%
for name, graph in {"graph": edges, "filter": kept, "GNN": good}.items():
    seen = tracks.edge_quality(event, graph)
    shares = f"efficiency {seen['efficiency']:.3f}, purity {seen['purity']:.3f}"
    print(f"{name}: {seen['edges']} edges, {shares}")

# %% [markdown]
# The last stage walks from hit to hit along the best edges. It also joins pieces of a track where an edge is
# missing. The result is one **label** for each hit; hits without a track get -1.

# %%
by_hand = client.infer("ExaTrk_tracks", sp_features=features, edge_index=kept, **scores)["labels"]
by_hand[:12]

# %% [markdown]
# ## Send one request instead
#
# Five requests, and every tensor travelled to you and back. The ensemble keeps them inside the server:

# %%
labels = client.infer("ExaTrk", FEATURES=features)["LABELS"]
tracks.same_tracks(labels, by_hand)

# %%
plots.event_display(event, labels)

# %% [markdown]
# **What stands out?** Each track is drawn as it was found, from hit to hit. Dashed black lines with crosses are
# particles that were missed. Look closely: most of them were found in two pieces, and neither has more than
# half of the hits. A short piece of a particle that was found is a *second track*.
#
# There is a second way to chain models: **business logic scripting** (BLS), a Python model that calls the
# stages itself. It can decide: an event without edges needs no GNN. `ExaTrk_bls` gives the same tracks:

# %%
tracks.same_tracks(labels, client.infer("ExaTrk_bls", FEATURES=features)["LABELS"])

# %% [markdown]
# ## Measure how good it is
#
# A particle is **found** when more than half of its hits are in one track, and more than half of the track's
# hits are its own. A **fake** is a track without a particle, a **duplicate** a second track of the same one.

# %%
def find(events, at_once=2):
    requests = [{"FEATURES": event.features} for event in events]
    return [answer["LABELS"] for answer in client.infer_many("ExaTrk", requests, max_in_flight=at_once)]


plain = tracks.quality(events, find(events))
plain.table

# %% [markdown]
# The LHC collides many protons at once. The other collisions, **pile-up**, add hits. **What do you expect**
# from 15 of them?

# %%
crowded = tracks.load_events(pile_up=True)
piled = tracks.quality(crowded, find(crowded))
plots.efficiency_plot({"no pile-up": plain, "15 pile-up": piled}, "pt")

# %% [markdown]
# The bars are 68 % intervals. **What stands out?** Pile-up costs most at both ends. Slow particles scatter and
# curl up. Fast ones are rare, so the networks saw few of them in training, and they fly in narrow jets, where
# their hits lie close to those of others. Try `"eta"` in place of `"pt"`.

# %% [markdown]
# ## Move the cut
#
# The stage `ExaTrk_tracks` walks only along edges with a score above `cut`. **What do you expect** of efficiency
# and purity with a higher cut? This function loads the stage again with another cut; no other model is touched.
# (Joining broken pieces would hide half of the effect, so it is off here.)


# %%
def with_cut(cut):
    config = server.config("ExaTrk_tracks")
    config["parameters"]["cut"]["string_value"] = str(cut)
    config["parameters"]["mend_cut"]["string_value"] = "2"  # no score is above 2: nothing is joined
    server.reload("ExaTrk_tracks", config)
    return tracks.quality(events, find(events))


for cut in (0.05, 0.5, 0.9, 0.99):
    result = with_cut(cut)
    print(f"cut {cut}: efficiency {result.efficiency.value:.3f}, hit purity {result.purity.value:.4f}")

# %% [markdown] exercise="5.1"
# ### Exercise 5.1 (7 minutes) — Choose a cut
#
# Your analysis needs a hit purity of at least 0.995 **and** an efficiency of at least 0.98, and no cut above has both.
# Find one that has, as `chosen`, and keep what `with_cut` returns for it as `best`. At the end the server should have
# this cut.

# %% exercise="5.1" tags=["starter"]
chosen = 0.74  #: chosen = ____
best = with_cut(chosen)  #: best = ____

# %% exercise="5.1" tags=["check"]
exercise("5.1").check(server, chosen, best)
# exercise("5.1").hint(1)
# exercise("5.1").solution()

# %% [markdown] exercise="5.1" tags=["hints"]
# 1. `best = with_cut(chosen)`. `best.table` shows both numbers.
# 2. One cut above has enough efficiency, the next one enough purity. Try one between them, and halve the distance.

# %% [markdown] exercise="5.1" tags=["answer"]
# A higher cut keeps surer edges only: purity rises, and efficiency falls, since tracks lose hits or break. From
# about 0.73 to 0.76 both are good enough. When pieces are joined, most of the broken ones come back; compare with
# `plain` above. A physicist chooses the point; the server changes it in seconds, for all its clients at once.

# %% [markdown]
# ## See where the time goes
#
# A chain is as slow as the sum of its links. The server counts the time of each model; and it can write down when each
# stage began and ended, into the file that we named at the launch. **What do you expect:** which of the five is the slowest?

# %%
server.reload("ExaTrk_tracks")  # with its own cut again
before = scrape(server)
find(crowded, at_once=1)
times = tracks.stage_times(scrape(server) - before)
print(times.round(2))
plots.lives_figure(trace(server, lambda: find(crowded[:1])))

# %% [markdown] exercise="5.2"
# ### Exercise 5.2 (4 minutes) — Name the slowest stage
#
# The figure is one event, the table is the mean of all, in ms. Which stage takes the most time for an event with
# pile-up, and what part of the sum of all stages is that? The numbers are in `times`.

# %% exercise="5.2" tags=["starter"]
total = times.set_index("stage")["total_ms"]  #:
slowest = total.idxmax()  #: slowest = ____  # a name such as "ExaTrk_graph"
part = total[slowest] / total.sum()  #: part = ____  # from 0 to 1

# %% exercise="5.2" tags=["check"]
exercise("5.2").check(server, times, slowest, part)
# exercise("5.2").hint(1)
# exercise("5.2").solution()

# %% [markdown] exercise="5.2" tags=["hints"]
# 1. `total_ms` is the mean time of an event in the stage. Take the largest.
# 2. Divide it by the sum of the column `total_ms`.

# %% [markdown] exercise="5.2" tags=["answer"]
# With pile-up there are four times as many hits and many more edges, so stages that work on edges grow
# fastest. To make a chain faster, begin with the longest bar.

# %% [markdown]
# ## Send several events at once
#
# With several requests under way, the stages work on different events at the same time, like a production line. **What do
# you expect** to see of three events at once?

# %%
three = [{"FEATURES": event.features} for event in events[:3]]
lives = trace(server, lambda: client.infer_many("ExaTrk", three, max_in_flight=3), requests=3)
plots.lives_figure(lives)

# %% [markdown]
# **What stands out?** Read it from the top, event by event. Where a bar begins in white, the stage is still busy with another
# event. The line is as fast as its slowest stage.

# %% [markdown] exercise="5.3"
# ### Exercise 5.3 (7 minutes) — Give the slowest stage a second instance
#
# An **instance** is a copy of a model that runs beside the first. Load your `slowest` stage again with two
# instances: set `count` in its `instance_group`. The cell takes five rates before and five after, with pile-up, and Welch's
# *t*-test of their logarithms gives the 95 % interval of the gain. Then give your verdict: `"faster"` if the whole
# interval is above 1, `"slower"` if it is below, otherwise `"cannot tell"`.

# %% exercise="5.3" tags=["starter"]
def rates():
    ends, eight = [time.perf_counter()], (crowded * 2)[:8]
    for _ in range(6):
        find(eight, at_once=4)
        ends.append(time.perf_counter())
    return [len(eight) / seconds for seconds in np.diff(ends)[1:]]  # events/s; the first does not count


one = rates()
config = server.config(slowest)  #: config = ____
config["instance_group"][0]["count"] = 2  #:
server.reload(slowest, config)  #: ____
two = rates()
low, high = np.exp(stats.ttest_ind(np.log(two), np.log(one), equal_var=False).confidence_interval())
print(f"{np.mean(one):.1f} → {np.mean(two):.1f} events/s; gain {low:.2f} to {high:.2f}")
verdict = "faster" if low > 1 else "slower" if high < 1 else "cannot tell"  #: verdict = ____

# %% exercise="5.3" tags=["check"]
exercise("5.3").check(server, slowest, one, two, verdict)
# exercise("5.3").hint(1)
# exercise("5.3").solution()

# %% [markdown] exercise="5.3" tags=["hints"]
# 1. `config["instance_group"]` is a list of groups. The first one has a field `count`.
# 2. `server.reload(slowest, config)`, as in the function `with_cut`.

# %% [markdown] exercise="5.3" tags=["answer"]
# It helps only if a core is free. With four events at once, the stages already share your cores. On a laptop
# with two, the second instance has nothing to run on; on a node with sixteen, it takes work off the slowest
# stage. Without measuring, nobody knows.

# %% [markdown]
# ## Break it on purpose
#
# A server meets strangers. What happens when somebody sends millimetres?

# %% tags=["raises-exception"]
client.infer("ExaTrk", FEATURES=np.stack([event.r, event.phi, event.z], axis=1))

# %% [markdown]
# The graph stage looks at each event before it works on it. It names wrong units, values that are no numbers,
# hits that were sent twice and events that would not fit into memory. A wrong answer would be worse.
#
# ## Remember
#
# - An **ensemble** chains models by its config; **BLS** does it in Python. Tensors stay in the server.
# - Each stage is a model: call it, measure it, replace it, reload it.
# - Purity and efficiency pull in opposite directions. Choose with numbers.
# - The slowest stage sets the pace; a second instance needs a free core.
#
# **In practice…** this detector is simulated and simple. Exa.TrkX runs the same chain for the upgraded ATLAS
# and CMS trackers, with a hundred thousand hits an event, on GPUs.
#
# **Next:** [Read the metrics](06_read_the_metrics.ipynb), where the numbers behind the bars come from.
#
# The next cell stops your server. Run it when you are done.

# %%
client.close()
server.stop()
server
