"""Jets for the course: generate them, train ParticleNet on them, export it for Triton.

Nothing in this package is imported by the course itself. The one thing that both
share, the table of input features, lies beside each served model as
``preprocess.json`` (see `training.jets.features`).
"""

import os

# ONNX Runtime reports its use to Microsoft by default.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
