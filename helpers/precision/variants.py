"""Variants of a model in lower precision, made with ONNX Runtime's and PyTorch's own tools, and what they cost in physics.

All keep the inputs and outputs of the model, in 32 bits, so clients change nothing but the name. ``python -m helpers quantize`` does the
same in a terminal.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helpers.client import Client
from helpers.errors import InputError, ModelError, SetupError, quoted, suggestion
from helpers.paths import models_dir, replace, server_env, shown, work_dir, writing
from helpers.physics import jets as course_jets
from helpers.physics.flavour import DISCRIMINANTS, GROUPS, Scores, auc_change, truth
from helpers.repository import checkout, locate, read_config
from helpers.repository.syntax import render
from helpers.tables import Table
from helpers.terminal import Progress

# Jets on which static quantisation finds the ranges of a network's activations, in batches of so many: the first of the sample. What it
# costs is measured on the others.
CALIBRATION_JETS, CALIBRATION_BATCH = 256, 16

# Method -> what it is, in words; by the file that holds the model.
METHODS = {
    "model.onnx": {
        "fp16": "16-bit floating point; the choice of neighbours stays in 32 bits",
        "int8": "8-bit weights, activations by the range that each run finds",
        "int8_static": "8-bit weights and activations, ranges calibrated on real jets",
    },
    "model.pt": {"frozen": "TorchScript with its weights as constants"},
}
# In each variant's folder: what it was made from, so that it is made again when that changes.
STAMP = "precision.json"
_CONVERTER = Path(__file__).with_name("convert.py")
# Standard deviations of a 95 % interval.
_TWO_SIDED_95 = 1.96


def make(model: str, methods: Sequence[str] | str = ()) -> list[Path]:
    """Make variants of a model in ``work/models``, beside a working copy of the model itself.

    A variant that was made from the same file before stays as it is.

    Args:
        model: its name: a working copy, or a model of the course.
        methods: names in :data:`METHODS`; by default all that fit its file.

    Returns:
        The folders of the variants.

    Raises:
        ModelError: there is no such model, or it is neither ONNX nor TorchScript.
        InputError: a method does not fit it, or it is calibrated on jets and takes none.
        SetupError: the server's environment lacks the tools, or they failed.
    """
    wanted = [methods] if isinstance(methods, str) else list(methods)
    folder = locate(model)
    if models_dir().resolve() in folder.resolve().parents:
        folder = checkout(folder.name) / folder.name
    source = next((path for name in METHODS if (path := folder / "1" / name).is_file()), None)
    if source is None:
        raise ModelError(
            f"{shown(folder)} has neither model.onnx nor model.pt in its version 1.", "Only such models can be made in another precision."
        )
    fitting = METHODS[source.name]
    for name in wanted:
        if name not in fitting:
            raise InputError(
                f"The method {name!r} does not fit {shown(source)}.", f"There is {quoted(fitting)}.", suggestion(name, fitting)
            )
    made: list[Path] = []
    with Progress(f"making {folder.name} compute with fewer bits", len(wanted or fitting), "variants") as progress:
        for name in wanted or fitting:
            made.append(_make_one(folder, source, name))
            progress.add()
    return made


def family(model: str) -> list[str]:
    """Return the names of a model and of its variants that are in ``work/models``, for ``launch_server(load=…)``."""
    folder = work_dir() / "models"
    names = [f"{model}_{method}" for methods in METHODS.values() for method in methods]
    return [model, *(name for name in names if (folder / name / STAMP).is_file())]


def _make_one(folder: Path, source: Path, method: str) -> Path:
    target = folder.parent / f"{folder.name}_{method}"
    stamp = {"model": folder.name, "method": method, "sha256": _sha256(source, _CONVERTER, folder / "config.pbtxt")}
    if target.exists():
        if not (target / STAMP).is_file():
            raise SetupError(f"There is a model {shown(target)} already, and it was not made from {folder.name}.", "", "Move it away.")
        if json.loads((target / STAMP).read_text(encoding="utf-8")) == stamp:
            return target
    # Under another name, outside the repository, until it is complete.
    with writing(target), tempfile.TemporaryDirectory(prefix=".precision-", dir=folder.parent.parent) as temporary:
        made = Path(temporary) / target.name
        shutil.copytree(folder, made, ignore=shutil.ignore_patterns("__pycache__", source.name, STAMP))
        arguments = [str(source), str(made / "1" / source.name)]
        if method == "int8_static":
            arguments.append(str(_calibration(folder, Path(temporary))))
        _convert(method, arguments)
        config = read_config(made)
        config.name = target.name
        replace(made / "config.pbtxt", f"# {folder.name} in another precision: {METHODS[source.name][method]}.\n{render(config)}")
        (made / STAMP).write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        made.rename(target)
    return target


def _convert(method: str, arguments: Sequence[str]) -> None:
    """Run the converter in the server's environment.

    Raises:
        SetupError: it failed; with its last line.
    """
    python = server_env() / "bin" / "python"
    try:
        done = subprocess.run([python, "-I", str(_CONVERTER), method, *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise SetupError(
            f"There is no {python}.", "The tools are in the server's environment.", "Type: python -m helpers install-server"
        ) from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["nothing at all"]
        todo = "Type: python -m helpers install-server" if "ModuleNotFoundError" in lines[-1] else ""
        raise SetupError(f"The variant {method} could not be made: {lines[-1].strip()}", "", todo)


def _calibration(folder: Path, target: Path) -> Path:
    """Write real jets in batches, as the file that the converter reads; raise InputError if the model takes no jets."""
    if not (folder / course_jets.TABLE_FILE).is_file():
        raise InputError(
            f"{folder.name} is no jet tagger: it has no {course_jets.TABLE_FILE}.",
            "Static calibration needs real inputs, which here are jets.",
        )
    table = course_jets.Table.read(folder / course_jets.TABLE_FILE)
    flat = course_jets.flatten(course_jets.read(course_jets.sample_for(table))[:CALIBRATION_JETS], table)
    names = {course_jets.plain_name(entry.name): entry.name for entry in read_config(folder).input}
    tensors = flat.pad(np.arange(len(flat)), {})
    path = target / "calibration.npz"
    batches: dict[str, Any] = {names[group]: each.reshape(-1, CALIBRATION_BATCH, *each.shape[1:]) for group, each in tensors.items()}
    np.savez(path, **batches)
    return path


def _sha256(*paths: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def cost(server: Any, models: Sequence[str], reference: str, jets: Any = None) -> Table:
    """Tag the same jets with each model and compare with the reference: the change of the area under the curve is what it costs.

    Args:
        server: a :class:`~helpers.server.Server`, or its address.
        models: the variants; the reference may be among them.
        reference: the model in full precision.
        jets: with truth; by default all of the sample but those that static calibration has seen.

    Returns:
        A row for each model and discriminant: ``auc`` and ``auc_uncertainty`` (one standard deviation, of the finite number of jets),
        ``auc_change`` from the reference and ``auc_change_half_width`` (of its 95 % interval; small, because the jets are the same),
        ``largest_change`` and ``mean_change`` of a probability, and ``n_jets``.

    Raises:
        InputError: a model is no tagger of these jets.
    """
    with Client(server) as client:
        taggers = {name: course_jets.Tagger(client, name) for name in dict.fromkeys([reference, *models])}
        if jets is None:
            jets = course_jets.read(course_jets.sample_for(taggers[reference]))[CALIBRATION_JETS:]
        scores = {name: tagger.tag(jets) for name, tagger in taggers.items()}
    first = scores[reference]
    if wrong := [name for name, each in scores.items() if each.labels != first.labels]:
        raise InputError(f"{wrong[0]!r} has other classes than {reference!r}.", "Expected variants of one network.")
    rows = [_cost(each, first, discriminant, jets) for each in scores.values() for discriminant in first.discriminants]
    return Table(rows, f"{len(jets)} jets, the same for all; the change of AUC is with its 95 % interval.", _shown)


def _cost(scores: Scores, reference: Scores, name: str, jets: Any) -> dict[str, Any]:
    signal, background = (truth(jets, *GROUPS[group]) for group in DISCRIMINANTS[name])
    change, deviation = auc_change(*((each[name][signal], each[name][background]) for each in (reference, scores)))
    area, apart = scores.roc(name, jets), np.abs(scores.probabilities - reference.probabilities)
    return {
        "model": scores.model,
        "discriminant": name,
        "auc": area.auc,
        "auc_uncertainty": area.auc_uncertainty,
        "auc_change": change,
        "auc_change_half_width": _TWO_SIDED_95 * deviation,
        "largest_change": float(apart.max()),
        "mean_change": float(apart.mean()),
        "n_jets": len(scores),
    }


def _shown(row: dict[str, Any]) -> dict[str, str]:
    return {
        "model": row["model"],
        "discriminant": row["discriminant"],
        "AUC": f"{row['auc']:.4f} ± {row['auc_uncertainty']:.4f}",
        "change of AUC": f"{row['auc_change']:+.4f} ± {row['auc_change_half_width']:.4f}",
        "largest change of a probability": f"{row['largest_change']:.2g}",
    }
