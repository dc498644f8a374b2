"""Taus for the course: generate them, train DeepTau on them, export it for Triton.

Nothing in this package is imported by the course itself. What both share is `helpers.physics.taus`, which fills the grids, and the
table of inputs, which lies beside the served model as ``preprocess.json`` (see `training.taus.features`).
"""

import os

# ONNX Runtime reports its use to Microsoft by default.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
