"""Every default of the course in one place, each with its unit and its reason.

Values that people change often can be set by an environment variable, which is named beside them.
"""

from __future__ import annotations

# The folders are in helpers.paths; these names go when nothing asks for them here.
from helpers.paths import current_folder, log_dir, models_dir, root, server_env, work_dir  # noqa: F401

# Ports. HTTP gets the base port, gRPC the next, metrics the one after, as in the course text. Not Triton's own 8000:
# on shared nodes JupyterHub sits there.
BASE_PORT = 9000

# Seconds that the server of a command outlives that command when it is killed: nobody comes back to it, as a restarted notebook does.
COMMAND_GRACE_S = 2.0

# Seconds for questions about the server (health, metadata, metrics): these answer in milliseconds or not at all.
QUERY_TIMEOUT_S = 10.0
# How often a request is sent again when the connection was refused or dropped before an answer came. Refused inputs are never repeated.
RETRIES = 2


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
# Name of the header that carries a token. The usual one, so that curl and every proxy know it.
TOKEN_HEADER = "authorization"
# The instructor's word on that, and how it may read.
PRIVATE_VARIABLE = "COURSE_PRIVATE"
YES_NO = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}

# The release of tritonserver in the pinned wheel. containers/VERSION names the image of the same release.
EMBEDDED_TRITON = "2.51.0"


def image_version() -> str:
    """The NGC image tag without its suffix, such as ``24.10``; ``containers/VERSION`` is the only place that names it."""
    return (root() / "containers" / "VERSION").read_text().strip()
