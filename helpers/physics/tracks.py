"""Tracks: simulated collisions, tensors for ``ExaTrk``, the truth about edges and tracks, and where the server's time goes.

A track and a particle belong together when more than half of the track's hits are of the particle, and more than half of the
particle's hits are in the track (double majority). So a particle belongs to one track at most.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from helpers.client import Client
from helpers.errors import InputError
from helpers.physics.samples import columns

# The particles that the efficiency is about: enough momentum to cross the detector, enough hits to be found.
_TARGET_MIN_PT_GEV = 0.5
_TARGET_MIN_HITS = 5
# Beyond this |z| particles cross disks instead of cylinders, so they move outwards along z rather than along r.
_BARREL_HALF_LENGTH_M = 0.55
# Momentum in GeV of a particle of unit charge for each metre of its path's radius, in the detector's 2 tesla.
_GEV_PER_METRE = 0.299792458 * 2.0
# A track that is no circle, such as one of two hits in the same place, counts as this narrow.
_SMALLEST_RADIUS_M = 1e-3
# Edges of bins that show what there is to see, in GeV and without unit.
_BINS = {"pt": np.array([0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0]), "eta": np.linspace(-3, 3, 13).round(3)}
# The stages of the ensemble, in the order in which an event passes them.
STAGES = ("ExaTrk_embedding", "ExaTrk_graph", "ExaTrk_filter", "ExaTrk_gnn", "ExaTrk_tracks")
# What an output is called where the next stages take it.
_TAKEN_AS = {"embedding_output": "embedding", "kept_edges": "edge_index"}
# Rounds in which a rate is measured, after one that does not count.
_ROUNDS = 5

# The samples of the course, without pile-up and with.
SAMPLES = {False: "tracks_ttbar.npz", True: "tracks_ttbar_pileup.npz"}
# Mass and width of the detector's line in GeV, and how many pairs of each.
_Z, _UPSILON = (91.19, 2.0, 700), (9.46, 0.15, 200)
_BACKGROUND = 1100

# Columns of a sample, and what says how many entries of each are of an event.
_COUNTED_BY = {
    "n_hits": ("r", "phi", "z", "volume", "layer", "particle"),
    "n_particles": ("pt", "eta", "vertex_r", "pdg", "charge", "collision"),
}


@dataclass(frozen=True, repr=False)
class Event:
    """One collision: the space points that the detector measured (hits), and the particles that they come from.

    Attributes:
        r, phi, z: (n_hits,) where the detector measured something; mm, rad from -pi to pi, mm.
        volume, layer: (n_hits,) part of the detector and layer in it.
        particle: (n_hits,) truth: index of the particle that made the hit.
        pt, eta: (n_particles,) transverse momentum at production in GeV, and pseudorapidity.
        vertex_r: (n_particles,) distance from the beam at which the particle was produced, mm.
        pdg, charge: (n_particles,) particle code, and charge in units of e.
        collision: (n_particles,) 1 for the hard collision, more for pile-up.
    """

    r: NDArray[np.float32]
    phi: NDArray[np.float32]
    z: NDArray[np.float32]
    volume: NDArray[np.uint8]
    layer: NDArray[np.uint8]
    particle: NDArray[np.int32]
    pt: NDArray[np.float32]
    eta: NDArray[np.float32]
    vertex_r: NDArray[np.float32]
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
        return (self.pt > _TARGET_MIN_PT_GEV) & (self.hits_of_particle >= _TARGET_MIN_HITS)

    @property
    def _table(self) -> pd.DataFrame:
        numbers = {"hits": self.n_hits, "particles": self.pt.size, "to be found": int(self.target.sum())}
        return pd.DataFrame([numbers | {"collisions": np.unique(self.collision).size}])

    def __repr__(self) -> str:
        return str(self._table.to_string(index=False))

    def _repr_html_(self) -> str:
        return str(self._table.to_html(index=False))


def load_events(*, pile_up: bool = False, path: str | Path | None = None) -> list[Event]:
    """Read the events that come with the course, or those of another file of the same form.

    Args:
        pile_up: events with about 15 further collisions (5 events) in place of those without (20 events).
        path: another file, as ``training.tracks`` writes it.

    Raises:
        SetupError: the file is missing.
    """
    data = columns(SAMPLES[pile_up], path)
    fields = {name: np.split(data[name], np.cumsum(data[count])[:-1]) for count, names in _COUNTED_BY.items() for name in names}
    return [Event(**{name: parts[index] for name, parts in fields.items()}) for index in range(data["n_hits"].size)]


def true_edges(event: Event) -> NDArray[np.int64]:
    """Return the edges that a perfect track finder would find, from each hit of a particle to its next, as :func:`edges_within` does."""
    return edges_within(event, event.particle)


def edges_within(event: Event, group: ArrayLike) -> NDArray[np.int64]:
    """Return the edges from each hit to the next one outward in the same group.

    Args:
        event: the event.
        group: (n_hits,) a number for each hit, such as its particle or the label of its track; negative ones are in no group.

    Returns:
        (2, n_edges) hit indices, inner hit first, ordered by group.
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
    """Return efficiency and purity of a graph, (2, n_edges) hit indices with the inner hit first.

    Efficiency: the part of the true edges that are in the graph, for particles that should be found. Purity: the part of the graph's
    edges that are true.
    """
    good, inner = is_true(event, edges), np.asarray(edges, np.int64)[0]
    wanted = event.target[event.particle[true_edges(event)[0]]].sum()
    found = (good & event.target[event.particle[inner]]).sum()
    return {
        "edges": good.size,
        "efficiency": float(found / wanted) if wanted else np.nan,
        "purity": float(good.mean()) if good.size else np.nan,
    }


def _numbered(event: Event, labels: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Which hits are on a track, and the number from 0 of the track of each of these.

    Raises:
        InputError: there is not one whole number for each hit.
    """
    of_hit = np.asarray(labels)
    if of_hit.shape != (event.n_hits,) or of_hit.dtype.kind not in "iu":
        raise InputError(
            f"Labels of shape {of_hit.shape} and type {of_hit.dtype} were given for an event of {event.n_hits} hits.",
            "Expected one whole number for each hit, as ExaTrk returns them in LABELS.",
        )
    return of_hit >= 0, np.unique(of_hit[of_hit >= 0], return_inverse=True)[1].reshape(-1)


@dataclass(frozen=True)
class Matching:
    """The tracks of one event, each with its hits and how many of them are of one particle, and which particles have a track.

    A fake has no particle with more than half of its hits; of a duplicate's particle another track has more.
    """

    n_hits: NDArray[np.intp]
    majority: NDArray[np.intp]
    found: NDArray[np.bool_]
    fake: NDArray[np.bool_]
    duplicate: NDArray[np.bool_]


def match(event: Event, labels: ArrayLike) -> Matching:
    """Compare the tracks of one event with its particles; labels are (n_hits,), negative for hits without a track."""
    on_track, track = _numbered(event, labels)
    n_particles = event.pt.size
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


@dataclass(frozen=True)
class Rate:
    """So many out of so many, with an uncertainty.

    The interval is Wilson's for one standard deviation (68 %): it stays between 0 and 1 and is right for few events, too.
    """

    passed: int
    total: int

    @property
    def value(self) -> float:
        """The fraction."""
        return self.passed / self.total if self.total else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end of the interval."""
        n = self.total
        if not n:
            return float("nan"), float("nan")
        centre = (self.passed + 0.5) / (n + 1)
        half = np.sqrt(self.value * (1 - self.value) * n + 0.25) / (n + 1)
        return float(centre - half), float(centre + half)

    @property
    def row(self) -> dict[str, float]:
        """Value, ends of the interval, passed and total, for a table."""
        low, high = self.interval
        return {"value": self.value, "low": low, "high": high, "passed": self.passed, "total": self.total}


@dataclass(frozen=True, repr=False)
class Quality:
    """How good track finding was.

    Attributes:
        efficiency: found among the particles that should be found.
        fake_rate: fakes among all tracks.
        duplicate_rate: duplicates among all tracks.
        purity: hits of a track's own particle among all hits on tracks.
        particles: pt (GeV), eta and found, for each particle that should be found.
        tracks: pt (GeV) and eta as measured, fake and duplicate, for each track.
    """

    efficiency: Rate
    fake_rate: Rate
    duplicate_rate: Rate
    purity: Rate
    particles: dict[str, NDArray[Any]]
    tracks: dict[str, NDArray[Any]]

    @property
    def table(self) -> pd.DataFrame:
        """One row for each quantity: its value, the ends of its 68 % interval, passed and total."""
        rates = {"efficiency": self.efficiency, "fake rate": self.fake_rate, "duplicate rate": self.duplicate_rate}
        return pd.DataFrame([{"quantity": name, **rate.row} for name, rate in {**rates, "hit purity": self.purity}.items()])

    def against(self, variable: str, quantity: str = "efficiency") -> pd.DataFrame:
        """Return a rate in bins.

        Args:
            variable: ``pt`` (GeV) or ``eta``: the particle's own for the efficiency, the measured one of the tracks for the others.
            quantity: ``efficiency``, ``fake rate`` or ``duplicate rate``.

        Returns:
            Rows with the bin's edges, value, lower and upper end of the interval, passed and total.
        """
        source = self.particles if quantity == "efficiency" else self.tracks
        passed = source["found" if quantity == "efficiency" else quantity.removesuffix(" rate")]
        bins = _BINS[variable]
        total, _ = np.histogram(source[variable], bins)
        good, _ = np.histogram(source[variable][passed], bins)
        rates = [Rate(int(passed), int(of)).row for passed, of in zip(good, total, strict=True)]
        return pd.DataFrame({f"{variable}_low": bins[:-1], f"{variable}_high": bins[1:]}).join(pd.DataFrame(rates))

    def __repr__(self) -> str:
        return str(self.table.to_string(index=False, float_format="%.4f"))

    def _repr_html_(self) -> str:
        return str(self.table.to_html(index=False, float_format="%.4f"))


def quality(events: Event | Sequence[Event], labels: Any) -> Quality:
    """Return efficiency, fakes and duplicates of one event or of many together.

    Args:
        events: an event, or a list of them.
        labels: (n_hits,) its labels, or a list with the labels of each event; negative for hits without a track.

    Raises:
        InputError: labels and events do not fit.
    """
    if isinstance(events, Event):
        events, labels = [events], [labels]
    if len(events) != len(labels):
        raise InputError(f"{len(events)} events and {len(labels)} arrays of labels were given.", "Expected one array for each event.")
    of_particles, of_tracks = [], []
    for event, of_hit in zip(events, labels, strict=True):
        found, (pt, eta) = match(event, of_hit), measure(event, of_hit)
        of_particles.append({"pt": event.pt[event.target], "eta": event.eta[event.target], "found": found.found[event.target]})
        each = {"pt": pt, "eta": eta, "fake": found.fake, "duplicate": found.duplicate}
        of_tracks.append({**each, "hits": found.n_hits, "majority": found.majority})
    particles, tracks = _joined(of_particles), _joined(of_tracks)
    n_particles, n_tracks = particles["found"].size, tracks["fake"].size
    return Quality(
        Rate(int(particles["found"].sum()), n_particles),
        Rate(int(tracks["fake"].sum()), n_tracks),
        Rate(int(tracks["duplicate"].sum()), n_tracks),
        Rate(int(tracks["majority"].sum()), int(tracks["hits"].sum())),
        particles,
        tracks,
    )


def _joined(parts: Sequence[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def measure(event: Event, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return pT in GeV and pseudorapidity of each track, (n_tracks,), from a circle through the beam and a straight line along it.

    A quick estimate, not a fit: no material, no resolution, prompt particles only.
    """
    on_track, track = _numbered(event, labels)
    x, y, z, r = (values[on_track].astype(np.float64) / 1000 for values in (event.x, event.y, event.z, event.r))

    def total(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.bincount(track, values), np.float64)

    # Each point of a circle through the beam obeys r^2 = 2 (a x + b y), with (a, b) its centre: least squares for all tracks at once.
    xx, xy, yy, xr, yr = total(x * x), total(x * y), total(y * y), total(x * r * r) / 2, total(y * r * r) / 2
    determinant = np.maximum(xx * yy - xy * xy, 1e-12)
    radius = np.maximum(np.hypot(yy * xr - xy * yr, xx * yr - xy * xr) / determinant, _SMALLEST_RADIUS_M)
    path = 2 * radius[track] * np.arcsin(np.minimum(r / (2 * radius[track]), 1))
    n = np.bincount(track)
    slope = (n * total(path * z) - total(path) * total(z)) / np.maximum(n * total(path * path) - total(path) ** 2, 1e-12)
    return _GEV_PER_METRE * radius, np.arcsinh(slope)


def same_tracks(first: ArrayLike, second: ArrayLike) -> bool:
    """True if two arrays of labels, (n_hits,) of the same hits, say the same, whatever the tracks are called."""
    one, other = (np.asarray(labels) for labels in (first, second))
    if one.shape != other.shape or not np.array_equal(one < 0, other < 0):
        return False
    pairs = np.unique(np.stack([one, other])[:, one >= 0], axis=1)
    return bool(np.unique(pairs[0]).size == np.unique(pairs[1]).size == pairs.shape[1])


def inputs_of_stage(client: Client, stage: str, features: np.ndarray) -> dict[str, np.ndarray]:
    """Return what one of :data:`STAGES` gets for an event's hits, (n_hits, 3), by calling the stages before it in turn."""
    values: dict[str, Any] = {"sp_features": features}
    for name in STAGES[: STAGES.index(stage)]:
        inputs = {tensor["name"]: values[tensor["name"]] for tensor in client.metadata(name)["inputs"]}
        values |= {_TAKEN_AS.get(output, output): array for output, array in client.infer(name, inputs).items()}
    return {tensor["name"]: values[tensor["name"]] for tensor in client.metadata(stage)["inputs"]}


def stage_times(difference: Any) -> pd.DataFrame:
    """Return the mean time of an event in each stage, from the server's own counters: ``scrape(server) - before``.

    Each stage that was used has a row: ``stage``, ``events``, and mean times per event in ms, ``total_ms = queue_ms + infer_ms +
    other_ms``: ``infer`` is the time in the model, ``queue`` the time spent waiting for it, ``other`` moves tensors in and out.

    Raises:
        InputError: no event passed the stages between the two readings.
    """
    seen = {row["model"]: row for row in difference.requests if row["requests"]}
    rows = []
    for stage in (stage for stage in STAGES if stage in seen):
        row = seen[stage]
        total, queue, infer = (row[name] / 1000 for name in ("request_us", "queue_us", "compute_infer_us"))
        times = {"total_ms": total, "queue_ms": queue, "infer_ms": infer, "other_ms": max(total - queue - infer, 0.0)}
        rows.append({"stage": stage, "events": row["requests"], **times})
    if not rows:
        todo = 'Send one in between: client.infer("ExaTrk", ...)'
        raise InputError("No event passed a stage of ExaTrk between the two readings.", "Expected at least one.", todo)
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class EventRate:
    """How fast a server answered, with the half width of the 95 % interval; one rate divided by another is a gain, without a unit."""

    mean: float
    half_width: float
    unit: str = " events/s"

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        return self.mean + self.half_width

    def __truediv__(self, other: EventRate) -> EventRate:
        gain = self.mean / other.mean
        return EventRate(gain, gain * math.hypot(self.half_width / self.mean, other.half_width / other.mean), "")

    def __str__(self) -> str:
        digits = 1 if self.unit else 2
        return f"{self.mean:.{digits}f} ± {self.half_width:.{digits}f}{self.unit}"

    __repr__ = __str__


def events_per_second(client: Client, events: Sequence[Event], at_once: int) -> EventRate:
    """Send events to ``ExaTrk`` again and again, with so many requests under way at once, and take the time."""
    requests = [{"FEATURES": event.features} for event in events]
    rates = []
    for _ in range(_ROUNDS + 1):
        start = time.perf_counter()
        client.infer_many("ExaTrk", requests, max_in_flight=at_once)
        rates.append(len(requests) / (time.perf_counter() - start))
    counted = rates[1:]
    half = stats.t.ppf(0.975, _ROUNDS - 1) * statistics.stdev(counted) / math.sqrt(_ROUNDS)
    return EventRate(statistics.fmean(counted), float(half))


def muon_pairs() -> dict[str, NDArray[np.float32]]:
    """Return 2,000 muon pairs, made up for notebook 02, the same in every call: resonances over a smooth background.

    ``PT`` (GeV), ``ETA`` and ``PHI`` (rad) of the two muons are each of shape (2000, 2).
    """
    generator = np.random.default_rng(seed=2012)
    masses = [generator.normal(mass, width, number) for mass, width, number in (_Z, _UPSILON)]
    mass = generator.permutation(np.concatenate([*masses, 4 + generator.exponential(30, _BACKGROUND)]))
    eta = generator.normal(0, 1, (len(mass), 2)).clip(-2.4, 2.4)
    phi = generator.uniform(-np.pi, np.pi, len(mass))
    # Mostly back to back; the transverse momenta are what the mass makes of the angles.
    phi = np.stack([phi, phi + generator.normal(np.pi, 0.3, len(mass))], axis=1)
    product = mass**2 / (2 * (np.cosh(eta[:, 0] - eta[:, 1]) - np.cos(phi[:, 0] - phi[:, 1])))
    share = generator.lognormal(0, 0.2, len(mass))
    pt = np.sqrt(np.stack([product * share, product / share], axis=1))
    wrapped = (phi + np.pi) % (2 * np.pi) - np.pi
    return {name: values.astype(np.float32) for name, values in (("PT", pt), ("ETA", eta), ("PHI", wrapped))}
