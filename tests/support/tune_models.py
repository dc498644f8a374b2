"""A repository for tests of the search: a model that sleeps and refuses more than two instances, and small ONNX models."""

from __future__ import annotations

from pathlib import Path

from tests.served.backends import onnx_models
from tests.served.backends.repositories import configure, tensors

# What a request to `nap` takes, in s: so long that two instances are twice as fast on any machine.
NAP_S = 0.02
_NAP = """
import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        # By its own number: an instance that is added to those that run is told their old configuration.
        if int(args["model_instance_name"].rsplit("_", 1)[1]) >= 2:
            raise RuntimeError("this model has beds for two")

    def execute(self, requests):
        time.sleep(SECONDS * len(requests))
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", pb_utils.get_input_tensor_by_name(r, "X").as_numpy())]) for r in requests]
"""
AFFINE = tensors("input", x="FP32 [3]"), tensors("output", y="FP32 [3]", z="FP32 [3]")


def repository(root: Path) -> Path:
    """Models: ``nap`` and ``affine``."""
    (root / "nap" / "1").mkdir(parents=True)
    (root / "nap" / "1" / "model.py").write_text(_NAP.replace("SECONDS", str(NAP_S)))
    one = "instance_group [ { count: 1 kind: KIND_CPU } ]  # a comment within"
    io = tensors("input", X="FP32 [1]"), tensors("output", Y="FP32 [1]")
    configure(root / "nap", "# Sleeps before it answers.", 'backend: "python"', *io, one)
    onnx_models.affine(root / "affine" / "1" / "model.onnx")
    configure(root / "affine", 'platform: "onnxruntime_onnx"', "max_batch_size: 8", *AFFINE, one)
    return root
