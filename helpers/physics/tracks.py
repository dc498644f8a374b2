"""Tracks: simulated collisions, tensors for ``ExaTrk``, the truth about edges and tracks, and where the server's time goes.

A track and a particle belong together when more than half of the track's hits are of the particle, and more than half of the
particle's hits are in the track (double majority). So a particle belongs to one track at most.

Typical use::

    from helpers import tracks
    event = tracks.load_events()[0]
    labels = client.infer("ExaTrk", FEATURES=event.features)["LABELS"]     # one for each hit, -1 for hits without a track
    tracks.quality(event, labels)                                           # efficiency, fakes, duplicates
    tracks.quality(events, all_labels).against("pt")                        # the same in bins of the transverse momentum
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

from helpers import paths
from helpers.client import Client
from helpers.errors import InputError, SetupError

# What ExaTrk takes for one hit: r, phi and z, divided by these (mm, rad, mm).
FEATURE_SCALES = (1000.0, np.pi, 1000.0)
# The particles that the efficiency is about: enough momentum to cross the detector, enough hits to be found (GeV, hits).
TARGET_MIN_PT_GEV = 0.5
TARGET_MIN_HITS = 5
# Beyond this |z|, in mm, particles cross disks instead of cylinders, so they move outwards along z rather than along r.
BARREL_HALF_LENGTH_MM = 550.0
# The field of the simulated detector, in tesla.
FIELD_T = 2.0
# Momentum of a particle of unit charge in GeV for each tesla and metre of its path's radius.
_GEV_PER_TESLA_METRE = 0.299792458
# A track that is no circle, such as one of two hits in the same place, counts as this narrow.
_SMALLEST_RADIUS_M = 1e-3
# Bins that show what there is to see; edges in GeV, and without unit.
BINS = {"pt": (0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0), "eta": tuple(np.linspace(-3, 3, 13).round(3))}
QUANTITIES = ("efficiency", "fake rate", "duplicate rate")
# The stages of the ensemble, in the order in which an event passes them.
STAGES = ("ExaTrk_embedding", "ExaTrk_graph", "ExaTrk_filter", "ExaTrk_gnn", "ExaTrk_tracks")
# What an output is called where the next stages take it.
_TAKEN_AS = {"embedding_output": "embedding", "kept_edges": "edge_index"}

SAMPLES = {False: "tracks_ttbar.npz", True: "tracks_ttbar_pileup.npz"}
# Mass and width of the detector's line in GeV, and how many pairs of each.
_Z, _UPSILON = (91.19, 2.0, 700), (9.46, 0.15, 200)
_BACKGROUND = 1100

_HITS = ("r", "phi", "z", "volume", "layer", "particle")
_PARTICLES = ("pt", "eta", "vertex_r", "pdg", "charge", "collision")


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
        return features(self.r, self.phi, self.z)

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
        return (self.pt > TARGET_MIN_PT_GEV) & (self.hits_of_particle >= TARGET_MIN_HITS)

    def summary(self) -> dict[str, Any]:
        """Return the event in numbers."""
        collisions = np.unique(self.collision).size
        return {"hits": self.n_hits, "particles": self.pt.size, "to be found": int(self.target.sum()), "collisions": collisions}

    def __repr__(self) -> str:
        return str(pd.DataFrame([self.summary()]).to_string(index=False))

    def _repr_html_(self) -> str:
        return str(pd.DataFrame([self.summary()]).to_html(index=False))


def features(r: ArrayLike, phi: ArrayLike, z: ArrayLike) -> NDArray[np.float32]:
    """Return positions of hits as ``ExaTrk`` takes them.

    Args:
        r: (n_hits,) distance from the beam, mm.
        phi: (n_hits,) azimuth, rad, from -pi to pi.
        z: (n_hits,) position along the beam, mm.

    Returns:
        (n_hits, 3) r in m, phi / pi, z in m.

    Raises:
        InputError: the three have different lengths.
    """
    columns = [np.asarray(column, dtype=np.float64).reshape(-1) for column in (r, phi, z)]
    if len({column.size for column in columns}) != 1:
        raise InputError(
            f"r, phi and z have {', '.join(str(column.size) for column in columns)} entries.", "Expected one of each for each hit."
        )
    return np.stack([column / scale for column, scale in zip(columns, FEATURE_SCALES, strict=True)], axis=1).astype(np.float32)


def load_events(*, pile_up: bool = False, path: str | Path | None = None) -> list[Event]:
    """Read the events that come with the course, or those of another file of the same form.

    Args:
        pile_up: events with about 15 further collisions (5 events) in place of those without (20 events).
        path: another file, as ``training.tracks`` writes it.

    Raises:
        SetupError: the file is missing, or is none of events.
    """
    file = Path(path) if path else paths.root() / "notebooks" / "data" / SAMPLES[pile_up]
    try:
        with np.load(file) as stored:
            data = {name: stored[name] for name in stored.files}
        ends = {name: np.cumsum(data[name])[:-1] for name in ("n_hits", "n_particles")}
        columns = {name: np.split(data[name], ends["n_hits" if name in _HITS else "n_particles"]) for name in _HITS + _PARTICLES}
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise SetupError(
            f"Events cannot be read from {file} ({type(error).__name__}: {error}).",
            "Expected a file such as notebooks/data/tracks_ttbar.npz.",
            "Type: git checkout -- notebooks/data",
        ) from error
    return [Event(**{name: parts[index] for name, parts in columns.items()}) for index in range(data["n_hits"].size)]


def true_edges(event: Event) -> NDArray[np.int64]:
    """Return the edges that a perfect track finder would find: from each hit of a particle to its next.

    Returns:
        (2, n_edges) hit indices, inner hit first.
    """
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
    order = np.lexsort((z, phi, r + np.maximum(np.abs(z) - np.float32(BARREL_HALF_LENGTH_MM / 1000), 0)))
    order = order[np.argsort(of_hit[order], kind="stable")]
    same = (of_hit[order[1:]] == of_hit[order[:-1]]) & (of_hit[order[1:]] >= 0)
    return np.stack([order[:-1][same], order[1:][same]]).astype(np.int64)


def is_true(event: Event, edges: ArrayLike) -> NDArray[np.bool_]:
    """Return which edges join a hit of a particle to its next.

    Args:
        event: the event.
        edges: (2, n_edges) hit indices, inner hit first, as ``ExaTrk_graph`` returns them.
    """
    edges = _edges(event, edges)
    truth = true_edges(event)
    return np.isin(edges[0] * event.n_hits + edges[1], truth[0] * event.n_hits + truth[1])


def edge_quality(event: Event, edges: ArrayLike) -> dict[str, float]:
    """Return efficiency and purity of a graph.

    Efficiency: the part of the true edges that are in the graph, for particles that should be found. Purity: the part of the graph's
    edges that are true.

    Args:
        event: the event.
        edges: (2, n_edges) hit indices, inner hit first.
    """
    edges = _edges(event, edges)
    good = is_true(event, edges)
    wanted = event.target[event.particle[true_edges(event)[0]]].sum()
    found = (good & event.target[event.particle[edges[0]]]).sum()
    return {
        "edges": edges.shape[1],
        "efficiency": float(found / wanted) if wanted else np.nan,
        "purity": float(good.mean()) if good.size else np.nan,
    }


def _edges(event: Event, edges: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(edges)
    if array.ndim != 2 or array.shape[0] != 2 or (array.size and not 0 <= array.min() <= array.max() < event.n_hits):
        raise InputError(f"Edges of shape {array.shape} were given.", f"Expected [2, n] indices of the event's {event.n_hits} hits.")
    return array.astype(np.int64)


def check_labels(event: Event, labels: ArrayLike) -> NDArray[np.int64]:
    """Return the labels as an array, one for each hit.

    Raises:
        InputError: there is not one whole number for each hit.
    """
    array = np.asarray(labels)
    if array.shape != (event.n_hits,) or array.dtype.kind not in "iu":
        raise InputError(
            f"Labels of shape {array.shape} and type {array.dtype} were given for an event of {event.n_hits} hits.",
            "Expected one whole number for each hit, as ExaTrk returns them in LABELS.",
        )
    return array.astype(np.int64)


def common(events: Event | Sequence[Event], labels: Any) -> list[tuple[Event, NDArray[np.int64]]]:
    """Return events and their labels in pairs, for one event or for many.

    Raises:
        InputError: there are not as many label arrays as events, or one does not fit its event.
    """
    if isinstance(events, Event):
        events, labels = [events], [labels]
    if len(events) != len(labels):
        raise InputError(f"{len(events)} events and {len(labels)} arrays of labels were given.", "Expected one array for each event.")
    return [(event, check_labels(event, of_event)) for event, of_event in zip(events, labels, strict=True)]


# --- found tracks and the truth --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Matching:
    """The tracks of one event and what they come from.

    Attributes:
        n_hits: (n_tracks,) hits of each track.
        particle: (n_tracks,) the particle that most of the hits come from.
        majority: (n_tracks,) hits of that particle in the track.
        found: (n_particles,) whether a particle has a track by double majority.
        fake: (n_tracks,) half of the hits or fewer are of one particle.
        duplicate: (n_tracks,) more than half are, but another track has more hits of that particle.
    """

    n_hits: NDArray[np.intp]
    particle: NDArray[np.intp]
    majority: NDArray[np.intp]
    found: NDArray[np.bool_]
    fake: NDArray[np.bool_]
    duplicate: NDArray[np.bool_]

    @property
    def purity(self) -> NDArray[np.float64]:
        """(n_tracks,) the part of a track's hits that are of its particle."""
        return self.majority / self.n_hits


def match(event: Event, labels: ArrayLike) -> Matching:
    """Compare the tracks of one event with its particles.

    Args:
        event: the event.
        labels: (n_hits,) one label for each hit; negative for hits without a track.

    Raises:
        InputError: there is not one label for each hit.
    """
    ((_, of_hit),) = common(event, labels)
    on_track = of_hit >= 0
    track = np.unique(of_hit[on_track], return_inverse=True)[1].reshape(-1)
    n_particles = event.pt.size
    pairs, shared = np.unique(track * n_particles + event.particle[on_track], return_counts=True)
    # For each track the particle with most hits; of equal ones the first.
    order = np.lexsort((pairs, -shared, pairs // n_particles))
    best = order[np.unique(pairs[order] // n_particles, return_index=True)[1]]
    particle, majority, n_hits = pairs[best] % n_particles, shared[best], np.bincount(track)
    fake = 2 * majority <= n_hits
    double = ~fake & (2 * majority > event.hits_of_particle[particle])
    found = np.zeros(n_particles, dtype=bool)
    found[particle[double]] = True
    most = np.zeros(n_particles, dtype=np.intp)
    pure = np.flatnonzero(~fake)
    first = pure[np.lexsort((pure, -majority[pure], particle[pure]))]
    kept = first[np.unique(particle[first], return_index=True)[1]]
    most[particle[kept]] = kept
    duplicate = ~fake & (most[particle] != np.arange(n_hits.size))
    return Matching(n_hits, particle, majority, found, fake, duplicate)


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

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.value:.4f} (+{high - self.value:.4f} -{self.value - low:.4f}, {self.passed} of {self.total})"


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
        rates = dict(zip((*QUANTITIES, "hit purity"), (self.efficiency, self.fake_rate, self.duplicate_rate, self.purity), strict=True))
        return pd.DataFrame([{"quantity": name, **_row(rate)} for name, rate in rates.items()])

    def against(self, variable: str, edges: Sequence[float] | None = None, quantity: str = "efficiency") -> pd.DataFrame:
        """Return a rate in bins.

        Args:
            variable: ``pt`` (GeV) or ``eta``: the particle's own for the efficiency, the measured one of the tracks for the others.
            edges: edges of the bins; sensible ones by default.
            quantity: ``efficiency``, ``fake rate`` or ``duplicate rate``.

        Returns:
            Rows with the bin's edges, value, lower and upper end of the interval, passed and total.

        Raises:
            InputError: an unknown variable or quantity.
        """
        if variable not in BINS or quantity not in QUANTITIES:
            raise InputError(f"{quantity!r} against {variable!r} was asked for.", f"Expected one of {QUANTITIES} against 'pt' or 'eta'.")
        source = self.particles if quantity == "efficiency" else self.tracks
        passed = source["found" if quantity == "efficiency" else quantity.removesuffix(" rate")]
        bins = np.asarray(edges if edges is not None else BINS[variable], dtype=float)
        total, _ = np.histogram(source[variable], bins)
        good, _ = np.histogram(source[variable][passed], bins)
        rates = [_row(Rate(int(passed), int(of))) for passed, of in zip(good, total, strict=True)]
        return pd.DataFrame({f"{variable}_low": bins[:-1], f"{variable}_high": bins[1:]}).join(pd.DataFrame(rates))

    def __repr__(self) -> str:
        return str(self.table.to_string(index=False, float_format="%.4f"))

    def _repr_html_(self) -> str:
        return str(self.table.to_html(index=False, float_format="%.4f"))


def _row(rate: Rate) -> dict[str, Any]:
    low, high = rate.interval
    return {"value": rate.value, "low": low, "high": high, "passed": rate.passed, "total": rate.total}


def quality(events: Event | Sequence[Event], labels: Any) -> Quality:
    """Return efficiency, fakes and duplicates of one event or of many together.

    Args:
        events: an event, or a list of them.
        labels: its labels, or a list with the labels of each event.

    Raises:
        InputError: labels and events do not fit.
    """
    particles: dict[str, list[Any]] = {"pt": [], "eta": [], "found": []}
    tracks: dict[str, list[Any]] = {"pt": [], "eta": [], "fake": [], "duplicate": [], "hits": [], "majority": []}
    for event, of_hit in common(events, labels):
        matching = match(event, of_hit)
        for name, values in (("pt", event.pt), ("eta", event.eta), ("found", matching.found)):
            particles[name].append(values[event.target])
        pt, eta = measure(event, of_hit)
        columns = (pt, eta, matching.fake, matching.duplicate, matching.n_hits, matching.majority)
        for name, column in zip(tracks, columns, strict=True):
            tracks[name].append(column)
    of_particles = {name: np.concatenate(parts) for name, parts in particles.items()}
    of_tracks = {name: np.concatenate(parts) for name, parts in tracks.items()}
    n_tracks = of_tracks["fake"].size
    return Quality(
        Rate(int(of_particles["found"].sum()), of_particles["found"].size),
        Rate(int(of_tracks["fake"].sum()), n_tracks),
        Rate(int(of_tracks["duplicate"].sum()), n_tracks),
        Rate(int(of_tracks["majority"].sum()), int(of_tracks["hits"].sum())),
        of_particles,
        of_tracks,
    )


def measure(event: Event, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return transverse momentum and pseudorapidity of each track, from a circle through the beam and a straight line along it.

    A quick estimate, not a fit: no material, no resolution, prompt particles only.

    Returns:
        (n_tracks,) pT in GeV, (n_tracks,) eta.
    """
    ((_, of_hit),) = common(event, labels)
    on_track = of_hit >= 0
    track = np.unique(of_hit[on_track], return_inverse=True)[1].reshape(-1)
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
    return _GEV_PER_TESLA_METRE * FIELD_T * radius, np.arcsinh(slope)


def same_tracks(first: ArrayLike, second: ArrayLike) -> bool:
    """True if two arrays of labels say the same, whatever the tracks are called.

    Args:
        first: (n_hits,) labels; negative for hits without a track.
        second: the same hits, labelled otherwise.
    """
    one, other = (np.asarray(labels) for labels in (first, second))
    if one.shape != other.shape or not np.array_equal(one < 0, other < 0):
        return False
    pairs = np.unique(np.stack([one, other])[:, one >= 0], axis=1)
    return bool(np.unique(pairs[0]).size == np.unique(pairs[1]).size == pairs.shape[1])


# --- the stages on a server -------------------------------------------------------------------------------------------------


def inputs_of_stage(client: Client, stage: str, features: np.ndarray) -> dict[str, np.ndarray]:
    """Return what a stage gets for an event, by calling the stages before it in turn.

    Args:
        client: to a server with the stages.
        stage: one of :data:`STAGES`.
        features: (n, 3) the event's hits, as ``ExaTrk`` takes them.
    """
    values: dict[str, Any] = {"sp_features": features}
    for name in STAGES[: STAGES.index(stage) + 1]:
        inputs = {tensor["name"]: values[tensor["name"]] for tensor in client.metadata(name)["inputs"]}
        if name == stage:
            break
        values |= {_TAKEN_AS.get(output, output): array for output, array in client.infer(name, inputs).items()}
    return inputs


def stage_times(difference: Any) -> pd.DataFrame:
    """Return the mean time of an event in each stage, from the server's own counters.

    Args:
        difference: two readings of the metrics, subtracted: ``scrape(server) - before``.

    Returns:
        One row for each stage that was used: ``stage``, ``events``, and mean times per event in ms, ``total_ms = queue_ms + infer_ms +
        other_ms``: ``infer`` is the time in the model, ``queue`` the time spent waiting for it, ``other`` moves tensors in and out.

    Raises:
        InputError: no event passed the stages between the two readings.
    """
    by_model = {row["model"]: row for row in difference.requests}
    rows = [_stage(by_model[stage]) for stage in STAGES if stage in by_model and by_model[stage]["requests"]]
    if not rows:
        raise InputError(
            "No event passed a stage of ExaTrk between the two readings.",
            "Expected at least one.",
            'Send one in between: client.infer("ExaTrk", ...)',
        )
    return pd.DataFrame(rows)


def _stage(row: dict[str, Any]) -> dict[str, Any]:
    total, queue, infer = (row[name] / 1000 for name in ("request_us", "queue_us", "compute_infer_us"))
    return {
        "stage": row["model"],
        "events": row["requests"],
        "total_ms": total,
        "queue_ms": queue,
        "infer_ms": infer,
        "other_ms": max(total - queue - infer, 0.0),
    }


@dataclass(frozen=True)
class EventRate:
    """How fast a server answered. One rate divided by another gives a :class:`Gain`.

    Attributes:
        mean: events per second, over all rounds.
        half_width: of the 95 % interval of the mean, by Student's distribution over the rounds, in events per second.
        at_once: requests that were under way at once.
    """

    mean: float
    half_width: float
    at_once: int

    def __truediv__(self, other: EventRate) -> Gain:
        value = self.mean / other.mean
        return Gain(value, value * math.hypot(self.half_width / self.mean, other.half_width / other.mean))

    def __str__(self) -> str:
        return f"{self.mean:.1f} ± {self.half_width:.1f} events/s"

    __repr__ = __str__


@dataclass(frozen=True)
class Gain:
    """How many times as fast a rate is as another.

    Attributes:
        value: the ratio of the means.
        half_width: of its 95 % interval.
    """

    value: float
    half_width: float

    @property
    def low(self) -> float:
        """The lower end of the interval."""
        return self.value - self.half_width

    @property
    def high(self) -> float:
        """The upper end of the interval."""
        return self.value + self.half_width

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {self.half_width:.2f}"

    __repr__ = __str__


def events_per_second(client: Client, events: Sequence[Event], at_once: int, rounds: int = 5, model: str = "ExaTrk") -> EventRate:
    """Send events again and again, and take the time.

    Args:
        client: connected to the server.
        events: sent once in each round.
        at_once: requests under way at once.
        rounds: how often, twice or more; one more at the start is not counted.
        model: ``ExaTrk`` or ``ExaTrk_bls``.
    """
    requests = [{"FEATURES": event.features} for event in events]
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        client.infer_many(model, requests, max_in_flight=at_once)
        seconds.append(time.perf_counter() - start)
    rates = [len(requests) / one for one in seconds[1:]]
    half = stats.t.ppf(0.975, rounds - 1) * statistics.stdev(rates) / math.sqrt(rounds)
    return EventRate(statistics.fmean(rates), float(half), at_once)


# --- muons -----------------------------------------------------------------------------------------------------------------


def muon_pairs() -> dict[str, NDArray[np.float32]]:
    """Return 2,000 muon pairs, made up for notebook 02, the same in every call: resonances over a smooth background.

    Returns:
        ``PT`` (GeV), ``ETA`` and ``PHI`` (rad) of the two muons, each of shape (2000, 2).
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
