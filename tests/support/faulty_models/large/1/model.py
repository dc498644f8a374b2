"""NUMBERS = 0, 1, …, COUNT - 1."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance of the model."""

    def execute(self, requests):
        """Answer each request with as many numbers as it asks for."""
        counts = [int(pb_utils.get_input_tensor_by_name(request, "COUNT").as_numpy()[0]) for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("NUMBERS", np.arange(count, dtype=np.float32))]) for count in counts]
