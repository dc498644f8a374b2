"""The smallest useful Triton model: OUTPUT0 = INPUT0 + INPUT1 and OUTPUT1 = INPUT0 - INPUT1."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Triton makes one object of this class for each model instance."""

    def execute(self, requests):
        """Answer each request with the sum and the difference of its two inputs.

        Args:
            requests: the requests of one execution; each holds INPUT0 and INPUT1, FP32, shape (16,).

        Returns:
            One response for each request, in the same order, with OUTPUT0 (sum) and OUTPUT1 (difference), FP32, shape (16,).
        """
        responses = []
        for request in requests:
            left = pb_utils.get_input_tensor_by_name(request, "INPUT0").as_numpy()
            right = pb_utils.get_input_tensor_by_name(request, "INPUT1").as_numpy()
            responses.append(
                pb_utils.InferenceResponse(
                    output_tensors=[
                        pb_utils.Tensor("OUTPUT0", left + right),
                        pb_utils.Tensor("OUTPUT1", left - right),
                    ]
                )
            )
        return responses
