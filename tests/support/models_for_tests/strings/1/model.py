"""ECHO = TEXT, LENGTH = number of bytes of each string."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance of the model."""

    def execute(self, requests):
        """Answer each request with its strings and their lengths."""
        responses = []
        for request in requests:
            text = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy()
            length = np.array([len(item) for item in text.reshape(-1)], dtype=np.int32).reshape(text.shape)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("ECHO", text), pb_utils.Tensor("LENGTH", length)]))
        return responses
