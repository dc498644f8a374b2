"""The stages of ExaTrk in one process and without a server: the yardstick of ``benchmarks.tracks``.

Runs with the Python of the server's environment, as a process of its own that is asked through its standard input: each line
names a file of features; the answer is one line of JSON with the milliseconds of each stage and a checksum of the labels.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np
import onnxruntime

STAGES = ("embedding", "graph", "filter", "gnn", "tracks")


def load(models: Path, model: str, name: str) -> ModuleType:
    """A Python file of the model repository."""
    spec = importlib.util.spec_from_file_location(name, models / model / "1" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def session(models: Path, model: str) -> onnxruntime.InferenceSession:
    """One thread that does not spin, as the server's config asks for."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(models / model / "1" / "model.onnx"), options, providers=["CPUExecutionProvider"])


class Chain:
    """All stages.

    Args:
        models: the model repository.
        graph: the parameters of ``ExaTrk_graph``.
        tracks: the parameters of ``ExaTrk_tracks``.
    """

    def __init__(self, models: Path, graph: dict[str, str], tracks: dict[str, str]) -> None:
        self.embedding, self.filter, self.gnn = (session(models, f"ExaTrk_{name}") for name in ("embedding", "filter", "gnn"))
        self.hits, self.graph = load(models, "ExaTrk_graph", "check_hits"), load(models, "ExaTrk_graph", "radius_graph")
        self.tracks = load(models, "ExaTrk_tracks", "build_tracks")
        self.limits = (float(graph["radius"]), int(graph["max_neighbours"]), int(graph["max_edges"]))
        self.max_hits = int(graph["max_hits"])
        self.cuts = (float(tracks["cut"]), float(tracks["mend_cut"]), int(tracks["min_hits"]))

    def run(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels (n_hits,) and seconds (5,) of one event."""
        clock = [time.perf_counter()]
        (points,) = self.embedding.run(["embedding_output"], {"sp_features": features})
        clock.append(time.perf_counter())
        self.hits.check_hits(features, self.max_hits)
        order = self.graph.outwards(features)
        self.hits.check_twins(features, order)
        edges = self.graph.radius_graph(points, order, *self.limits)
        clock.append(time.perf_counter())
        (kept,) = self.filter.run(["kept_edges"], {"sp_features": features, "edge_index": edges})
        clock.append(time.perf_counter())
        follows, same = self.gnn.run(["edge_score", "same_score"], {"sp_features": features, "edge_index": kept})
        clock.append(time.perf_counter())
        labels = self.tracks.build_tracks(features, kept, follows, same, *self.cuts)
        clock.append(time.perf_counter())
        return labels, np.diff(clock)


def main() -> None:
    """Answer until the input ends."""
    chain = Chain(Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3]))
    for line in sys.stdin:
        features = np.load(line.strip())
        start = time.perf_counter()
        labels, seconds = chain.run(features)
        total = time.perf_counter() - start
        stages = dict(zip(STAGES, (1000 * seconds).tolist(), strict=True))
        print(json.dumps({"ms": 1000 * total, "stages": stages, "checksum": zlib.crc32(labels.tobytes())}), flush=True)


if __name__ == "__main__":
    main()
