"""Tracks: simulated collisions, tensors for ``ExaTrk``, the truth about edges and tracks, and where the server's time goes.

A track and a particle belong together when more than half of the track's hits are of the particle, and more than half of the
particle's hits are in the track (double majority). So a particle belongs to one track at most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from helpers import paths
from helpers.errors import InputError

# Beyond this |z| particles cross disks instead of cylinders, so they move outwards along z rather than along r.
_BARREL_HALF_LENGTH_M = 0.55
# Edges of bins that show what there is to see, in GeV and without unit.
_BINS = {"pt": np.array([0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0]), "eta": np.linspace(-3, 3, 13).round(3)}
# The stages of the ensemble, in the order in which an event passes them.
STAGES = ("ExaTrk_embedding", "ExaTrk_graph", "ExaTrk_filter", "ExaTrk_gnn", "ExaTrk_tracks")
# The samples of the course, without pile-up and with.
SAMPLES = {False: "tracks_ttbar.npz", True: "tracks_ttbar_pileup.npz"}
# Columns of a sample, and what says how many entries of each are of an event.
_COUNTED_BY = {
    "n_hits": ("r", "phi", "z", "volume", "layer", "particle"),
    "n_particles": ("pt", "eta", "vertex_r", "pdg", "charge", "collision"),
}


@dataclass(frozen=True, repr=False)
class Event:
    """One collision: the space points that the detector measured (hits), and the particles that they come from."""

    # (n_hits,) where the detector measured something, in mm, rad from -pi to pi, mm; in which part of it, and layer of that part.
    r: NDArray[np.float32]
    phi: NDArray[np.float32]
    z: NDArray[np.float32]
    volume: NDArray[np.uint8]
    layer: NDArray[np.uint8]
    # (n_hits,) truth: index of the particle that made the hit.
    particle: NDArray[np.int32]
    # (n_particles,) transverse momentum at production in GeV, pseudorapidity, and distance from the beam at production in mm.
    pt: NDArray[np.float32]
    eta: NDArray[np.float32]
    vertex_r: NDArray[np.float32]
    # (n_particles,) particle code, charge in units of e, and 1 for the hard collision, more for pile-up.
    pdg: NDArray[np.int32]
    charge: NDArray[np.int8]
    collision: NDArray[np.int16]

    @property
    def n_hits(self) -> int:
        """Number of hits."""
        return self.r.size

    @property
    def features(self) -> NDArray[np.float32]:
        """(n_hits, 3) what ``ExaTrk`` takes as ``FEATURES``: r in m, phi / pi, z in m."""
        return np.asarray(np.stack([self.r, self.phi, self.z], axis=1) / np.array([1000.0, np.pi, 1000.0]), np.float32)

    @property
    def x(self) -> NDArray[np.float32]:
        """(n_hits,) horizontal position, mm."""
        return self.r * np.cos(self.phi)

    @property
    def y(self) -> NDArray[np.float32]:
        """(n_hits,) vertical position, mm."""
        return self.r * np.sin(self.phi)

    @property
    def hits_of_particle(self) -> NDArray[np.intp]:
        """(n_particles,) hits that each particle left."""
        return np.bincount(self.particle, minlength=self.pt.size)

    @property
    def target(self) -> NDArray[np.bool_]:
        """(n_particles,) whether a particle should be found: pT above 0.5 GeV and at least 5 hits."""
        return (self.pt > 0.5) & (self.hits_of_particle >= 5)

    def __repr__(self) -> str:
        collisions = np.unique(self.collision).size
        return f"{self.n_hits} hits of {self.pt.size} particles, {self.target.sum()} of them to be found; collisions: {collisions}"


def load_events(*, pile_up: bool = False, path: str | Path | None = None) -> list[Event]:
    """Read the events that come with the course, 20, or 5 with about 15 further collisions; or those of a file of ``training.tracks``."""
    with np.load(path or paths.root() / "notebooks" / "data" / SAMPLES[pile_up]) as stored:
        data = dict(stored)
    fields = {name: np.split(data[name], np.cumsum(data[count])[:-1]) for count, names in _COUNTED_BY.items() for name in names}
    return [Event(**{name: parts[index] for name, parts in fields.items()}) for index in range(data["n_hits"].size)]


def true_edges(event: Event) -> NDArray[np.int64]:
    """Return the edges that a perfect track finder would find, from each hit of a particle to its next."""
    return edges_within(event, event.particle)


def edges_within(event: Event, group: ArrayLike) -> NDArray[np.int64]:
    """Return the edges from each hit to the next one outward in the same group: (2, n_edges) hit indices, inner first, ordered by group.

    A group is a number for each hit, (n_hits,), such as its particle or the label of its track; negative ones are in no group.
    """
    of_hit = np.asarray(group)
    # In single precision and metres, as the server has them, so that both agree on which of two close hits comes first.
    r, phi, z = event.features.T
    order = np.lexsort((z, phi, r + np.maximum(np.abs(z) - np.float32(_BARREL_HALF_LENGTH_M), 0)))
    order = order[np.argsort(of_hit[order], kind="stable")]
    same = (of_hit[order[1:]] == of_hit[order[:-1]]) & (of_hit[order[1:]] >= 0)
    return np.stack([order[:-1][same], order[1:][same]]).astype(np.int64)


def is_true(event: Event, edges: ArrayLike) -> NDArray[np.bool_]:
    """Return which of the edges, (2, n_edges) hit indices with the inner hit first, join a hit of a particle to its next."""
    first, second = np.asarray(edges, np.int64)
    truth = true_edges(event)
    return np.isin(first * event.n_hits + second, truth[0] * event.n_hits + truth[1])


def edge_quality(event: Event, edges: ArrayLike) -> dict[str, float]:
    """Return the efficiency of a graph, (2, n_edges): the part of the true edges of particles to be found that it has; and its purity."""
    good, inner = is_true(event, edges), np.asarray(edges, np.int64)[0]
    wanted = event.target[event.particle[true_edges(event)[0]]].sum()
    found = (good & event.target[event.particle[inner]]).sum()
    efficiency, purity = float(found / wanted) if wanted else np.nan, float(good.mean()) if good.size else np.nan
    return {"edges": good.size, "efficiency": efficiency, "purity": purity}


@dataclass(frozen=True)
class Matching:
    """The tracks of one event, each with its hits and how many of them are of one particle, and which particles have a track."""

    n_hits: NDArray[np.intp]
    majority: NDArray[np.intp]
    found: NDArray[np.bool_]
    # A fake has no particle with more than half of its hits; of a duplicate's particle another track has more.
    fake: NDArray[np.bool_]
    duplicate: NDArray[np.bool_]


def match(event: Event, labels: ArrayLike) -> Matching:
    """Compare the tracks of one event with its particles; labels are (n_hits,), negative for hits without a track."""
    of_hit, n_particles = np.asarray(labels), event.pt.size
    if of_hit.shape != (event.n_hits,) or of_hit.dtype.kind not in "iu":
        given = f"Labels of shape {of_hit.shape} and type {of_hit.dtype} were given for an event of {event.n_hits} hits."
        raise InputError(given, "Expected one whole number for each hit, as ExaTrk returns them in LABELS.")
    on_track = of_hit >= 0
    # Tracks are counted from 0.
    track = np.unique(of_hit[on_track], return_inverse=True)[1].reshape(-1)
    pairs, shared = np.unique(track * n_particles + event.particle[on_track], return_counts=True)
    # For each track the particle with most hits; of equal ones the first.
    order = np.lexsort((pairs, -shared, pairs // n_particles))
    best = order[np.unique(pairs[order] // n_particles, return_index=True)[1]]
    particle, majority, n_hits = pairs[best] % n_particles, shared[best], np.bincount(track)
    fake = 2 * majority <= n_hits
    found = np.zeros(n_particles, dtype=bool)
    found[particle[~fake & (2 * majority > event.hits_of_particle[particle])]] = True
    # For each particle the track with most of its hits; of equal ones the first. The others are duplicates.
    pure = np.flatnonzero(~fake)
    pure = pure[np.lexsort((pure, -majority[pure], particle[pure]))]
    duplicate = ~fake
    duplicate[pure[np.unique(particle[pure], return_index=True)[1]]] = False
    return Matching(n_hits, majority, found, fake, duplicate)


class Rate(NamedTuple):
    """So many out of so many, with the ends of Wilson's interval for one standard deviation (68 %): right for few events, too."""

    value: float
    low: float
    high: float
    passed: int
    total: int

    @classmethod
    def of(cls, passed: int, total: int) -> Rate:
        """Return the fraction and its interval; nothing is known of none."""
        value = passed / total if total else math.nan
        centre = (passed + 0.5) / (total + 1) if total else math.nan
        half = np.sqrt(value * (1 - value) * total + 0.25) / (total + 1)
        return cls(value, float(centre - half), float(centre + half), passed, total)


@dataclass(frozen=True)
class Quality:
    """How good track finding was."""

    # Found among the particles that should be found; fakes and duplicates among all tracks; hits of a track's own particle among all hits.
    efficiency: Rate
    fake_rate: Rate
    duplicate_rate: Rate
    purity: Rate
    # pt (GeV), eta and found, of each particle that should be found.
    particles: pd.DataFrame = field(repr=False)

    @property
    def table(self) -> pd.DataFrame:
        """One row for each quantity: its value, the ends of its 68 % interval, passed and total."""
        rates = pd.DataFrame([self.efficiency, self.fake_rate, self.duplicate_rate, self.purity])
        rates.insert(0, "quantity", ["efficiency", "fake rate", "duplicate rate", "hit purity"])
        return rates

    def against(self, variable: str) -> pd.DataFrame:
        """Return the efficiency in bins of ``pt`` (GeV) or ``eta``: edges, value, ends of the 68 % interval, passed and total."""
        bins, values = _BINS[variable], self.particles[variable]
        total, _ = np.histogram(values, bins)
        good, _ = np.histogram(values[self.particles["found"]], bins)
        rates = [Rate.of(int(passed), int(of)) for passed, of in zip(good, total, strict=True)]
        return pd.DataFrame({f"{variable}_low": bins[:-1], f"{variable}_high": bins[1:]}).join(pd.DataFrame(rates))


def quality(events: Sequence[Event], labels: Sequence[ArrayLike]) -> Quality:
    """Return efficiency, fakes and duplicates of events together, by the labels of each, (n_hits,) and negative without a track."""
    matchings = [match(event, of_hit) for event, of_hit in zip(events, labels, strict=True)]
    both = zip(events, matchings, strict=True)
    targets = [pd.DataFrame({"pt": event.pt, "eta": event.eta, "found": each.found})[event.target] for event, each in both]
    particles = pd.concat(targets, ignore_index=True)
    names = ("fake", "duplicate", "majority", "n_hits")
    fakes, duplicates, majority, hits = (sum(int(getattr(each, name).sum()) for each in matchings) for name in names)
    n_tracks = sum(each.fake.size for each in matchings)
    found = Rate.of(int(particles["found"].sum()), len(particles))
    return Quality(found, Rate.of(fakes, n_tracks), Rate.of(duplicates, n_tracks), Rate.of(majority, hits), particles)


def same_tracks(first: ArrayLike, second: ArrayLike) -> bool:
    """True if two arrays of labels, (n_hits,) of the same hits, say the same, whatever the tracks are called."""
    one, other = (np.asarray(labels) for labels in (first, second))
    if one.shape != other.shape or not np.array_equal(one < 0, other < 0):
        return False
    pairs = np.unique(np.stack([one, other])[:, one >= 0], axis=1)
    return bool(np.unique(pairs[0]).size == np.unique(pairs[1]).size == pairs.shape[1])


def stage_times(difference: Any) -> pd.DataFrame:
    """Return the mean time of an event in each stage, from the server's own counters: ``scrape(server) - before``.

    In ms, ``total_ms = queue_ms + infer_ms + other_ms``: in the model, waiting for it, and to move tensors in and out.
    """
    rows = []
    for row in difference.requests:
        if row["model"] in STAGES and row["requests"]:
            total, queue, infer = (row[name] / 1000 for name in ("request_us", "queue_us", "compute_infer_us"))
            times = {"total_ms": total, "queue_ms": queue, "infer_ms": infer, "other_ms": max(total - queue - infer, 0.0)}
            rows.append({"stage": row["model"], "events": row["requests"], **times})
    if not rows:
        raise InputError("No event passed a stage of ExaTrk between the two readings.", 'Send one: client.infer("ExaTrk", ...)')
    return pd.DataFrame(sorted(rows, key=lambda row: STAGES.index(row["stage"])))


def muon_pairs() -> dict[str, NDArray[np.float32]]:
    """Return 2,000 muon pairs, resonances over a background, the same in every call: PT (GeV), ETA and PHI (rad), each (2000, 2)."""
    generator = np.random.default_rng(seed=2012)
    # Mass and width of a line in GeV, and how many pairs of it: Z and Upsilon.
    masses = [generator.normal(mass, width, number) for mass, width, number in ((91.19, 2.0, 700), (9.46, 0.15, 200))]
    mass = generator.permutation(np.concatenate([*masses, 4 + generator.exponential(30, 1100)]))
    eta = generator.normal(0, 1, (len(mass), 2)).clip(-2.4, 2.4)
    phi = generator.uniform(-np.pi, np.pi, len(mass))
    # Mostly back to back; the transverse momenta are what the mass makes of the angles.
    phi = np.stack([phi, phi + generator.normal(np.pi, 0.3, len(mass))], axis=1)
    product = mass**2 / (2 * (np.cosh(eta[:, 0] - eta[:, 1]) - np.cos(phi[:, 0] - phi[:, 1])))
    share = generator.lognormal(0, 0.2, len(mass))
    pt = np.sqrt(np.stack([product * share, product / share], axis=1))
    inputs = {"PT": pt, "ETA": eta, "PHI": (phi + np.pi) % (2 * np.pi) - np.pi}
    return {name: values.astype(np.float32) for name, values in inputs.items()}
