"""Each input comes back under its name with _OUT; EXTRA is optional and zero when it was left out."""

import numpy as np
import triton_python_backend_utils as pb_utils

NAMES = ("HALF", "DOUBLE", "FLAG", "LONG", "BYTE", "EXTRA")


class TritonPythonModel:
    """One instance of the model."""

    def execute(self, requests):
        """Answer each request with its inputs."""
        responses = []
        for request in requests:
            tensors = {name: pb_utils.get_input_tensor_by_name(request, name) for name in NAMES}
            arrays = {name: tensor.as_numpy() for name, tensor in tensors.items() if tensor is not None}
            arrays.setdefault("EXTRA", np.zeros(arrays["HALF"].shape, dtype=np.int16))
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor(f"{name}_OUT", arrays[name]) for name in NAMES]))
        return responses
