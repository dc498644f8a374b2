"""Export the trained network to ONNX, and prove on real taus that it computes what the training computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from helpers.physics.taus import Taus, tensors
from training.jets.export import check, eager_runner, onnx_runner, to_onnx

from .features import preprocess
from .model import DeepTau
from .serving import MODEL, OUTPUT, shapes, write_beside
from .train import pack


def export(model: DeepTau, models: Path, taus: Taus) -> float:
    """Write the model's folder into a model repository.

    Args:
        model: The trained network.
        models: The model repository.
        taus: Real taus, for the check.

    Returns:
        The largest difference of a probability between the ONNX file, the dense network, and the network of the occupied cells.

    Raises:
        ExportMismatch: It is larger than 1e-5.
    """
    model = model.cpu().eval()
    table = preprocess()
    path = models / MODEL / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    examples = [torch.from_numpy(values) for values in tensors(taus.take(np.arange(3)), table).values()]
    to_onnx(model, examples, path, list(shapes()), OUTPUT, [{0: "batch"}] * len(examples))
    write_beside(path.parents[1])

    def of_cells(_: object) -> np.ndarray:
        with torch.inference_mode():
            return model.logits_of_cells(*pack(some, table)).softmax(dim=1).numpy()

    largest = 0.0
    for n_taus in (1, 3, min(40, len(taus))):
        some = taus.take(np.arange(n_taus))
        inputs = list(tensors(some, table).values())
        for reference in (eager_runner(model), of_cells):
            largest = max(largest, check(reference, onnx_runner(path), inputs))
    return largest
