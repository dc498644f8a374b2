"""Second stage of ExaTrk: hits whose embeddings lie close together are joined by edges."""

import json

import numpy as np
import triton_python_backend_utils as pb_utils
from check_hits import BadHits, check_hits, check_twins
from radius_graph import TooDense, outwards, radius_graph


class TritonPythonModel:
    """Checks the hits of each event and builds its graph."""

    def initialize(self, args):
        """Read the parameters of config.pbtxt, which all must be there."""
        parameters = {name: value["string_value"] for name, value in json.loads(args["model_config"])["parameters"].items()}
        self.radius = float(parameters["radius"])
        self.max_neighbours, self.max_hits, self.max_edges = (int(parameters[name]) for name in ("max_neighbours", "max_hits", "max_edges"))
        if not 0 < self.radius < 100 or min(self.max_neighbours, self.max_hits, self.max_edges) < 1:
            raise pb_utils.TritonModelException(f"a parameter of ExaTrk_graph is out of range: {parameters}")

    def execute(self, requests):
        """Answer each request: sp_features (n, 3) and embedding (n, 8) to edge_index (2, n_edges)."""
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        features = pb_utils.get_input_tensor_by_name(request, "sp_features").as_numpy()
        embedding = pb_utils.get_input_tensor_by_name(request, "embedding").as_numpy()
        try:
            check_hits(features, self.max_hits)
            if len(embedding) != len(features):
                raise BadHits(f"there are {len(features)} hits but {len(embedding)} embeddings.")
            if not np.isfinite(embedding).all():
                raise BadHits("the embedding holds a value that is no finite number.")
            order = outwards(features)
            check_twins(features, order)
            edges = radius_graph(embedding, order, self.radius, self.max_neighbours, self.max_edges)
        except (BadHits, TooDense) as problem:
            error = pb_utils.TritonError(f"ExaTrk refuses this event: {problem}", pb_utils.TritonError.INVALID_ARG)
            return pb_utils.InferenceResponse(error=error)
        return pb_utils.InferenceResponse([pb_utils.Tensor("edge_index", edges)])
