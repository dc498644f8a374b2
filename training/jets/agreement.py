"""Prove on real jets that the served files compute what the network computes.

Needs PyTorch, ONNX Runtime and NumPy only, so it runs in the server's environment too::

    .server/bin/python -m training.jets.agreement ak4 JETS.npz models RESULT.npz
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from .dataset import JetTable, padded_inputs
from .evaluate import scores
from .export import check_on_jets, eager_runner, onnx_runner, torchscript_runner
from .features import TAGGERS, Tagger
from .model import LAYOUTS, ParticleNet, build, count_parameters
from .serving import model_name


def network_of(path: Path, key: str) -> ParticleNet:
    """The plain network with the weights of a served TorchScript file."""
    network = build(key)
    network.load_state_dict(torch.jit.load(str(path), map_location="cpu").state_dict())
    return network.eval()


def compare(tagger: Tagger, jets: JetTable, models: Path) -> tuple[dict[str, float], np.ndarray]:
    """Compare the served files of a tagger.

    Args:
        tagger: Which one.
        jets: Real jets.
        models: The model repository.

    Returns:
        Numbers by name, and the probabilities (n_jets, n_labels) from the ONNX file.

    Raises:
        ExportMismatch: A served file disagrees with the network.
    """
    script = models / model_name(tagger, True) / "1" / "model.pt"
    network = network_of(script, tagger.key)
    eager, onnx = eager_runner(network), onnx_runner(models / model_name(tagger, False) / "1" / "model.onnx")
    scripted = torchscript_runner(script)
    empty = {name: np.zeros_like(x) for name, x in padded_inputs(jets.take(np.arange(2)), tagger, 50, 4).items()}
    nothing = np.concatenate([run(list(empty.values())) for run in (eager, scripted, onnx)])
    numbers = {
        "parameters": count_parameters(network),
        "parameters_expected": LAYOUTS[tagger.key].parameters,
        "torchscript_difference": check_on_jets(tagger, eager, scripted, jets),
        "onnx_difference": check_on_jets(tagger, eager, onnx, jets),
        "padding_difference": _padding_difference(tagger, eager, jets),
        "finite_without_candidates": float(np.isfinite(nothing).all()),
    }
    return numbers, scores(onnx, tagger, jets)


def _padding_difference(tagger: Tagger, run, jets: JetTable) -> float:
    """How much longer padding changes a probability; it must not."""
    some = jets.take(np.arange(min(50, len(jets))))
    short = run(list(padded_inputs(some, tagger).values()))
    lengths = (tagger.max_candidates + 20, tagger.max_vertices + 3)
    return float(np.abs(short - run(list(padded_inputs(some, tagger, *lengths).values()))).max())


def main() -> None:
    """Compare, print the numbers as JSON, write the probabilities."""
    parser = argparse.ArgumentParser(prog="python -m training.jets.agreement")
    parser.add_argument("tagger", choices=tuple(TAGGERS))
    parser.add_argument("jets", type=Path, help="jets as .npz, from JetTable.save")
    parser.add_argument("models", type=Path, help="model repository")
    parser.add_argument("result", type=Path, help="where to write the probabilities, .npz")
    options = parser.parse_args()
    torch.set_num_threads(1)
    tagger = TAGGERS[options.tagger]
    numbers, probabilities = compare(tagger, JetTable.load(options.jets), options.models)
    np.savez(options.result, probabilities=probabilities)
    print(json.dumps(numbers))


if __name__ == "__main__":
    main()
