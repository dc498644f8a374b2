"""Run Pythia, the detector and the tau reconstruction; write one file per shard.

Typical use::

    python -m training.taus generate --events 100000 --workers 2
"""

from __future__ import annotations

import multiprocessing
import os
from functools import partial
from pathlib import Path

import awkward as ak
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training.jets import detector
from training.jets.generate import read_record, start_pythia, visible_particles
from training.jets.pause import wait_while_paused

from . import reconstruct, truth
from .features import inputs
from .processes import Shard, plan

BATCH_EVENTS = 250
Columns = dict[str, NDArray]


def make_taus(shard: Shard, batch: ak.Array, pythia, rng: np.random.Generator, first_event: int) -> Columns:
    """From Pythia's events to the columns of a file of taus (see `helpers.physics.taus.read`)."""
    n_events = len(batch)
    record = read_record(batch)
    candidates = detector.emulate(visible_particles(record, pythia), n_events, rng)
    tau, lead = reconstruct.reconstruct(candidates, n_events)
    label = truth.label(record, tau["event"], tau["tau_eta"], tau["tau_phi"])
    known = label >= 0
    tau = {name: column[known] for name, column in tau.items()}
    columns, counts = reconstruct.around(tau, lead[known], candidates, n_events)
    filled = {name for name, transform in inputs()["input_tau"].items() if transform is not None}
    return {
        "event": ((shard.seed % 500_000_000) * 10_000 + first_event + tau["event"]).astype(np.int64),
        "process": np.full(counts.size, shard.process.index, np.int8),
        "label": label[known].astype(np.int8),
        "n_pfCand": counts.astype(np.int16),
        **{name: column.astype(np.float32) for name, column in tau.items() if name in filled},
        "pfCand_type": columns.pop("type").astype(np.int8),
        # Half precision is finer than the detector.
        **{f"pfCand_{name}": np.clip(column, -60000, 60000).astype(np.float16) for name, column in columns.items()},
    }


def join(parts: list[Columns]) -> Columns:
    """All taus of several parts."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def save(columns: Columns, path: Path) -> None:
    """Write atomically: a file that exists is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial_path = path.with_name(f".{path.name}.{os.getpid()}.npz")
    np.savez_compressed(partial_path, **columns)
    partial_path.replace(path)


def run_shard(shard: Shard, output: Path) -> Path:
    """Generate one shard unless its file exists."""
    path = output / shard.purpose / shard.file_name
    if path.exists():
        return path
    pythia = start_pythia(shard.process, shard.seed)
    rng = np.random.default_rng(shard.seed)
    parts: list[Columns] = []
    for done in range(0, shard.events, BATCH_EVENTS):
        wait_while_paused(output)
        parts.append(make_taus(shard, pythia.nextBatch(min(BATCH_EVENTS, shard.events - done)), pythia, rng, done))
    save(join(parts), path)
    return path


def generate(events: int, output: Path, workers: int, purpose: str = "train") -> list[Path]:
    """Generate all shards, in parallel processes, with a progress bar. Resumes after a kill.

    Args:
        events: Events over all processes.
        output: Root of the working folder.
        workers: Processes to use; each runs its own Pythia.
        purpose: ``"train"`` or ``"ship"``: seeds apart.
    """
    shards = plan(events, purpose)
    run = partial(run_shard, output=output)
    progress = partial(tqdm, total=len(shards), desc=f"generate {purpose}", unit="shard", mininterval=5)
    if workers <= 1:
        return [run(shard) for shard in progress(shards)]
    # "spawn", because a forked copy of the compiled libraries' threads may hang.
    with multiprocessing.get_context("spawn").Pool(workers, maxtasksperchild=8) as pool:
        return list(progress(pool.imap(run, shards)))
