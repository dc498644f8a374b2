# What a person types, in one word each; `make` alone lists them. Plain GNU make, POSIX sh and Python 3.11 or 3.12.
PYTHON ?= python3
# TORCH=no: the embedded server without PyTorch, for machines with little disk. SERVER=no: no embedded server (containers, or a server elsewhere).
TORCH ?=
SERVER ?=
# ONNX Runtime reports its use to Microsoft by default; here nothing does.
export ORT_DISABLE_TELEMETRY ?= 1
# Arguments for the tests (make test ARGS="-k doctor"), for JupyterLab (make lab LAB="--no-browser --port=8899")
ARGS ?=
# Tests with the oldest or the newest packages that the ranges allow, in an environment of their own: make test VERSIONS=oldest
VERSIONS ?=
LAB ?=

# The first Python that there is looks for one that fits, and says what to type when none does.
FIND = for p in $(PYTHON) python3.12 python3.11 python3 python; do command -v "$$p" >/dev/null 2>&1 && break; p=; done; \
  [ -n "$$p" ] || { echo "There is no Python here; the course needs 3.11 or 3.12. Type: sudo apt-get install python3 python3-venv" >&2; exit 1; }
SETUP = @$(FIND); exec "$$p" helpers/setup/bootstrap.py --server=$(SERVER) --torch=$(TORCH)
AS_IS = @$(FIND); exec "$$p" helpers/setup/bootstrap.py --as-is

.DEFAULT_GOAL := help
.PHONY: help setup lab demo doctor reset test test-gpu test-all bench notebooks solutions lint

help:
	@echo "make lab           set up what is missing, open the course in JupyterLab"
	@echo "make setup         set up what is missing, and no more"
	@echo "make demo          the course without a browser, in two minutes; see work/demo/"
	@echo "make doctor        is this machine ready, and if not, what to type"
	@echo "make reset NB=03   a pristine notebook 03; yours stays beside it"
	@echo "make test          the tests of each day (ARGS='-m \"not slow\"' for the quick ones; VERSIONS=oldest or newest)"
	@echo "make test-gpu      check list of a machine with a GPU, and a table of its figures; says so where there is none"
	@echo "make test-all      for the night: what takes minutes by itself, too, and the training's tests in an environment of their own"
	@echo "make bench         how fast it is, beside the same work without a server (ARGS='fleet --keep')"
	@echo "make notebooks     generate notebooks/*.ipynb from notebooks/source/"
	@echo "make solutions     run the solutions and keep what they show (NB=\"03 07\": some of them); on a quiet machine"
	@echo "make lint          all checks of .pre-commit-config.yaml; what it changes by itself is clean when you type it again"
	@echo "options: TORCH=no (server without PyTorch, little disk), SERVER=no (no embedded server), PYTHON=/path/to/python3.12"
	@echo "more: make -C training (networks and samples again), CONTRIBUTING.md (authors' tools)"

setup:
	$(SETUP)

lab:
	$(SETUP) -- -m helpers lab $(LAB)

# Four groups of tests at a time, in the order of tests/support/order.py, also on two cores: most tests wait for a server most of their time.
# WORKERS=0: one after the other, in this process.
WORKERS = 4
PYTEST = pytest -n $(WORKERS) --durations=10
test:
	$(SETUP) --dev -- -m $(if $(VERSIONS),tools.versions $(VERSIONS),$(PYTEST)) $(ARGS)

# On a processor, as a rehearsal: make test-gpu ARGS="--device cpu --quick --output /tmp/dry.jsonl"
test-gpu:
	$(SETUP) --dev -- -m benchmarks.gpu $(ARGS)

demo:
	$(SETUP) -- -m tools.site --demo

doctor:
	$(AS_IS) -- -m helpers doctor

reset:
	$(AS_IS) -- -m helpers reset $(NB)

notebooks:
	$(SETUP) --dev -- -m tools.notebooks

# On a quiet machine; some of them: make solutions NB="03 07"
solutions:
	$(SETUP) --dev -- -m tools.solutions $(NB)

# One case: make bench ARGS="fleet --rounds 10 --keep"
bench:
	$(SETUP) --dev -- -m benchmarks $(ARGS)

# Nothing is fetched: its tools are those of the dev extra.
lint: export PRE_COMMIT_HOME ?= $(CURDIR)/work/pre-commit
lint:
	$(SETUP) --dev -- -m pre_commit run --all-files $(ARGS)

# Every night: those that take minutes by themselves as well.
test-all:
	$(SETUP)
	@$(MAKE) --no-print-directory -C training test
	$(SETUP) --dev -- -m $(PYTEST) -m "" $(ARGS)
