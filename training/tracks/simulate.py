"""Top-quark pairs with pile-up from Pythia 8, through the generic detector with ACTS Fatras.

ACTS reads particles and writes hits as CSV, so each shard passes through a temporary folder. A shard depends on its seed
only, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from helpers.physics.tracks import Event

from . import detector, settings
from .events import save
from .pause import wait_while_paused

log = logging.getLogger(__name__)

HEADER = "particle_id_pv,particle_id_sv,particle_id_part,particle_id_gen,particle_id_subpart,particle_type,process,vx,vy,vz,vt,px,py,pz,m,q"
ID_COLUMNS = 5
"""The first columns of both tables: together they name a particle."""
VISIBLE_NEUTRAL = 22
"""Photons are simulated, too: they convert in the material."""
HARD = ("Top:gg2ttbar = on", "Top:qqbar2ttbar = on")
SOFT = ("SoftQCD:inelastic = on",)


def simulate(sample: settings.Sample, folder: Path, events_per_shard: int = settings.EVENTS_PER_SHARD) -> None:
    """Make the shards of a sample that are not there yet.

    Args:
        sample: What to make.
        folder: Where the shards go.
        events_per_shard: Events in each shard but the last.
    """
    starts = range(0, sample.events, events_per_shard)
    missing = [
        (i, min(events_per_shard, sample.events - start)) for i, start in enumerate(starts) if not (folder / f"{i:04d}.npz").exists()
    ]
    if not missing:
        return
    simulation = Simulation()
    for index, events in missing:
        wait_while_paused()
        start = time.perf_counter()
        save(folder / f"{index:04d}.npz", simulation.shard(events, sample.pile_up, sample.seed + index))
        log.info(
            "%s: shard %d of %d, %.0f ms per event", sample.name, index + 1, len(starts), 1000 * (time.perf_counter() - start) / events
        )


class Simulation:
    """Pythia and ACTS, set up once."""

    def __init__(self) -> None:
        import acts
        import acts.examples

        acts.logging.setFailureThreshold(acts.logging.FATAL)
        self.detector = acts.examples.GenericDetector()
        self.geometry = self.detector.trackingGeometry()
        self.field = acts.ConstantBField(acts.Vector3(0, 0, settings.FIELD_T * acts.UnitConstants.T))

    def shard(self, events: int, pile_up: float, seed: int) -> list[Event]:
        """Simulate some events.

        Args:
            events: How many.
            pile_up: Mean number of soft collisions in each.
            seed: Seed of everything random in them.
        """
        generator = np.random.default_rng(seed)
        with tempfile.TemporaryDirectory(prefix="tracks-") as name:
            folder = Path(name)
            _generate(folder, events, pile_up, seed, generator)
            self._propagate(folder, events, seed)
            return [_read(folder, event, generator) for event in range(events)]

    def _propagate(self, folder: Path, events: int, seed: int) -> None:
        import acts
        import acts.examples
        from acts.examples.simulation import addFatras

        quiet = acts.logging.WARNING
        # Fatras raises floating-point exceptions that it handles itself; watching them would end the run.
        sequencer = acts.examples.Sequencer(events=events, numThreads=1, trackFpes=False, logLevel=quiet)
        particles = "particles_generated_selected"
        sequencer.addReader(
            acts.examples.CsvParticleReader(level=quiet, inputDir=str(folder), inputStem="particles", outputParticles=particles)
        )
        random = acts.examples.RandomNumbers(seed=seed)
        momentum = settings.MIN_MOMENTUM_GEV * acts.UnitConstants.GeV
        addFatras(
            sequencer, self.geometry, self.field, random, pMin=momentum, inputParticles=particles, outputDirCsv=folder, logLevel=quiet
        )
        sequencer.run()


def _generate(folder: Path, events: int, pile_up: float, seed: int, generator: np.random.Generator) -> None:
    hard = _pythia(HARD, 2 * seed + 1)
    soft = _pythia(SOFT, 2 * seed + 2) if pile_up else None
    for event in range(events):
        rows = []
        for collision in range(1, 2 + generator.poisson(pile_up)):
            pythia = hard if collision == 1 else soft
            while not pythia.next():
                pass
            rows += _rows(pythia.event, collision, generator.normal(0, settings.BEAM_SPOT_MM))
        (folder / f"event{event:09d}-particles.csv").write_text("\n".join([HEADER, *rows]) + "\n")


def _pythia(process: tuple[str, ...], seed: int) -> Any:
    import pythia8mc

    pythia = pythia8mc.Pythia("", False)
    # Neutral kaons and hyperons decay inside the tracker, as in nature.
    decays = ("ParticleDecays:limitCylinder = on", "ParticleDecays:xyMax = 300", "ParticleDecays:zMax = 800")
    beam = (f"Beams:eCM = {settings.CENTRE_OF_MASS_GEV}", "Random:setSeed = on", f"Random:seed = {seed}", "Print:quiet = on")
    for line in (*process, *decays, *beam):
        if not pythia.readString(line):
            raise ValueError(f"Pythia does not know {line!r}")
    if not pythia.init():
        raise RuntimeError("Pythia could not be started")
    return pythia


def _rows(event: Any, collision: int, vertex: np.ndarray) -> Iterator[str]:
    """Lines of the CSV file for the visible particles of one collision."""
    number = 0
    for p in event:
        if not p.isFinal() or not (p.isCharged() or p.id() == VISIBLE_NEUTRAL):
            continue
        if p.pT() < settings.MIN_PT_GEV or abs(p.eta()) > settings.MAX_ABS_ETA:
            continue
        number += 1
        place = f"{p.xProd() + vertex[0]:.6f},{p.yProd() + vertex[1]:.6f},{p.zProd() + vertex[2]:.6f}"
        yield f"{collision},0,{number},0,0,{p.id()},0,{place},0,{p.px():.7g},{p.py():.7g},{p.pz():.7g},{p.m():.7g},{p.charge():.0f}"


def _read(folder: Path, event: int, generator: np.random.Generator) -> Event:
    particles = _table(folder / f"event{event:09d}-particles_simulated.csv")
    hits = _table(folder / f"event{event:09d}-hits.csv")
    # Numbers that name a particle to indices of those that left a hit.
    known, index = np.unique(_identity(hits), return_inverse=True)
    names = _identity(particles)
    order = np.argsort(names)
    rows = order[np.searchsorted(names, known, sorter=order)]
    if not np.array_equal(names[rows], known):
        raise ValueError("a hit belongs to no particle")
    geometry = hits["geometry_id"].astype(np.uint64)
    volume, layer = (geometry >> np.uint64(56)).astype(np.uint8), ((geometry >> np.uint64(36)) & np.uint64(0xFFF)).astype(np.uint8)
    p = {name: particles[name][rows] for name in ("px", "py", "pz", "vx", "vy", "q", "particle_type", "particle_id_pv")}
    pt = np.hypot(p["px"], p["py"])
    r, phi, z = detector.smear(hits["tx"], hits["ty"], hits["tz"], volume, generator)
    return Event(
        r, phi, z, volume, layer, index.astype(np.int32),
        pt, np.arcsinh(p["pz"] / pt), np.hypot(p["vx"], p["vy"]),
        p["particle_type"].astype(np.int32), p["q"].astype(np.int8), p["particle_id_pv"].astype(np.int16),
    )  # fmt: skip


def _table(path: Path) -> dict[str, np.ndarray]:
    """A CSV file by columns; whole numbers of 64 bits stay exact."""
    with path.open() as file:
        names = file.readline().strip().split(",")
        kinds = [np.uint64 if name == "geometry_id" else np.float64 for name in names]
        table = np.loadtxt(file, delimiter=",", dtype=list(zip(names, kinds, strict=True)), ndmin=1)
    return {name: table[name] for name in names}


def _identity(table: dict[str, np.ndarray]) -> np.ndarray:
    columns = list(table.values())[:ID_COLUMNS]
    identity = np.zeros(columns[0].size, np.int64)
    for column in columns:
        identity = identity * 4096 + column.astype(np.int64)
    return identity
