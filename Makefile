# The course in one word each; `make` alone lists them. Plain GNU make, POSIX sh and Python 3.11 or 3.12.
PYTHON ?= python3
# TORCH=no: the embedded server without PyTorch, for machines with little disk. SERVER=no: no embedded server (containers, or a server elsewhere).
TORCH ?=
SERVER ?=
# ONNX Runtime reports its use to Microsoft by default; here nothing does.
export ORT_DISABLE_TELEMETRY ?= 1
# Arguments for the tests (make test ARGS="-k doctor"), for JupyterLab (make lab LAB="--no-browser --port=8899"), for lint (make lint FIX=yes)
ARGS ?=
LAB ?=
FIX ?=

# The first Python that there is looks for one that fits, and says what to type when none does.
FIND = for p in $(PYTHON) python3.12 python3.11 python3 python; do command -v "$$p" >/dev/null 2>&1 && break; p=; done; \
  [ -n "$$p" ] || { echo "There is no Python here; the course needs 3.11 or 3.12. Type: sudo apt-get install python3 python3-venv" >&2; exit 1; }
SETUP = @$(FIND); exec "$$p" helpers/setup/bootstrap.py --server=$(SERVER) --torch=$(TORCH)
AS_IS = @$(FIND); exec "$$p" helpers/setup/bootstrap.py --as-is

.DEFAULT_GOAL := help
.PHONY: help setup lab test test-gpu demo doctor reset notebooks site picture bench bench-tune bench-peers bench-graph lint lock train-jets train-tracks test-training test-all

help:
	@echo "make lab           set up what is missing, open the course in JupyterLab"
	@echo "make demo          the course without a browser, in two minutes; see work/demo/"
	@echo "make doctor        is this machine ready, and if not, what to type"
	@echo "make reset NB=03   a pristine notebook 03; yours stays beside it"
	@echo "make test          all tests (ARGS='-m \"not slow\"' for the quick ones)"
	@echo "make test-gpu      check list of a machine with a GPU, and a table of its figures; says so where there is none"
	@echo "make test-training the training's own tests, in an environment made for them"
	@echo "make test-all      all of these, and what takes minutes by itself: forty servers at once, set-ups for Colab and Codespaces; for the night"
	@echo "make bench         the embedded backends against the same models without a server"
	@echo "make bench-tune    the search for the best configuration against a full grid and NVIDIA's Model Analyzer"
	@echo "make bench-peers   the embedded server against PyTriton and MLServer, with the same ONNX models"
	@echo "make bench-graph   the served ParticleNet against the same network written plainly"
	@echo "make train-jets    jets and networks of ParticleNet again, into work/training/jets (ARGS='all ak4 --events 2000' for a trial)"
	@echo "make train-tracks  events and networks of ExaTrk again, into work/training/tracks (ARGS='all --trial' for a trial)"
	@echo "make notebooks     generate notebooks/*.ipynb from notebooks/source/"
	@echo "make site          the course with its figures as pages to read, in work/site/ (it runs all solutions: some ten minutes)"
	@echo "make picture       the picture of the README, from a real run in a browser"
	@echo "make lint          ruff, codespell and clean notebooks"
	@echo "make lock          new locks from pyproject.toml and containers/server-requirements.txt"
	@echo "options: TORCH=no (server without PyTorch, little disk), SERVER=no (no embedded server), PYTHON=/path/to/python3.12"

setup:
	$(SETUP)

lab:
	$(SETUP) -- -m helpers lab $(LAB)

# Two groups of tests at a time, in the order of tests/support/order.py: most tests wait for a server half of their time. WORKERS=0: one after
# the other, in this process.
WORKERS = 2
PYTEST = pytest -n $(WORKERS) --durations=10
test:
	$(SETUP) --dev -- -m $(PYTEST) $(ARGS)

# On a processor, as a rehearsal: make test-gpu ARGS="--device cpu --quick --output /tmp/dry.csv"
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

# ARGS="--executed FOLDER" takes notebooks that ran already, such as those that the tests leave.
site:
	$(SETUP) --dev -- -m tools.site $(ARGS)

picture:
	$(SETUP) --dev -- -m tests.course.picture

bench:
	$(SETUP) --dev -- -m benchmarks
	$(SETUP) --dev -- -m benchmarks.jets
	$(SETUP) --dev -- -m benchmarks.tracks
	$(SETUP) --dev -- -m benchmarks.sweep
	$(SETUP) --dev -- -m benchmarks.dashboard
	$(SETUP) --dev -- -m benchmarks.fleet
	$(SETUP) --dev -- -m benchmarks.scale

# NVIDIA's Model Analyzer, the yardstick of the search, in an environment of its own (600 MB). ARGS="--part grid" does without.
ANALYZER = work/model-analyzer/env
$(ANALYZER)/made:
	@rm -rf $(ANALYZER); mkdir -p work/model-analyzer; echo "making $(ANALYZER): NVIDIA's Model Analyzer, a minute or two"
	$(AS_IS) -- -m venv $(ANALYZER)
	@$(ANALYZER)/bin/python -m pip install -q triton-model-analyzer==1.58.0 && : > $@

bench-tune: $(ANALYZER)/made
	$(SETUP) --dev -- -m benchmarks.tune $(ARGS)

# PyTriton and MLServer, the peers of the embedded server, in an environment of their own (700 MB).
PEERS = work/peers/env
$(PEERS)/made: benchmarks/peers-requirements.txt
	@rm -rf $(PEERS); mkdir -p work/peers; echo "making $(PEERS): PyTriton and MLServer, a minute or two"
	$(AS_IS) -- -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip install -q -r benchmarks/peers-requirements.txt && : > $@

bench-peers: $(PEERS)/made
	$(SETUP) --dev -- -m benchmarks.peers $(ARGS)

lint:
	$(SETUP) --dev -- -m tools.lint $(if $(FIX),--fix)

# An environment of their own: nothing of it is needed for the course.
TRAINING = work/training/env
$(TRAINING)/made: training/jets/requirements.txt training/tracks/requirements.txt
	@rm -rf $(TRAINING); mkdir -p work/training; echo "making $(TRAINING): Pythia, ACTS, PyTorch and what they need, a minute or two"
	$(AS_IS) -- -m venv $(TRAINING)
	@$(TRAINING)/bin/python -m pip install -q -c requirements.lock -r training/jets/requirements.txt -r training/tracks/requirements.txt \
	  pytest "tritonclient[grpc,http]" prometheus-client psutil && : > $@

# The exporter of PyTorch is in the training's environment.
bench-graph: $(TRAINING)/made
	@$(TRAINING)/bin/python -m benchmarks.graph $(ARGS)

# ARGS="all ak4 --events 2000" tries the whole chain in minutes.
train-jets: $(TRAINING)/made
	@nice $(TRAINING)/bin/python -m training.jets $(or $(ARGS),all ak4)
	@[ -n "$(ARGS)" ] || nice $(TRAINING)/bin/python -m training.jets all ak8

# ARGS="all --trial" tries the whole chain in minutes.
train-tracks: $(TRAINING)/made
	@nice $(TRAINING)/bin/python -m training.tracks $(or $(ARGS),all)

# The training's own tests need its environment, half a GB and some minutes that the course can do without.
test-training: setup $(TRAINING)/made
	@$(TRAINING)/bin/python -m pytest tests/training -m "" $(ARGS)

# Every night: those that take minutes by themselves as well.
test-all: test-training
	$(SETUP) --dev -- -m $(PYTEST) -m "" $(ARGS)

# Each lock holds for Python 3.11 and 3.12; the server's for Linux on x86-64 alone, the only place where its wheel runs. The CUDA bindings and
# the placeholder of perf_analyzer have no wheels outside Linux. Versions stay as they are where they can; NEW=yes takes the newest of all.
LOCK = "$$d/bin/uv" pip compile --quiet --python-version 3.11 --fork-strategy fewest --no-header --no-annotate --no-emit-index-url
NEW ?=
lock:
	@$(FIND); d=$$(mktemp -d); trap 'rm -rf "$$d"' EXIT; "$$p" -m venv "$$d" && "$$d/bin/pip" install -q "uv>=0.13,<0.14" 2>/dev/null && \
	{ [ -n "$(NEW)" ] || { sed -E "/^(cuda-|perf-analyzer)/s/ ; .*//" requirements.lock > "$$d/client.new"; cp containers/server-requirements.lock "$$d/server.new"; }; } && \
	$(LOCK) --universal pyproject.toml --extra dev -o "$$d/client.new" && \
	$(LOCK) --python-platform x86_64-manylinux_2_35 containers/server-requirements.txt -o "$$d/server.new" && \
	{ echo "# Made by 'make lock' from pyproject.toml (with its dev extra), for Python 3.11 and 3.12."; \
	  sed -E "/^(cuda-|perf-analyzer)/s/( ; .*)?$$/ ; sys_platform == 'linux'/" "$$d/client.new"; } > requirements.lock && \
	{ echo "# Made by 'make lock' from containers/server-requirements.txt, for Python 3.11 and 3.12 on Linux."; cat "$$d/server.new"; } > containers/server-requirements.lock && \
	wc -l requirements.lock containers/server-requirements.lock
