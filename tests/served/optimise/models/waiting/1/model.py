"""PLACE = how many requests were run before this one, after the time that the request names."""

import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance of the model."""

    def initialize(self, args):
        """Nothing has run yet."""
        self.place = 0

    def execute(self, requests):
        """Wait, then say in which place this request was run."""
        responses = []
        for request in requests:
            seconds = pb_utils.get_input_tensor_by_name(request, "SECONDS").as_numpy()
            time.sleep(float(seconds[0, 0]))
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("PLACE", np.full((1, 1), self.place, np.float32))]))
            self.place += 1
        return responses
