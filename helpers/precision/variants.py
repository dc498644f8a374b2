"""Variants of an ONNX model in lower precision, made with ONNX Runtime's own tools, and what they cost in physics.

All keep the inputs and outputs of the model, in 32 bits, so clients change nothing but the name.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helpers.client import Client
from helpers.errors import InputError, ModelError, SetupError
from helpers.paths import models_dir, replace, server_env, shown, writing
from helpers.physics import jets as course_jets
from helpers.physics.flavour import auc_change, auc_words, sides, truth
from helpers.repository import checkout, locate, read_config
from helpers.repository.syntax import render
from helpers.tables import Table
from helpers.terminal import Progress

# Jets on which static quantisation finds the ranges of a network's activations, in batches of so many: the first of the sample. What it
# costs is measured on the others.
CALIBRATION_JETS, CALIBRATION_BATCH = 256, 16
# 16-bit floating point, and 8-bit weights and activations with ranges that are calibrated on real jets.
METHODS = ("fp16", "int8_static")
_FILE = "model.onnx"
# In each variant's folder: what it was made from, so that it is made again when that changes.
_STAMP = "precision.json"
_CONVERTER = Path(__file__).with_name("convert.py")


def make(model: str, methods: Sequence[str] = METHODS) -> list[Path]:
    """Make variants of a model in ``work/models``, beside a working copy of the model itself, and return their folders.

    ``methods`` are names in :data:`METHODS`. A variant that was made from the same file before stays as it is.
    """
    folder = locate(model)
    if models_dir().resolve() in folder.resolve().parents:
        folder = checkout(folder.name) / folder.name
    if not (folder / "1" / _FILE).is_file():
        raise ModelError(f"{shown(folder)} has no {_FILE} in its version 1.", "Only ONNX models can be made in another precision.")
    with Progress(f"making {folder.name} compute with fewer bits"):
        return [_make_one(folder, method) for method in methods]


def _make_one(folder: Path, method: str) -> Path:
    source, target = folder / "1" / _FILE, folder.parent / f"{folder.name}_{method}"
    content = b"".join(path.read_bytes() for path in (source, _CONVERTER, folder / "config.pbtxt"))
    digest, stamp = hashlib.sha256(content).hexdigest(), target / _STAMP
    if target.exists():
        if not stamp.is_file():
            raise SetupError(f"There is a model {shown(target)} already, and it was not made from {folder.name}.", "", "Move it away.")
        if stamp.read_text(encoding="utf-8") == digest:
            return target
    # Under another name, outside the repository, until it is complete.
    with writing(target), tempfile.TemporaryDirectory(prefix=".precision-", dir=folder.parent.parent) as temporary:
        made = Path(temporary) / target.name
        shutil.copytree(folder, made, ignore=shutil.ignore_patterns("__pycache__", _FILE))
        calibration = [_calibration(folder, Path(temporary))] if method == "int8_static" else []
        command: list[str | Path] = [server_env() / "bin" / "python", "-I", _CONVERTER, method, source, made / "1" / _FILE, *calibration]
        try:
            subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            why = (getattr(error, "stderr", "").strip() or str(error)).splitlines()[-1].strip()
            todo = "The tools are in the server's environment; type: python -m helpers install-server"
            raise SetupError(f"The variant {method} could not be made: {why}", "", todo) from error
        config = read_config(made)
        config.name = target.name
        replace(made / "config.pbtxt", f"# {folder.name} in another precision: {method}.\n{render(config)}")
        replace(made / _STAMP, digest)
        if target.exists():
            shutil.rmtree(target)
        made.rename(target)
    return target


def _calibration(folder: Path, target: Path) -> Path:
    """Write real jets in batches, as the file that the converter reads; only a jet tagger has a table of what it takes."""
    table = course_jets.Table.read(folder / course_jets.TABLE_FILE, [entry.name for entry in read_config(folder).input])
    flat = course_jets.flatten(course_jets.read(course_jets.sample_for(table))[:CALIBRATION_JETS], table)
    tensors: dict[str, Any] = flat.pad(np.arange(len(flat)))
    path = target / "calibration.npz"
    np.savez(path, **{name: each.reshape(-1, CALIBRATION_BATCH, *each.shape[1:]) for name, each in tensors.items()})
    return path


def cost(server: Any, models: Sequence[str], reference: str, jets: Any) -> Table:
    """Tag the same jets with each model and compare with the reference: the change of the area under the curve is what it costs.

    ``jets`` carry the truth; static calibration has seen the first 256 of the sample. A row for each model and discriminant has ``auc`` and
    ``auc_uncertainty`` (one standard deviation, of the finite number of jets), ``auc_change`` from the reference and
    ``auc_change_half_width`` (of its 95 % interval; small, because the jets are the same), ``largest_change`` and ``mean_change`` of a
    probability.
    """
    with Client(server) as client:
        scores = {name: course_jets.Tagger(client, name).tag(jets) for name in dict.fromkeys([reference, *models])}
    first, rows = scores[reference], []
    for model, each in scores.items():
        if each.labels != first.labels:
            raise InputError(f"{model!r} has other classes than {reference!r}.", "Expected variants of one network.")
        apart = np.abs(each.probabilities - first.probabilities)
        for name in first.discriminants:
            area, (signal, background) = each.roc(name, jets), (truth(jets, *group) for group in sides(name))
            change, deviation = auc_change(*((values[signal], values[background]) for values in (first[name], each[name])))
            row = {"model": model, "discriminant": name, "auc": area.auc, "auc_uncertainty": area.auc_uncertainty}
            row |= {"auc_change": change, "auc_change_half_width": 1.96 * deviation}
            rows.append(row | {"largest_change": float(apart.max()), "mean_change": float(apart.mean())})
    return Table(rows, f"{len(jets)} jets, the same for all; the change of AUC is with its 95 % interval.", _shown)


def _shown(row: dict[str, Any]) -> dict[str, str]:
    """What fits on a projector."""
    return {
        "model": row["model"],
        "discriminant": row["discriminant"],
        "AUC": auc_words(row["auc"], row["auc_uncertainty"], 4),
        "change of AUC": f"{row['auc_change']:+.4f} ± {row['auc_change_half_width']:.4f}",
        "largest change of a probability": f"{row['largest_change']:.2g}",
    }
