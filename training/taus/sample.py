"""The shipped sample: taus that training never saw."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from helpers.physics.taus import SAMPLE

from .generate import Columns, join, save

SHIPPED_TAUS = 2_400


def choose(columns: Columns, n_taus: int, seed: int = 7) -> Columns:
    """``n_taus`` taus in random order, the same number of each class."""
    label, counts = columns["label"], columns["n_pfCand"].astype(np.int64)
    rng = np.random.default_rng(seed)
    classes = np.unique(label)
    chosen = rng.permutation(np.concatenate([rng.permutation(np.flatnonzero(label == c))[: n_taus // classes.size] for c in classes]))
    starts = (np.cumsum(counts) - counts)[chosen]
    rows = np.concatenate([np.arange(start, start + count) for start, count in zip(starts, counts[chosen], strict=True)])
    result = {name: values[rows if values.size == counts.sum() else chosen] for name, values in columns.items()}
    result["event"] = np.unique(result["event"], return_inverse=True)[1].astype(np.int32)
    return result


def ship(output: Path, destination: Path, n_taus: int = SHIPPED_TAUS) -> Path:
    """Write the shipped sample from its generated shards.

    Args:
        output: Root of the working folder.
        destination: Folder of the file.
        n_taus: Taus to write.
    """
    shards = []
    for path in sorted((output / "ship").glob("[!.]*.npz")):
        with np.load(path) as stored:
            shards.append({name: stored[name] for name in stored.files})
    path = destination / SAMPLE
    save(choose(join(shards), n_taus), path)
    return path
