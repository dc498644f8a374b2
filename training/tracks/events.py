"""Events on disk: flat arrays, one entry for each hit, in compressed shards. The event itself is that of ``helpers.physics.tracks``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from helpers.physics.tracks import Event, load_events

HIT_COLUMNS = {"r": "f4", "phi": "f4", "z": "f4", "volume": "u1", "layer": "u1", "particle": "i4"}
PARTICLE_COLUMNS = {"pt": "f4", "eta": "f4", "vertex_r": "f4", "pdg": "i4", "charge": "i1", "collision": "i2"}


def save(path: Path, events: Sequence[Event]) -> None:
    """Write a shard, all at once or not at all."""
    columns = HIT_COLUMNS | PARTICLE_COLUMNS
    arrays = {name: np.concatenate([getattr(event, name) for event in events]).astype(kind) for name, kind in columns.items()}
    arrays["n_hits"] = np.array([event.n_hits for event in events], np.int32)
    arrays["n_particles"] = np.array([event.pt.size for event in events], np.int32)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez_compressed(part, **arrays)
    os.replace(part, path)


def load_sample(folder: Path) -> Iterator[Event]:
    """All events of a sample, in order."""
    for path in sorted(folder.glob("[0-9][0-9][0-9][0-9].npz")):
        yield from load_events(path=path)
