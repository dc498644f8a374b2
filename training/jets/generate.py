"""Run Pythia, the detector and the jet finder; write one file per shard.

Typical use::

    python -m training.jets generate ak4 --events 100000 --workers 2
"""

from __future__ import annotations

import multiprocessing
import os
from functools import partial
from pathlib import Path

import awkward as ak
import numpy as np
import pythia8mc
from tqdm import tqdm

from . import clustering, constituents, detector, truth
from .dataset import JetTable
from .features import TAGGERS
from .pause import wait_while_paused
from .processes import JET_MAX_ABS_ETA, JET_PT_RANGE_GEV, Process, Shard, plan

BATCH_EVENTS = 500
"""Events handled at once: enough to hide Python's overhead, little memory."""
MATCH_RADIUS = {"ak4": 0.4, "ak8": 0.8}


def start_pythia(process: Process, seed: int) -> pythia8mc.Pythia:
    """A Pythia that is ready to generate."""
    pythia = pythia8mc.Pythia("", False)
    for setting in (*process.pythia_settings(), "Random:setSeed=on", f"Random:seed={seed}"):
        if not pythia.readString(setting):
            raise ValueError(f"Pythia does not know the setting {setting!r} of process {process.name!r}")
    if not pythia.init():
        raise RuntimeError(f"Pythia could not start process {process.name!r}")
    return pythia


def read_record(batch: ak.Array) -> truth.Record:
    """Flatten a batch of Pythia's events."""
    particles = batch.prt
    counts = ak.to_numpy(ak.num(particles))
    start = np.repeat(np.cumsum(counts) - counts, counts)

    def flat(values: ak.Array) -> np.ndarray:
        return ak.to_numpy(ak.fill_none(ak.flatten(values), 0), allow_missing=False)

    first, last = flat(particles.daughter1), flat(particles.daughter2)
    last = np.where(last > 0, last, first)
    return truth.Record(
        event=np.repeat(np.arange(counts.size), counts),
        pdg=flat(particles.id).astype(np.int64),
        status=flat(particles.status).astype(np.int64),
        mother=flat(particles.mother1) + start,
        daughter=np.stack([first + start, last + start], axis=1),
        momentum=np.stack([flat(particles.p[k]) for k in ("px", "py", "pz", "e")], axis=1),
        vertex_mm=np.stack([flat(particles.vProd[k]) for k in ("px", "py", "pz")], axis=1),
    )


def visible_particles(record: truth.Record, pythia: pythia8mc.Pythia) -> detector.Particles:
    """Stable particles that a detector can see."""
    pt = np.hypot(record.momentum[:, 0], record.momentum[:, 1])
    seen = (record.status > 0) & ~np.isin(np.abs(record.pdg), detector.INVISIBLE)
    seen &= (np.abs(record.momentum[:, 2]) < pt * np.sinh(3.0)) & (pt > 0.2)
    pdg = record.pdg[seen]
    kinds, which = np.unique(pdg, return_inverse=True)
    charge = np.array([pythia.particleData.charge(int(k)) for k in kinds])[which]
    return detector.Particles(record.event[seen], pdg, charge, record.momentum[seen], record.vertex_mm[seen] / 10.0)


def label_jets(process: Process, jets: clustering.Jets, record: truth.Record) -> np.ndarray:
    """Class index per jet, -1 for jets to drop."""
    radius = MATCH_RADIUS[process.tagger]
    if process.resonances:
        found = truth.resonances(record, process.resonances)
        match = truth.nearest(jets.event, jets.eta, jets.phi, found.event, found.eta, found.phi, radius)
        return truth.label_resonance(jets.eta, jets.phi, match, found, TAGGERS[process.tagger].radius)
    if process.tagger == "ak8":
        return truth.label_qcd(jets.n_b, jets.n_c)
    parton = truth.parton_flavour(record, jets.event, jets.eta, jets.phi, radius)
    return truth.label_ak4(jets.n_b, jets.n_c, parton, process.pileup)


def make_jets(shard: Shard, batch: ak.Array, pythia, rng: np.random.Generator, first_event: int) -> JetTable:
    """From Pythia's events to jets with features and labels."""
    process, tagger = shard.process, TAGGERS[shard.process.tagger]
    n_events = len(batch)
    record = read_record(batch)
    candidates = detector.emulate(visible_particles(record, pythia), n_events, rng, pileup=process.pileup)
    heavy = [truth.last_heavy_hadrons(record, quark) for quark in (5, 4)]
    which = np.concatenate(heavy)
    flavour = np.repeat([5, 4], [h.size for h in heavy])
    jets = clustering.cluster(
        candidates,
        (record.event[which], record.momentum[which], flavour),
        tagger.radius,
        JET_PT_RANGE_GEV[tagger.key],
        JET_MAX_ABS_ETA[tagger.key],
        n_events,
    )
    label = label_jets(process, jets, record)
    jets, label = clustering.select(jets, label >= 0), label[label >= 0]
    index, counts = constituents.sort_and_truncate(jets, candidates["pt"], tagger.max_candidates)
    table, helices, significance = constituents.candidate_columns(jets, candidates, index, counts)
    vertices, n_vertices = constituents.vertex_columns(jets, helices, significance, counts, tagger.max_vertices)
    event = (shard.seed % 500_000_000) * 100_000 + first_event + jets.event
    return JetTable(
        candidates=table,
        n_candidates=counts.astype(np.int32),
        vertices=vertices,
        n_vertices=n_vertices.astype(np.int32),
        pt=jets.pt.astype(np.float32),
        eta=jets.eta.astype(np.float32),
        phi=jets.phi.astype(np.float32),
        mass=jets.mass.astype(np.float32),
        label=label.astype(np.int32),
        n_b=jets.n_b.astype(np.int32),
        n_c=jets.n_c.astype(np.int32),
        event=event.astype(np.int64),
        process=np.full(label.size, process.index, np.int32),
    )


def run_shard(shard: Shard, output: Path, emulations: int = 1) -> Path:
    """Generate one shard unless its file exists.

    Args:
        shard: What to generate.
        output: Root of the working folder.
        emulations: How often the detector looks at each event: it is a tenth of the price
            of an event, and its noise is what a tagger must not learn by heart.

    Returns:
        The file of the first emulation; others lie beside it with a suffix.
    """
    path = output / shard.process.tagger / shard.purpose / shard.file_name
    if path.exists():
        return path
    pythia = start_pythia(shard.process, shard.seed)
    generators = [np.random.default_rng([shard.seed, i] if i else shard.seed) for i in range(emulations)]
    tables: list[list[JetTable]] = [[] for _ in generators]
    done = 0
    while done < shard.events:
        wait_while_paused(output)
        size = min(BATCH_EVENTS, shard.events - done)
        batch = pythia.nextBatch(size)
        for rng, collected in zip(generators, tables, strict=True):
            collected.append(make_jets(shard, batch, pythia, rng, done))
        done += size
    for i, collected in reversed(list(enumerate(tables))):
        JetTable.concatenate(collected).save(path.with_stem(f"{path.stem}_again{i}") if i else path)
    return path


def generate(tagger: str, events: int, output: Path, workers: int, purpose: str = "train", emulations: int = 1) -> list[Path]:
    """Generate all shards, in parallel processes, with a progress bar. Resumes after a kill.

    Args:
        tagger: ``"ak4"`` or ``"ak8"``.
        events: Events over all processes.
        output: Root of the working folder.
        workers: Processes to use; each runs its own Pythia.
        purpose: ``"train"`` or ``"ship"``: seeds apart.
        emulations: How often the detector looks at each event.
    """
    shards = plan(tagger, events, purpose)
    run = partial(run_shard, output=output, emulations=emulations)
    progress = partial(tqdm, total=len(shards), desc=f"generate {tagger}", unit="shard", mininterval=5)
    if workers <= 1:
        return [run(shard) for shard in progress(shards)]
    # "spawn", because a forked copy of the compiled libraries' threads may hang.
    with multiprocessing.get_context("spawn").Pool(workers, maxtasksperchild=8) as pool:
        return list(progress(pool.imap(run, shards)))


def default_workers() -> int:
    """One process per core that this process may use."""
    return len(os.sched_getaffinity(0))
