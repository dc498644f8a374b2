"""Tracks for the course: simulate collisions, train the networks of Exa.TrkX on them, export them for Triton.

Nothing in this package is imported by the course itself. What both share, the radius graph and the track building, lies with the
served models (see `training.tracks.served`), and the matching to truth in ``helpers.physics.tracks``.
"""

import os

# ONNX Runtime reports its use to Microsoft by default.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
