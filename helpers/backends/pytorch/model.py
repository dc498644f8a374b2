"""Backend ``pytorch`` of the embedded server: serves TorchScript files, ``model.pt``.

A Triton "Python-based backend": every model whose config says ``backend: "pytorch"`` or ``platform: "pytorch_libtorch"``
is an instance of this class, in a process of its own. In a Triton container the native backend serves the same models.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

# This file is reached through a link in the server's backend directory; the other modules lie beside the real one.
sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "common"))

import numpy as np
import triton_python_backend_utils as pb_utils
from course_backend import Arrays, ServedModel, Settings


class TritonPythonModel(ServedModel):
    """One instance of a TorchScript model."""

    DEFAULT_FILE = "model.pt"

    def load(self, settings: Settings) -> None:
        """Load the network and compare its tensors with the config."""
        from torch_module import Network  # imports PyTorch: seconds, which the completion of a config need not wait for

        self.module = Network(settings)
        pb_utils.Logger.log_info(f"{settings.instance}: {self.module.summary}")

    def run(self, inputs: Arrays, wanted: Sequence[str]) -> list[np.ndarray]:
        """Run the network once."""
        return self.module.run(inputs, wanted)
