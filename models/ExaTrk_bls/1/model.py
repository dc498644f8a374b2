"""ExaTrk as business logic scripting: a Python model that calls the five stages one after the other.

An ensemble does the same by its config alone. Here the way may depend on the event: without edges there is nothing to score.
"""

import numpy as np
import triton_python_backend_utils as pb_utils


class StageFailed(Exception):
    """A stage answered with an error."""


class TritonPythonModel:
    """Calls the stages, which run in the same server."""

    def execute(self, requests):
        """Answer each request: FEATURES (n, 3) to LABELS (n,)."""
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        features = pb_utils.get_input_tensor_by_name(request, "FEATURES").as_numpy()
        try:
            labels = self._find_tracks(features)
        except StageFailed as problem:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(problem), pb_utils.TritonError.INVALID_ARG))
        return pb_utils.InferenceResponse([pb_utils.Tensor("LABELS", labels)])

    def _find_tracks(self, features):
        embedding = _call("ExaTrk_embedding", ["embedding_output"], sp_features=features)
        edges = _call("ExaTrk_graph", ["edge_index"], sp_features=features, embedding=embedding)
        if not edges.size:
            return np.full(len(features), -1, dtype=np.int64)
        kept = _call("ExaTrk_filter", ["kept_edges"], sp_features=features, edge_index=edges)
        follows, same = _call("ExaTrk_gnn", ["edge_score", "same_score"], sp_features=features, edge_index=kept)
        return _call("ExaTrk_tracks", ["labels"], sp_features=features, edge_index=kept, edge_score=follows, same_score=same)


def _call(model, outputs, **inputs):
    """One inference request to another model of this server; returns an array, or several when several outputs are asked for."""
    tensors = [pb_utils.Tensor(name, array) for name, array in inputs.items()]
    answer = pb_utils.InferenceRequest(model_name=model, requested_output_names=outputs, inputs=tensors).exec()
    if answer.has_error():
        raise StageFailed(answer.error().message())
    arrays = [pb_utils.get_output_tensor_by_name(answer, name).as_numpy() for name in outputs]
    return arrays[0] if len(arrays) == 1 else arrays
