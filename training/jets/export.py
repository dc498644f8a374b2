"""Export a trained network to TorchScript and ONNX, and prove on real jets that both agree.

Two exporters of PyTorch produce wrong numbers without an error, and this module stays
clear of both: the old ONNX exporter drops the sum in ``index_add``, and the new one
deletes an added constant of 1e-8 or less. `check` compares on real jets, because
random input does not show the second.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import nn

from training.exported import forget_origin

from .dataset import JetTable, padded_inputs
from .features import Tagger
from .model import ParticleNet
from .serving import input_names, model_name, output_name, write_beside

OPSET = 18
TOLERANCE = 1e-5
"""Largest difference of a probability between eager PyTorch and an export."""

Runner = Callable[[Sequence[NDArray]], NDArray]


class ExportMismatch(AssertionError):
    """An exported model does not compute what the network computes."""


def to_torchscript(model: nn.Module, path: Path) -> None:
    """Write ``model`` as TorchScript."""
    with warnings.catch_warnings():
        # PyTorch 2.13 calls TorchScript deprecated; Triton's PyTorch backend still needs it.
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(model.eval()), str(path))


def to_onnx(
    model: nn.Module,
    examples: Sequence[torch.Tensor],
    path: Path,
    names: Sequence[str],
    output: str,
    dynamic: Sequence[dict[int, str]],
) -> None:
    """Write ``model`` as ONNX with the exporter that gets sums right.

    Args:
        model: What to export.
        examples: Inputs, of sizes other than 0 and 1 along dynamic axes.
        path: File to write.
        names: Input names in order.
        output: Output name.
        dynamic: Per input, axis number to name for the axes that vary.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            tuple(examples),
            str(path),
            dynamo=True,
            opset_version=OPSET,
            external_data=False,
            input_names=list(names),
            output_names=[output],
            dynamic_shapes=tuple(dict(axes) for axes in dynamic),
            verbose=False,
        )
    forget_origin(path)


def eager_runner(model: nn.Module) -> Runner:
    """Run ``model`` on arrays."""

    def run(inputs: Sequence[NDArray]) -> NDArray:
        with torch.inference_mode():
            return model(*(torch.from_numpy(np.ascontiguousarray(x)) for x in inputs)).numpy()

    return run


def torchscript_runner(path: Path) -> Runner:
    """Run a TorchScript file on arrays."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return eager_runner(torch.jit.load(str(path)))


def onnx_runner(path: Path, threads: int = 1) -> Runner:
    """Run an ONNX file on arrays, in the order of its inputs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]

    def run(inputs: Sequence[NDArray]) -> NDArray:
        return session.run(None, dict(zip(names, inputs, strict=True)))[0]

    return run


def check(reference: Runner, exported: Runner, inputs: Sequence[NDArray], tolerance: float = TOLERANCE) -> float:
    """Compare an export with the network.

    Args:
        reference: The network.
        exported: Its export.
        inputs: Real inputs.
        tolerance: Largest allowed absolute difference.

    Returns:
        The largest absolute difference.

    Raises:
        ExportMismatch: It is larger, or not a number.
    """
    expected, seen = reference(inputs), exported(inputs)
    difference = float(np.abs(expected - seen).max())
    if not difference <= tolerance:
        shapes = [tuple(x.shape) for x in inputs]
        raise ExportMismatch(
            f"the export differs from the network by {difference:.3g} on inputs of shapes {shapes}; at most {tolerance:.0e} was expected"
        )
    return difference


def check_on_jets(tagger: Tagger, reference: Runner, exported: Runner, jets: JetTable) -> float:
    """`check` at several batch sizes and lengths, padded and not. Returns the largest difference."""
    largest = 0.0
    for n_jets in (1, 3, min(100, len(jets))):
        batch = jets.take(np.arange(n_jets))
        for lengths in ((None, None), (50, 4), (tagger.max_candidates, tagger.max_vertices), (24, 1)):
            inputs = list(padded_inputs(batch, tagger, *lengths).values())
            largest = max(largest, check(reference, exported, inputs))
    return largest


def export(tagger: Tagger, model: ParticleNet, models: Path, jets: JetTable) -> dict[str, float]:
    """Write both models of a tagger into a model repository.

    Args:
        tagger: Which tagger.
        model: Its trained network.
        models: The model repository.
        jets: Real jets, for the checks and the warm-up.

    Returns:
        Largest difference from the network by model name.
    """
    model = model.cpu().eval()
    differences = {}
    examples = [torch.from_numpy(x) for x in padded_inputs(jets.take(np.arange(5)), tagger, 40, 3).values()]
    for torchscript in (True, False):
        folder = models / model_name(tagger, torchscript)
        path = folder / "1" / ("model.pt" if torchscript else "model.onnx")
        path.parent.mkdir(parents=True, exist_ok=True)
        if torchscript:
            to_torchscript(model, path)
        else:
            axes = [{0: "batch", 2: "candidates"}] * 3 + [{0: "batch", 2: "vertices"}] * 3
            to_onnx(model, examples, path, input_names(False), output_name(False), axes)
        runner = torchscript_runner(path) if torchscript else onnx_runner(path)
        differences[folder.name] = check_on_jets(tagger, eager_runner(model), runner, jets)
        write_beside(tagger, torchscript, folder, jets)
    return differences
