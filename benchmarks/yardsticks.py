"""The work of a benchmark in one process, on one thread, without a server: ``yardsticks.py KIND ARGUMENTS``.

It runs with the server's Python. Each line of standard input is a question in JSON; the answer is a line of JSON.

- ``network FILE INPUTS.npz``: ``{"batch": 8, "seconds": 0.7}`` → ``{"per_s": …}``, entries of the inputs through the network.
- ``tracks MODELS GRAPH_PARAMETERS TRACKS_PARAMETERS``: ``{"file": "features.npy"}`` → milliseconds, and a checksum of the labels.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

Question = dict[str, Any]


def session(path: Path) -> Any:
    """One thread that does not spin, as the server's configs ask for."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def network(file: str, inputs: str) -> Callable[[Question], Question]:
    """Entries per second of a network."""
    entries = dict(np.load(inputs))
    if file.endswith(".onnx"):
        run: Callable[..., object] = partial(session(Path(file)).run, None)
    else:
        import torch

        warnings.filterwarnings("ignore", category=DeprecationWarning)
        torch.set_num_threads(1)
        torch.set_num_interop_threads(1)
        module = torch.jit.load(file, map_location="cpu").eval()

        def run(arrays: dict[str, np.ndarray]) -> object:
            with torch.inference_mode():
                return module(*map(torch.from_numpy, arrays.values())).numpy()

    def answer(question: Question) -> Question:
        batch, size = question["batch"], len(next(iter(entries.values())))
        batches = [{name: values[start : start + batch] for name, values in entries.items()} for start in range(0, size - batch + 1, batch)]
        for number in range(3):
            run(batches[number % len(batches)])
        done, begin = 0, time.perf_counter()
        while (took := time.perf_counter() - begin) < question["seconds"]:
            run(batches[done % len(batches)])
            done += 1
        return {"per_s": done * batch / took}

    return answer


def tracks(models: str, graph: str, walk: str) -> Callable[[Question], Question]:
    """Milliseconds of all stages of ExaTrk for one event."""
    folder, limits, cuts = Path(models), json.loads(graph), json.loads(walk)
    embedding, edge_filter, gnn = (session(folder / f"ExaTrk_{name}" / "1" / "model.onnx") for name in ("embedding", "filter", "gnn"))
    hits, pairs = (_module(folder / "ExaTrk_graph" / "1" / f"{name}.py") for name in ("check_hits", "radius_graph"))
    build = _module(folder / "ExaTrk_tracks" / "1" / "build_tracks.py")

    def answer(question: Question) -> Question:
        features = np.load(question["file"])
        begin = time.perf_counter()
        (points,) = embedding.run(["embedding_output"], {"sp_features": features})
        hits.check_hits(features, int(limits["max_hits"]))
        order = pairs.outwards(features)
        hits.check_twins(features, order)
        edges = pairs.radius_graph(points, order, float(limits["radius"]), int(limits["max_neighbours"]), int(limits["max_edges"]))
        (kept,) = edge_filter.run(["kept_edges"], {"sp_features": features, "edge_index": edges})
        follows, same = gnn.run(["edge_score", "same_score"], {"sp_features": features, "edge_index": kept})
        labels = build.build_tracks(features, kept, follows, same, float(cuts["cut"]), float(cuts["mend_cut"]), int(cuts["min_hits"]))
        return {"ms": 1000 * (time.perf_counter() - begin), "checksum": zlib.crc32(labels.tobytes())}

    return answer


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    reply = {"network": network, "tracks": tracks}[sys.argv[1]](*sys.argv[2:])
    for line in sys.stdin:
        print(json.dumps(reply(json.loads(line))), flush=True)
