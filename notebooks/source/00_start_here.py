# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Start here
#
# **What you'll do:** launch a real Triton Inference Server and send it your first request.
#
# **What you'll learn:** check a machine · launch a server · send a request · let a notebook check your
# answer · choose your way through the course.
#
# **What you'll need:** this machine, nothing else. No GPU. The course was installed by `make lab`.
#
# **Time:** 10 minutes: 7 for reading, 3 for exercises.

# %% [markdown]
# ## Know why we serve models
#
# A particle detector takes millions of pictures each second, and more and more of them are read by neural
# networks. A network runs best on a GPU (a graphics processor). Most of the computers that reconstruct
# collisions have none.
#
# So CMS tried something that web companies do: put the model behind a **server**. The program that needs an
# answer, the **client**, sends its numbers over the network and gets the answer back. That question is
# called an **inference request**. One GPU then works for many clients, and the clients stay simple. In CMS
# this is called **SONIC**. The server that CMS uses is NVIDIA's **Triton**, and you will run the same one.
# (NVIDIA's newer pages also say *Dynamo-Triton*. It is the same server.)

# %% [markdown]
# ![Clients on the left, such as this notebook or reconstruction jobs, send requests to a Triton server in the middle, which loads its models from a model repository on the right](images/service.png)

# %% [markdown]
# ## Check this machine
#
# Click on a cell and press **Shift + Enter** to run it. This first one looks at your machine.

# %%
from helpers import doctor

doctor.report()

# %% [markdown]
# Look at the last line. If it says that something is missing, it also says what to type. Do that first.

# %% [markdown]
# ## Launch a server
#
# These are the tools of the course. `launch_server` starts Triton; the others come one by one.

# %%
import numpy as np

from helpers import Client, launch_server, scrape
from helpers.course import course_map, exercise  #: from helpers.course import ____, course_map, exercise

# %% [markdown]
# The server loads models from a folder called `models`. We ask for the smallest one, `add_sub`.

# %%
server = launch_server("models", load=["add_sub"])
server

# %% [markdown]
# Look at the card. The server has three addresses, and `add_sub` is **READY**: it accepts requests. If port
# 9000 was taken, by a neighbour on a shared machine for example, your server found other ports, and the
# card says so.

# %% [markdown]
# ## Send your first request
#
# `add_sub` is not deep learning. It takes two lists of 16 numbers and returns their sum and their
# difference. That is all we need now.

# %%
left = np.arange(16, dtype=np.float32)
right = np.full(16, 10, dtype=np.float32)
client = Client(server)

# %% [markdown]
# **What do you expect** as the first number of the sum, and of the difference?

# %%
result = client.infer("add_sub", INPUT0=left, INPUT1=right)
result

# %% [markdown]
# `OUTPUT0` is the sum, `OUTPUT1` the difference. Your numbers went through the network protocol **gRPC** to
# another process and came back. How can you be sure? Ask the server. It counts its requests, and anyone may
# read the counters, which are called **metrics**:

# %%
counter = "nv_inference_request_success"
before = scrape(server).value(counter, model="add_sub")
client.infer("add_sub", INPUT0=left, INPUT1=right)
scrape(server).value(counter, model="add_sub") - before

# %% [markdown]
# **What stands out?** `nv_inference_request_success` rose by 1: your request arrived, and it was answered.
# There are more counters; notebook 06 reads them all.

# %% [markdown]
# ## See how exercises work
#
# An exercise has a blank, written `____` (four underscores). Replace it, run the cell, then run the check.
# A check looks at facts, mostly on your live server. It says *correct*, *not yet*, *not attempted* or
# *cannot tell*. You may try as often as you like, and nobody else sees it.

# %% [markdown] exercise="0.1"
# ### Exercise 0.1 (1 minute) — Fill a blank
#
# The experiments at the LHC check their energy scale with the Z boson. Replace the blank by its mass in
# GeV, rounded to a whole number. Then run the check. Try a wrong number first, to see what happens.

# %% exercise="0.1" tags=["starter"]
z_mass = 91  #: z_mass = ____

# %% exercise="0.1" tags=["check"]
exercise("0.1").check(z_mass)
# exercise("0.1").hint(1)
# exercise("0.1").solution()

# %% [markdown] exercise="0.1" tags=["hints"]
# 1. It is a little heavier than the W boson, and lighter than the Higgs boson.
# 2. It decays to two muons. In notebook 02 your own model will compute this mass, and the answer is between
#    90 and 92.

# %% [markdown] exercise="0.1" tags=["answer"]
# The Z boson weighs 91.19 GeV, so the whole number is 91.

# %% [markdown]
# Stuck? Remove the `#` before `hint` or `solution` and run the cell again.

# %% [markdown] exercise="0.2"
# ### Exercise 0.2 (2 minutes) — Make the server count to three
#
# Send exactly three requests to `add_sub`, with any numbers you like. The check reads the server's counter
# before and after.

# %% exercise="0.2" tags=["starter"]
before = scrape(server)
for _ in range(3):  #: ____
    client.infer("add_sub", INPUT0=left, INPUT1=right)  #:

# %% exercise="0.2" tags=["check"]
exercise("0.2").check(server, before)
# exercise("0.2").hint(1)
# exercise("0.2").solution()

# %% [markdown] exercise="0.2" tags=["hints"]
# 1. The line that sends one request stands above: `client.infer(...)`. Write it three times, or use a loop.
# 2. Too many? Run the whole cell again: its first line, `before = scrape(server)`, sets the start of the
#    count.

# %% [markdown] exercise="0.2" tags=["answer"]
# One call of `infer` is one request, so three calls are three requests. The check subtracts the counter in
# `before` from the counter now.

# %% [markdown]
# ## Choose your way
#
# This is the whole course, and how far you are. Your progress is kept in a small file on this machine; it
# survives a restart.

# %%
course_map()

# %% [markdown]
# Little time? These three selections work. Each notebook also runs alone.
#
# | You have | Notebooks | Time | Afterwards you can |
# |---|---|---|---|
# | 90 minutes | 00, 01, 02, 07 | 90 min | Serve a model and say how fast it answers. |
# | Half a day | 00, 01, 02, 03, 04, 06, 07, 09 | 240 min | The same, with physics models, and make one faster. |
# | On your own | 00 to 11 | 397 min | Everything, in order; stop after any notebook. |
#
# Commands, ports, counters and formulas are on one page to print: `docs/cheat_sheet.html`.
#
# ## Remember
#
# - A server answers **inference requests**; a client sends them. They meet only over the network.
# - `launch_server` starts a real Triton, and the card tells where it is.
# - The server's own counters tell what really happened.
#
# **In practice…** the server and its clients live on different machines. Your server is private: it listens
# only to this machine, and it stops by itself shortly after you shut this notebook's kernel down.
#
# **Next:** [Launch a server](01_launch_a_server.ipynb) looks behind the card.
#
# The next cell stops your server. Run it when you are done.

# %%
client.close()
server.stop()
server
