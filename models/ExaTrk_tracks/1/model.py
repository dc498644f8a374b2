"""Last stage of ExaTrk: scored edges become tracks, one label for each hit."""

import json

import triton_python_backend_utils as pb_utils
from build_tracks import build_tracks


class TritonPythonModel:
    """Walks along the best edges of each event and mends tracks that fell apart."""

    def initialize(self, args):
        """Read the parameters of config.pbtxt, which all must be there."""
        parameters = {name: value["string_value"] for name, value in json.loads(args["model_config"])["parameters"].items()}
        self.cut, self.mend_cut, self.min_hits = float(parameters["cut"]), float(parameters["mend_cut"]), int(parameters["min_hits"])
        if not (0 <= self.cut <= 1 and self.mend_cut >= 0 and self.min_hits >= 1):
            raise pb_utils.TritonModelException(f"a parameter of ExaTrk_tracks is out of range (cut is from 0 to 1): {parameters}")

    def execute(self, requests):
        """Answer each request: hits, edges and their scores to labels (n,)."""
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        names = ("sp_features", "edge_index", "edge_score", "same_score")
        features, edges, follows, same = (pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in names)
        problem = ""
        if not len(follows) == len(same) == edges.shape[1]:
            problem = f"there are {edges.shape[1]} edges, but {len(follows)} and {len(same)} scores."
        elif edges.size and not 0 <= edges.min() <= edges.max() < len(features):
            problem = f"edges join hits {edges.min()} to {edges.max()}, and the event has the hits 0 to {len(features) - 1}."
        if problem:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"ExaTrk_tracks: {problem}", pb_utils.TritonError.INVALID_ARG))
        labels = build_tracks(features, edges, follows, same, self.cut, self.mend_cut, self.min_hits)
        return pb_utils.InferenceResponse([pb_utils.Tensor("labels", labels)])
