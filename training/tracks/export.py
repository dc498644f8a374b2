"""Write the networks as ONNX files, in the form in which Triton serves them, and compare them with the originals on real events."""

from __future__ import annotations

import logging
import re
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from helpers.physics.tracks import Event
from training.exported import forget_origin

from . import served, stages
from .networks import Embedding, Filter, InteractionNetwork
from .settings import ROOT
from .stages import Cuts

log = logging.getLogger(__name__)

OPSET = 18
TOLERANCE = 1e-4
"""Largest difference between a score of the ONNX file and of the original; single precision gives about 1e-5."""


class ServedFilter(nn.Module):
    """The filter with its cut: scores of all edges, and the edges that stay."""

    def __init__(self, network: Filter, cut: float) -> None:
        super().__init__()
        self.network, self.cut = network, cut

    def forward(self, sp_features: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        score = torch.sigmoid(self.network(sp_features, edge_index))
        kept = torch.nonzero(score >= self.cut)[:, 0]
        return score, edge_index.index_select(1, kept)


class ServedInteractionNetwork(nn.Module):
    """The interaction network with scores instead of logits."""

    def __init__(self, network: InteractionNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, sp_features: Tensor, edge_index: Tensor) -> tuple[Tensor, Tensor]:
        scores = torch.sigmoid(self.network(sp_features, edge_index))
        return scores[:, 0], scores[:, 1]


def export(network: nn.Module, inputs: dict[str, Tensor], outputs: Sequence[str], path: Path) -> None:
    """Write one network with the dynamo exporter: the older one drops the sum of ``index_add`` without a word.

    Args:
        network: In evaluation mode.
        inputs: Examples by name; every size but 2, 3 and 8 may vary.
        outputs: Names.
        path: The file.
    """
    hits, edges = torch.export.Dim("hits", min=2, max=1_000_000), torch.export.Dim("edges", min=2, max=10_000_000)
    shapes = {name: ({1: edges} if name == "edge_index" else {0: hits}) for name in inputs}
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(), tuple(inputs.values()), path, dynamo=True, opset_version=OPSET, external_data=False, verbose=False,
            input_names=list(inputs), output_names=list(outputs), dynamic_shapes=shapes,
        )  # fmt: skip
    forget_origin(path)
    log.info("%s: %.0f kB", path, path.stat().st_size / 1000)


def session(path: Path) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session with one thread, as the server has it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def largest_difference(network: nn.Module, served: onnxruntime.InferenceSession, inputs: Sequence[dict[str, np.ndarray]]) -> float:
    """Largest difference of any score between original and ONNX file, over several events; infinite where one is no number."""
    worst = 0.0
    for one in inputs:
        with torch.no_grad():
            originals = network(*map(torch.from_numpy, one.values()))
        for original, answer in zip(originals if isinstance(originals, tuple) else (originals,), served.run(None, one), strict=True):
            if answer.dtype.kind != "f":
                continue
            if answer.shape != original.shape or not np.isfinite(answer).all():
                return float("inf")
            worst = max(worst, float(np.abs(answer - original.numpy()).max(initial=0)))
    return worst


def export_all(
    networks: tuple[Embedding, Filter, InteractionNetwork], cuts: Cuts, events: Sequence[Event], models: Path
) -> dict[str, float]:
    """Write the repository: the course's models of this name with these networks and thresholds.

    Args:
        networks: Embedding, filter and interaction network.
        cuts: The thresholds.
        events: Real events to compare on; the first one is the exporter's example.
        models: The model repository; made if it is not there.

    Returns:
        Largest difference from PyTorch for each ONNX model.

    Raises:
        ValueError: an ONNX file does not do what its network does.
    """
    embedding, edge_filter, interaction = networks
    _copy_repository(models)
    graphs = [stages.graph(embedding, event, cuts.radius) for event in events]
    kept = [edges[:, stages.scores(edge_filter, event, edges) >= cuts.filter] for event, edges in zip(events, graphs, strict=True)]
    hits = [{"sp_features": event.features} for event in events]
    to_filter = [one | {"edge_index": edges} for one, edges in zip(hits, graphs, strict=True)]
    to_score = [one | {"edge_index": edges} for one, edges in zip(hits, kept, strict=True)]
    exported = {
        "ExaTrk_embedding": (embedding, hits, ["embedding_output"]),
        "ExaTrk_filter": (ServedFilter(edge_filter, cuts.filter), to_filter, ["filter_score", "kept_edges"]),
        "ExaTrk_gnn": (ServedInteractionNetwork(interaction), to_score, ["edge_score", "same_score"]),
    }
    differences = {}
    for name, (network, inputs, outputs) in exported.items():
        path = models / name / "1" / "model.onnx"
        export(network, {key: torch.from_numpy(value) for key, value in inputs[0].items()}, outputs, path)
        differences[name] = largest_difference(network.eval(), session(path), inputs)
        if not differences[name] < TOLERANCE:
            raise ValueError(f"{path} differs from the network by {differences[name]:.1e}, more than {TOLERANCE:.0e}")
    set_parameters(models / "ExaTrk_graph" / "config.pbtxt", radius=cuts.radius)
    set_parameters(models / "ExaTrk_tracks" / "config.pbtxt", cut=cuts.walk, mend_cut=cuts.mend, min_hits=cuts.min_hits)
    return differences


def write_reference(networks: tuple[Embedding, Filter, InteractionNetwork], cuts: Cuts, event: Event, path: Path) -> None:
    """Write down what each stage makes of one event in PyTorch, so that tests of the server can compare without PyTorch."""
    embedding, edge_filter, interaction = networks
    with torch.no_grad():
        points = embedding(torch.from_numpy(event.features)).numpy()
    edges = stages.graph(embedding, event, cuts.radius)
    score = stages.scores(edge_filter, event, edges)
    kept = edges[:, score >= cuts.filter]
    follows, same = stages.scores(interaction, event, kept).T
    labels = served.tracks.build_tracks(event.features, kept, follows, same, cuts.walk, cuts.mend, cuts.min_hits)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path, embedding=points, edges=edges.astype(np.int32), filter_score=score, kept_edges=kept.astype(np.int32),
        edge_score=follows, same_score=same, labels=labels,
    )  # fmt: skip


def set_parameters(config: Path, **values: float) -> None:
    """Write parameters into a ``config.pbtxt``, everything else stays as it is.

    Raises:
        ValueError: the config has no such parameter.
    """
    text = config.read_text()
    for name, value in values.items():
        text, found = re.subn(rf'(key: "{name}" value: {{ string_value: ")[^"]*', rf"\g<1>{value:g}", text)
        if found != 1:
            raise ValueError(f"{config} has no parameter {name!r}")
    config.write_text(text)


def _copy_repository(models: Path) -> None:
    """The course's models of the pipeline, when another repository is to be written."""
    if models.resolve() == (ROOT / "models").resolve():
        return
    for folder in sorted((ROOT / "models").glob("ExaTrk*")):
        shutil.copytree(folder, models / folder.name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
