"""Files of real inputs for perf_analyzer, because what it calls random are random bits, most of them absurd numbers or none."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from helpers.client import Client
from helpers.measuring.perf_analyzer import LENGTHS
from helpers.paths import make_folder, replace, work_dir, writing

# Entries of a file: enough to be no special case, small enough to be read in a moment. A tau has 423 kB: twenty are 11 MB of text.
JETS, TAUS = 100, 20


def write(path: str | Path, tensors: Mapping[str, np.ndarray] | Iterable[Mapping[str, np.ndarray]]) -> Path:
    """Write tensors as perf_analyzer reads them, and return the file.

    Tensors are given by input name, their first axis the batch; or one entry after the other, without that axis, where shapes differ.
    The tool takes one entry after the other and begins again; for batches above 1 all must have the same shapes.
    """
    if isinstance(tensors, Mapping):
        tensors = [dict(zip(tensors, entry, strict=True)) for entry in zip(*tensors.values(), strict=True)]
    # The bytes themselves: no digit is lost, and the file is a third shorter than with numbers in text.
    data = [
        {name: {"content": {"b64": base64.b64encode(array.tobytes()).decode()}, "shape": array.shape} for name, array in entry.items()}
        for entry in tensors
    ]
    target = Path(path).expanduser().resolve()
    with writing(target):
        make_folder(target.parent)
        replace(target, json.dumps({"data": data}))
    return target


def write_jets(server: Any, model: str, *, lengths: Mapping[str, int] | None = None) -> Path:
    """Write jets of the course's sample for a jet tagger, padded and with masks, as CMSSW sends them, into ``work/inputs``.

    Lengths are those of the collections, ``pf`` and ``sv``; 50 and 4 by default. A file has one shape, so that its jets can be put into
    batches; a longer jet loses what is behind that length.
    """
    from helpers.physics import jets  # awkward and uproot take a second to import

    chosen = {**LENGTHS, **(lengths or {})}
    with Client(server) as client:
        tagger = jets.Tagger(client, model)
        tensors = tagger.inputs(jets.read(jets.sample_for(tagger))[:JETS], candidates=chosen["pf"], vertices=chosen["sv"])
    return write(work_dir() / "inputs" / f"{model}_{JETS}_jets_{chosen['pf']}_{chosen['sv']}.json", tensors)


def write_taus() -> Path:
    """Write taus of the course's sample for DeepTau, their grids filled as CMSSW fills them, into ``work/inputs``."""
    from helpers.physics import taus

    return write(work_dir() / "inputs" / f"{TAUS}_taus.json", taus.tensors(taus.read().take(range(TAUS))))


def write_real(server: Any, model: str) -> Path:
    """Write what the course has for a model: jets, taus, or the hits of all events without pile-up."""
    from helpers.physics.tracks import load_events

    with Client(server) as client:
        names = set(client.signature(model).inputs)
    if names == {"FEATURES"}:
        return write(work_dir() / "inputs" / "events.json", ({"FEATURES": event.features} for event in load_events()))
    return write_taus() if "input_tau" in names else write_jets(server, model)
