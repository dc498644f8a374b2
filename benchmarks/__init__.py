"""How fast the embedded server is, compared with the same network in one process and no server: ``make bench``."""

import os

# For everything that a benchmark starts: ONNX Runtime reports its use to Microsoft by default.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
