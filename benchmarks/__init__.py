"""How fast the course is, beside the same work without a server: ``make bench``, ``python -m benchmarks.record``, ``make test-gpu``."""

import os

# For everything that a benchmark starts: ONNX Runtime reports its use to Microsoft by default.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
