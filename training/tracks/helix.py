"""Events from a few lines of NumPy where ACTS is not to be had: helices through cylinders and disks like those of the generic detector.

Good for tests and for load; not good enough for figures in a report. No secondaries, no energy loss, no overlaps of sensors.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from helpers.physics.tracks import Event

from . import detector, settings
from .events import save

CYLINDERS = (
    (8, 500.0, (32.0, 72.0, 116.0, 172.0)),
    (13, 1100.0, (260.0, 360.0, 500.0, 660.0)),
    (17, 1100.0, (820.0, 1020.0)),
)
"""Volume, half length in mm, radii in mm."""
DISKS = (
    (7, 9, (30.0, 176.0), (600.0, 700.0, 820.0, 960.0, 1120.0, 1320.0, 1500.0)),
    (12, 14, (240.0, 700.0), (1220.0, 1500.0, 1800.0, 2150.0, 2550.0, 2950.0)),
    (16, 18, (755.0, 1020.0), (1220.0, 1500.0, 1800.0, 2150.0, 2550.0, 2950.0)),
)
"""Volumes at negative and positive z, inner and outer radius in mm, distances from the centre in mm."""
EFFICIENCY = 0.98
SCATTERING_GEV = 0.0136 * np.sqrt(0.02)
"""Width of the angle at each layer times the momentum: layers of 2 % of a radiation length."""
TRACKS_PER_COLLISION = {True: 110, False: 40}
"""Mean number in the hard collision, and in each of pile-up."""
PT_POWER = 2.4
"""Transverse momenta fall with this power."""


def simulate(sample: settings.Sample, folder: Path, events_per_shard: int = settings.EVENTS_PER_SHARD) -> None:
    """Make the shards of a sample that are not there yet, as `simulate.simulate` does."""
    for index, start in enumerate(range(0, sample.events, events_per_shard)):
        path = folder / f"{index:04d}.npz"
        if not path.exists():
            generator = np.random.default_rng(sample.seed + index)
            save(path, [collision(generator, sample.pile_up) for _ in range(min(events_per_shard, sample.events - start))])


def collision(generator: np.random.Generator, pile_up: float = 0.0) -> Event:
    """One event.

    Args:
        generator: Source of the random numbers.
        pile_up: Mean number of further collisions.
    """
    counts = [generator.poisson(TRACKS_PER_COLLISION[index == 0]) for index in range(1 + generator.poisson(pile_up))]
    number = np.repeat(np.arange(1, len(counts) + 1), counts)
    z0 = np.repeat(generator.normal(0, settings.BEAM_SPOT_MM[2], len(counts)), counts)
    n = number.size
    pt = np.minimum(0.15 * (1 - generator.random(n)) ** (-1 / PT_POWER) + generator.exponential(np.where(number == 1, 0.6, 0.2)), 50.0)
    eta, phi = generator.uniform(-settings.MAX_ABS_ETA, settings.MAX_ABS_ETA, n), generator.uniform(-np.pi, np.pi, n)
    charge = generator.choice((-1, 1), n)
    rows = np.concatenate(list(_crossings(generator, pt, eta, phi, charge, z0)), axis=1)
    rows = rows[:, generator.random(rows.shape[1]) < EFFICIENCY]
    track, x, y, z, volume, layer = rows
    seen, particle = np.unique(track.astype(int), return_inverse=True)
    r, measured_phi, measured_z = detector.smear(x, y, z, volume.astype(int), generator)
    return Event(
        r, measured_phi, measured_z, volume.astype(np.uint8), layer.astype(np.uint8), particle.reshape(-1).astype(np.int32),
        pt[seen].astype(np.float32), eta[seen].astype(np.float32), np.zeros(seen.size, np.float32),
        (211 * charge[seen]).astype(np.int32), charge[seen].astype(np.int8), number[seen].astype(np.int16),
    )  # fmt: skip


def _crossings(
    generator: np.random.Generator, pt: NDArray, eta: NDArray, phi: NDArray, charge: NDArray, z0: NDArray
) -> Iterator[NDArray[np.float64]]:
    """For each layer the (6, n) hits on it: track, x, y, z, volume, layer."""
    diameter = 2000 * pt / (0.299792458 * settings.FIELD_T)
    slope = np.sinh(eta)
    # One kick for each track, growing on the way: enough for hits to leave the perfect helix as in real material.
    kick = generator.normal(0, SCATTERING_GEV / (pt * np.cosh(eta)), (2, pt.size))
    for volume, half_length, radii in CYLINDERS:
        for layer, radius in enumerate(radii, start=1):
            turn = np.arcsin(np.minimum(radius / diameter, 1))
            z = z0 + diameter * turn * slope + kick[1] * radius
            hit = np.flatnonzero((radius < diameter) & (np.abs(z) < half_length))
            yield _rows(hit, np.full(hit.size, radius), (phi - charge * turn + kick[0])[hit], z[hit], volume, layer)
    for low_volume, high_volume, (inner, outer), distances in DISKS:
        for layer, distance in enumerate(distances, start=1):
            for volume, z in ((low_volume, -distance), (high_volume, distance)):
                with np.errstate(divide="ignore", over="ignore"):
                    turn = (z - z0) / (slope * diameter)
                forward = (turn > 0) & (turn < np.pi / 2)
                radius = diameter * np.sin(np.where(forward, turn, 0)) + kick[1] * abs(z)
                hit = np.flatnonzero(forward & (radius > inner) & (radius < outer))
                yield _rows(hit, radius[hit], (phi - charge * turn + kick[0])[hit], np.full(hit.size, z), volume, layer)


def _rows(track: NDArray, r: NDArray, phi: NDArray, z: NDArray, volume: int, layer: int) -> NDArray[np.float64]:
    return np.stack([track, r * np.cos(phi), r * np.sin(phi), z, np.full(r.size, volume), np.full(r.size, layer)]).astype(np.float64)
