"""Variants of a model in lower precision: made with ONNX Runtime's and PyTorch's own tools, beside a working copy of the model.

All keep the inputs and outputs of the model, in 32 bits, so clients change nothing but the name. ``python -m helpers quantize`` does the
same in a terminal. What it costs in physics: :mod:`helpers.precision.cost`.
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

from helpers.errors import InputError, ModelError, SetupError, quoted, suggestion
from helpers.paths import models_dir, replace, server_env, shown, work_dir, writing
from helpers.repository import checkout, locate, read_config
from helpers.repository.syntax import render

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
    source = _model_file(folder)
    fitting = METHODS[source.name]
    for name in wanted:
        if name not in fitting:
            raise InputError(
                f"The method {name!r} does not fit {shown(source)}.", f"There is {quoted(fitting)}.", suggestion(name, fitting)
            )
    return [_make_one(folder, source, name) for name in wanted or fitting]


def family(model: str) -> list[str]:
    """Return the names of a model and of its variants that are in ``work/models``, for ``launch_server(load=…)``."""
    folder = work_dir() / "models"
    names = [f"{model}_{method}" for methods in METHODS.values() for method in methods]
    return [model, *(name for name in names if (folder / name / STAMP).is_file())]


def _model_file(folder: Path) -> Path:
    found = [folder / "1" / name for name in METHODS if (folder / "1" / name).is_file()]
    if not found:
        raise ModelError(
            f"{shown(folder)} has neither model.onnx nor model.pt in its version 1.", "Only such models can be made in another precision."
        )
    return found[0]


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
        _rename(made, folder.name, METHODS[source.name][method])
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


def _rename(folder: Path, old: str, words: str) -> None:
    """Give the config its new name, with a word about what this is."""
    path = folder / "config.pbtxt"
    config = read_config(folder)
    config.name = folder.name
    replace(path, f"# {old} in another precision: {words}.\n{render(config)}")


def _calibration(folder: Path, target: Path) -> Path:
    """Write real jets in batches, as the file that the converter reads.

    Raises:
        InputError: the model takes no jets.
    """
    from helpers.physics import jets  # awkward and uproot take a second to import
    from helpers.physics.jets import TABLE_FILE, Table, flatten

    if not (folder / TABLE_FILE).is_file():
        raise InputError(
            f"{folder.name} is no jet tagger: it has no {TABLE_FILE}.", "Static calibration needs real inputs, which here are jets."
        )
    table = Table.read(folder / TABLE_FILE)
    sample = jets.read(jets.sample_for(table))[:CALIBRATION_JETS]
    flat = flatten(sample, table)
    names = {jets.plain_name(entry.name): entry.name for entry in read_config(folder).input}
    tensors: dict[str, Any] = flat.pad(np.arange(len(flat)), {})
    batches = {names[group]: tensor.reshape(-1, CALIBRATION_BATCH, *tensor.shape[1:]) for group, tensor in tensors.items()}
    path = target / "calibration.npz"
    np.savez(path, **batches)
    return path


def _sha256(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()
