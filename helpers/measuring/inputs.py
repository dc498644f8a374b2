"""Files of real inputs for perf_analyzer: jets for the taggers, hits for the track finder, taus for DeepTau, or any tensors.

What perf_analyzer calls random are random bits. Read as 32-bit numbers, one in 256 of them is infinite or no number at all, and
most others are absurdly large or small. A network's time may depend on its numbers, and its answers always do.

Typical use::

    file = write_jets(server, "particlenet_AK4")
    measure(server, "particlenet_AK4", batch=10, input_data=file)
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from helpers.client import Client
from helpers.errors import InputError
from helpers.measuring.perf_analyzer import LENGTHS
from helpers.paths import make_folder, replace, work_dir, writing
from helpers.physics.tracks import Event, load_events

# Jets in a file of inputs: enough to be no special case, small enough to be read in a moment. A tau has 423 kB: twenty are 11 MB of text.
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


def write_jets(
    server: Any,
    model: str,
    *,
    n_jets: int = JETS,
    lengths: Mapping[str, int] | None = None,
    path: str | Path | None = None,
) -> Path:
    """Write jets of the course's sample for a jet tagger, padded and with masks, as CMSSW sends them.

    Args:
        server: a :class:`~helpers.server.Server`, or its gRPC address.
        model: a tagger, such as ``particlenet_AK4``.
        n_jets: how many.
        lengths: padded length by collection, ``pf`` and ``sv``; 50 and 4 by default. A file has one shape, so that its jets can
            be put into batches; a longer jet loses what is behind that length.
        path: file to write; by default in ``work/inputs``.

    Returns:
        The file.

    Raises:
        InputError: the model takes no jets, the lengths are too short for it, or there are not so many jets.
    """
    from helpers.physics import jets  # awkward and uproot take a second to import

    chosen = {**LENGTHS, **(lengths or {})}
    with Client(server) as client:
        tagger = jets.Tagger(client, model)
        name = jets.sample_for(tagger)
        sample = jets.read(name)
        if not 1 <= n_jets <= len(sample):
            raise InputError(f"n_jets={n_jets} was given.", f"The sample has {len(sample)} jets.")
        tensors = tagger.inputs(sample[:n_jets], candidates=chosen["pf"], vertices=chosen["sv"])
    file = path or jets_path(model, chosen, n_jets)
    return write_inputs(file, ({key: tensor[jet] for key, tensor in tensors.items()} for jet in range(n_jets)))


def jets_path(model: str, lengths: Mapping[str, int], n_jets: int = JETS) -> Path:
    """Return where :func:`write_jets` writes jets of these lengths by default."""
    return work_dir() / "inputs" / f"{model}_{n_jets}_jets_{lengths['pf']}_{lengths['sv']}.json"


def write_hits(events: Sequence[Event] | None = None, *, name: str = "FEATURES", path: str | Path | None = None) -> Path:
    """Write the hits of events for the track finder, by default all without pile-up, and return the file in ``work/inputs``.

    Each event keeps its own number of hits; ``name`` is the model's input.
    """
    chosen = load_events() if events is None else list(events)
    file = path or work_dir() / "inputs" / f"{len(chosen)}_events.json"
    return write_inputs(file, ({name: event.features} for event in chosen))


def write_taus(n_taus: int = TAUS, *, path: str | Path | None = None) -> Path:
    """Write taus of the course's sample for DeepTau, their grids filled as CMSSW fills them, and return the file in ``work/inputs``.

    Raises:
        InputError: there are not so many taus.
    """
    from helpers.physics import taus

    sample = taus.read()
    if not 1 <= n_taus <= len(sample):
        raise InputError(f"n_taus={n_taus} was given.", f"The sample has {len(sample)} taus.")
    tensors = taus.tensors(sample.take(range(n_taus)))
    entries = ({name: tensor[tau] for name, tensor in tensors.items()} for tau in range(n_taus))
    return write_inputs(path or taus_path(n_taus), entries)


def taus_path(n_taus: int = TAUS) -> Path:
    """Return where :func:`write_taus` writes so many taus by default."""
    return work_dir() / "inputs" / f"{n_taus}_taus.json"


def write_real(server: Any, model: str, lengths: Mapping[str, int] | None = None) -> Path:
    """Write what the course has for a model, jets, hits or taus, and return the file; an InputError where it has nothing for it."""
    with Client(server) as client:
        names = set(client.signature(model).inputs)
    if names == {"FEATURES"}:
        return write_hits()
    return write_taus() if "input_tau" in names else write_jets(server, model, lengths=lengths)
