"""Every default of the course in one place, each with its unit and its reason.

Values that people change often can be set by an environment variable, which is named beside them.
"""

from __future__ import annotations

import os

# The folders are in helpers.paths; these names go when nothing asks for them here.
from helpers.paths import current_folder, log_dir, models_dir, root, server_env, work_dir  # noqa: F401

# Ports. HTTP gets the base port, gRPC the next, metrics the one after, as in the course text. Not Triton's own 8000:
# on shared nodes JupyterHub sits there.
BASE_PORT = 9000
# Ports of one server. The next server on the same machine starts its search this many ports higher.
PORTS_PER_SERVER = 3
# How many triples are tried before giving up: a class of forty on one node, twice over.
PORT_TRIPLES = 80
# Loopback only: whoever reaches a server's ports can use it.
HOST = "127.0.0.1"

# Seconds until every model must be READY. PyTorch models with warm-up take longest, on a loaded 2-core machine tens of seconds.
START_TIMEOUT_S = 180.0
# Seconds that the server of a command outlives that command when it is killed: nobody comes back to it, as a restarted notebook does.
COMMAND_GRACE_S = 2.0
# Seconds that a server outlives the notebook kernel that owned it: enough for "Restart kernel", short enough that nothing is left behind.
GRACE_S = 15.0
# Seconds that a server gets to finish its requests and unload its models before it is killed (seen: 1.5 to 6 s).
STOP_TIMEOUT_S = 12.0
# Models that the embedded server loads at the same time; Triton's default is 4. Of each load it sleeps a second, so that the course's
# twelve models are ready after 4.0 instead of 5.7 s on two cores.
LOAD_THREADS = 16
# Seconds that tritonserver itself waits for models to unload before it exits all the same: after a load that failed on top of a
# running model it keeps count of one model too many, and would wait for its default of 30 s.
EXIT_TIMEOUT_S = 6
# Seconds between two looks at a starting server.
POLL_S = 0.05

# Seconds that one inference request may take. The first request of a new shape compiles in PyTorch and takes seconds.
REQUEST_TIMEOUT_S = 60.0
# Seconds for questions about the server (health, metadata, metrics): these answer in milliseconds or not at all.
QUERY_TIMEOUT_S = 10.0
# How often a request is sent again when the connection was refused or dropped before an answer came. Refused inputs are never repeated.
RETRIES = 2
# Seconds before the first repetition; doubled each time.
RETRY_WAIT_S = 0.2
# Seconds that reading the metrics waits first: Triton answers a request a moment before it counts it (on a machine with eight busy
# processes per core, one reading in 300 straight after an answer came too early).
METRICS_SETTLE_S = 0.02
# Requests under way at once in asynchronous sending: enough to keep two model instances and their queue busy.
MAX_IN_FLIGHT = 8

# The front of a fleet, the Envoy proxy before its servers.
# Seconds between two health checks of a server: after two that fail it gets no requests, after one that passes it gets them again.
FLEET_CHECK_INTERVAL_S = 0.5
# Seconds that a health check may take: a server whose cores are all busy answers late, and must not leave for that.
FLEET_CHECK_TIMEOUT_S = 3.0
# How often the front sends a request again, to another server, when none has begun to work on it.
FLEET_RETRIES = 3
# Bytes of a request that the front keeps for that; a larger request is sent once: a batch of 128 jets has 1 MB.
FLEET_BUFFER_BYTES = 32 << 20
# Threads of the front at most, and never more than half of the cores: one passes on thousands of requests per second.
FLEET_THREADS = 4
# Seconds that a server which leaves gets for its requests under way.
FLEET_DRAIN_S = 30.0

# Requests under way at once in a background load, at most: each has a thread, and a server with a full queue shows nothing new.
LOAD_MAX_CONCURRENCY = 32
# Seconds until the process of a background load has begun: it imports the client, 1 s on a quiet machine, 10 s on a crowded one.
LOAD_START_TIMEOUT_S = 60.0
# Seconds for the requests that are under way when a background load is stopped, before its process is killed.
LOAD_STOP_TIMEOUT_S = 8.0

# The dashboard: seconds between two updates (twice a second looks live and costs little), seconds that its curves show, and seconds over
# which rates are means (with less, slow models would jump between nothing and too much).
DASHBOARD_INTERVAL_S = 0.5
DASHBOARD_HISTORY_S = 60.0
DASHBOARD_WINDOW_S = 2.0
# Seconds without an answer after which the dashboard of a server that has not ended gives up: longer than a model takes to load.
DASHBOARD_PATIENCE_S = 10.0
# Ends of its two sliders. A model may allow more; on a CPU one such request takes a second or so.
DASHBOARD_MAX_BATCH = 64
DASHBOARD_MAX_CONCURRENCY = 16

# Jets on which static quantisation finds the ranges of a network's activations, in batches of so many: the first of the sample. What it
# costs is measured on the others.
CALIBRATION_JETS, CALIBRATION_BATCH = 256, 16


# An analysis at scale.
# Jets that it has, and how many are in each of its files: what a physics group's own ntuples look like, in small.
ANALYSIS_JETS, ANALYSIS_FILE_JETS = 200_000, 20_000
# Jets that one task reads, tags and writes: a second or two of a server's time. What a killed worker had begun costs no more than that.
ANALYSIS_CHUNK_JETS = 2_000
# Jets in one request, and requests under way at once from each worker: one in work, one waiting, one on its way.
ANALYSIS_BATCH, ANALYSIS_IN_FLIGHT = 50, 3
# How often a chunk is tried again after its request failed, beyond the client's own repetitions, and the seconds before that, doubled
# each time: a server that is started again is back within a minute.
ANALYSIS_RETRIES, ANALYSIS_RETRY_WAIT_S = 4, 2.0
# Seconds until a Dask scheduler answers.
ANALYSIS_CONNECT_S = 20.0

# Requests that a simulation of waiting plays through: known to a few per cent then, in a second.
SIMULATED_REQUESTS = 20_000
# How often the interval is halved in which the load is that just keeps a budget: to a millionth of a job.
CAPACITY_HALVINGS = 40

# Triton looks for its restricted protocols' keys in gRPC metadata under their name with this prefix.
GRPC_HEADER_PREFIX = "triton-grpc-protocol-"
# Name of the header that carries the administration key.
ADMIN_HEADER = "course-admin-key"
# The protocol groups that need the key: through these, whoever reaches the port could run code or read memory as the owner.
ADMIN_APIS = "model-repository,shared-memory,trace,logging"
# Name of the header that carries a token. The usual one, so that curl and every proxy know it.
TOKEN_HEADER = "authorization"
# The protocol groups that need the class's token on a server that listens beyond this machine: all that Triton 2.51 knows but the owner's.
CLASS_APIS = "health,metadata,inference,model-config,statistics"
# The protocol group that needs the server's secret on a machine that other people use: all whose requests Triton parses. The other
# groups' calls carry nothing but a name.
PRIVATE_APIS = "inference"
# The instructor's word on that, and how it may read.
PRIVATE_VARIABLE = "COURSE_PRIVATE"
YES_NO = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
# Characters of a class's token at least, and random bytes of one that nobody named: too many to guess over a network.
TOKEN_MIN_LENGTH, TOKEN_BYTES = 12, 18
# Seconds for a look whether anything listens on a port.
LOOK_TIMEOUT_S = 2.0

# Lines of the server's log that an error message quotes.
LOG_TAIL_LINES = 15
# The same, where they stand beside the news that the server has ended: those that say something, for a card.
LAST_WORDS_LINES = 5
# The release of tritonserver in the pinned wheel. containers/VERSION names the image of the same release.
EMBEDDED_TRITON = "2.51.0"
# NVIDIA's image of the server, and the course's own: NVIDIA's with what the course's Python models import. Their tags come from VERSION.
NVIDIA_IMAGE = "nvcr.io/nvidia/tritonserver"
OWN_IMAGE = "triton-course/tritonserver"
# CUDA of that image (12.6.2 in release 24.10); an image that says which it has is believed.
IMAGE_CUDA = "12.6"
# The oldest branch of NVIDIA's driver that runs programs of each CUDA, by NVIDIA's table of minor version compatibility, and the oldest
# whose gaps an image fills by itself on GPUs for data centres, by the release notes of 24.10.
CUDA_DRIVERS = {11: 450, 12: 525, 13: 580}
CUDA_DRIVER_CARRIED = 470
# Free disk space, in GB, that pulling NVIDIA's image needs, with the file that Apptainer makes of it: a generous guess.
DISK_IMAGE_GB = 30.0


def shm_size() -> str:
    """Size of a container's own shared memory (``COURSE_SHM_SIZE``, such as ``1g``); empty for the host's, which clients see, too."""
    return os.environ.get("COURSE_SHM_SIZE", "")


def image_version() -> str:
    """The NGC image tag without its suffix, such as ``24.10``; ``containers/VERSION`` is the only place that names it."""
    return (root() / "containers" / "VERSION").read_text().strip()
