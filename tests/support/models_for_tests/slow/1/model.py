"""SLEPT = SECONDS, after that time; a negative time is an error of that request alone."""

import time

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance of the model."""

    def execute(self, requests):
        """Sleep for each request, then answer it."""
        responses = []
        for request in requests:
            seconds = pb_utils.get_input_tensor_by_name(request, "SECONDS").as_numpy()
            if seconds[0] < 0:
                responses.append(pb_utils.InferenceResponse(error=pb_utils.TritonError("a negative time cannot be slept")))
                continue
            time.sleep(float(seconds[0]))
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("SLEPT", seconds)]))
        return responses
