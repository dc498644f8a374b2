"""PROBABILITIES = softmax(LOGITS), FP32, shape (batch, 5)."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance of the model."""

    def execute(self, requests):
        """Answer each request with the softmax of its input."""
        responses = []
        for request in requests:
            logits = pb_utils.get_input_tensor_by_name(request, "LOGITS").as_numpy()
            weights = np.exp(logits - logits.max(axis=1, keepdims=True))
            scores = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("PROBABILITIES", scores)]))
        return responses
