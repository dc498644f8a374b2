"""PLACE = how many requests were run before this one, after the time that it names; a negative one ends when the file ``held`` is gone."""

import os
import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance of the model."""

    def initialize(self, args):
        """Nothing has run yet."""
        self.place = 0
        self.folder = Path(args["model_repository"])

    def execute(self, requests):
        """Wait, then say in which place this request was run."""
        responses = []
        for request in requests:
            seconds = float(pb_utils.get_input_tensor_by_name(request, "SECONDS").as_numpy()[0, 0])
            time.sleep(max(0.0, seconds))
            if seconds < 0:
                (self.folder / f"begun-{os.getpid()}").touch()
                while (self.folder / "held").exists():
                    time.sleep(0.01)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("PLACE", np.full((1, 1), self.place, np.float32))]))
            self.place += 1
        return responses
