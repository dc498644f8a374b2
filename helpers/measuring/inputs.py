"""Files of real inputs for perf_analyzer: jets for the taggers, hits for the track finder, taus for DeepTau, or any tensors.

What perf_analyzer calls random are random bits. Read as 32-bit numbers, one in 256 of them is infinite or no number at all, and
most others are absurdly large or small. A network's time may depend on its numbers, and its answers always do.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from helpers.client import Client
from helpers.errors import InputError
from helpers.measuring.perf_analyzer import LENGTHS
from helpers.paths import make_folder, replace, work_dir, writing

# Entries of a file: enough to be no special case, small enough to be read in a moment. A tau has 423 kB: twenty are 11 MB of text.
JETS, TAUS = 100, 20


def write_inputs(path: str | Path, entries: Iterable[Mapping[str, np.ndarray]]) -> Path:
    """Write tensors as perf_analyzer reads them, and return the file; an InputError when there is none.

    Each entry has arrays by input name, without the batch axis. The tool takes one after the other and begins again; for batches above
    1 all must have the same shapes.
    """
    data = [{name: _entry(array) for name, array in entry.items()} for entry in entries]
    if not data:
        raise InputError("There is nothing to write: no entry was given.", "Expected at least one.")
    target = Path(path).expanduser()
    with writing(target):
        make_folder(target.parent)
        replace(target, json.dumps({"data": data}))
    return target.resolve()


def _entry(array: np.ndarray) -> dict[str, Any]:
    # The bytes themselves: no digit is lost, and the file is a third shorter than with numbers in text.
    return {"content": {"b64": base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()}, "shape": list(array.shape)}


def _write(name: str, tensors: Mapping[str, np.ndarray], number: int) -> Path:
    """Write the first entries of whole tensors into a file in ``work/inputs``."""
    return write_inputs(work_dir() / "inputs" / name, ({key: tensor[place] for key, tensor in tensors.items()} for place in range(number)))


def write_jets(server: Any, model: str, *, lengths: Mapping[str, int] | None = None) -> Path:
    """Write jets of the course's sample for a jet tagger, padded and with masks, as CMSSW sends them.

    Lengths are those of the collections, ``pf`` and ``sv``; 50 and 4 by default. A file has one shape, so that its jets can be put into
    batches; a longer jet loses what is behind that length. Returns the file, in ``work/inputs``.
    """
    from helpers.physics import jets  # awkward and uproot take a second to import

    chosen = {**LENGTHS, **(lengths or {})}
    with Client(server) as client:
        tagger = jets.Tagger(client, model)
        sample = jets.read(jets.sample_for(tagger))[:JETS]
        tensors = tagger.inputs(sample, candidates=chosen["pf"], vertices=chosen["sv"])
    return _write(f"{model}_{JETS}_jets_{chosen['pf']}_{chosen['sv']}.json", tensors, len(sample))


def write_taus() -> Path:
    """Write taus of the course's sample for DeepTau, their grids filled as CMSSW fills them, and return the file in ``work/inputs``."""
    from helpers.physics import taus

    return _write(f"{TAUS}_taus.json", taus.tensors(taus.read().take(range(TAUS))), TAUS)


def write_real(server: Any, model: str, lengths: Mapping[str, int] | None = None) -> Path:
    """Write what the course has for a model, jets, hits or taus, and return the file; an InputError where it has nothing for it.

    Hits are those of all events without pile-up; each event keeps its own number of them.
    """
    with Client(server) as client:
        names = set(client.signature(model).inputs)
    if names != {"FEATURES"}:
        return write_taus() if "input_tau" in names else write_jets(server, model, lengths=lengths)
    from helpers.physics.tracks import load_events

    events = load_events()
    return write_inputs(work_dir() / "inputs" / f"{len(events)}_events.json", ({"FEATURES": event.features} for event in events))
