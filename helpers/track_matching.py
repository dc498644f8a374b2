"""Compare found tracks with the truth: who was found, which tracks are fakes, and how sure we may be.

A track and a particle belong together when more than half of the track's hits are of the particle, and more than half of the
particle's hits are in the track (double majority). So a particle belongs to one track at most.

Typical use::

    quality(event, labels)                       # efficiency, fakes, duplicates
    quality(events, all_labels).against("pt")    # the same in bins of the transverse momentum
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from helpers.errors import InputError
from helpers.tables import as_html, as_text
from helpers.tracks import FIELD_T, Event, common

# Momentum of a particle of unit charge in GeV for each tesla and metre of its path's radius.
_GEV_PER_TESLA_METRE = 0.299792458
# A track that is no circle, such as one of two hits in the same place, counts as this narrow.
_SMALLEST_RADIUS_M = 1e-3
# Bins that show what there is to see; edges in GeV, and without unit.
BINS = {"pt": (0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0), "eta": tuple(np.linspace(-3, 3, 13).round(3))}
QUANTITIES = ("efficiency", "fake rate", "duplicate rate")


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
    def rows(self) -> list[dict[str, Any]]:
        """A tidy table."""
        rates = {**dict(zip(QUANTITIES, (self.efficiency, self.fake_rate, self.duplicate_rate), strict=True)), "hit purity": self.purity}
        return [{"quantity": name, **_row(rate)} for name, rate in rates.items()]

    def against(self, variable: str, edges: Sequence[float] | None = None, quantity: str = "efficiency") -> list[dict[str, Any]]:
        """A rate in bins, as a tidy table.

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
        return [
            {f"{variable}_low": float(bins[i]), f"{variable}_high": float(bins[i + 1]), **_row(Rate(int(good[i]), int(total[i])))}
            for i in range(total.size)
        ]

    def __repr__(self) -> str:
        return as_text(self.rows)

    def _repr_html_(self) -> str:
        return as_html(self.rows)


def _row(rate: Rate) -> dict[str, Any]:
    low, high = rate.interval
    return {"value": rate.value, "low": low, "high": high, "passed": rate.passed, "total": rate.total}


def quality(events: Event | Sequence[Event], labels: Any) -> Quality:
    """Efficiency, fakes and duplicates of one event or of many together.

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
        for name, values in zip(tracks, columns, strict=True):
            tracks[name].append(values)
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
    """Transverse momentum and pseudorapidity of each track, from a circle through the beam and a straight line along it.

    A quick estimate, not a fit: no material, no resolution, prompt particles only.

    Returns:
        (n_tracks,) pT in GeV, (n_tracks,) eta.
    """
    ((_, of_hit),) = common(event, labels)
    on_track = of_hit >= 0
    track = np.unique(of_hit[on_track], return_inverse=True)[1].reshape(-1)
    x, y, z, r = (values[on_track].astype(np.float64) / 1000 for values in (event.x, event.y, event.z, event.r))

    def total(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(track, values)

    # Each point of a circle through the beam obeys r^2 = 2 (a x + b y), with (a, b) its centre: least squares for all tracks at once.
    xx, xy, yy, xr, yr = total(x * x), total(x * y), total(y * y), total(x * r * r) / 2, total(y * r * r) / 2
    determinant = np.maximum(xx * yy - xy * xy, 1e-12)
    radius = np.maximum(np.hypot(yy * xr - xy * yr, xx * yr - xy * xr) / determinant, _SMALLEST_RADIUS_M)
    path = 2 * radius[track] * np.arcsin(np.minimum(r / (2 * radius[track]), 1))
    n = np.bincount(track)
    slope = (n * total(path * z) - total(path) * total(z)) / np.maximum(n * total(path * path) - total(path) ** 2, 1e-12)
    return _GEV_PER_TESLA_METRE * FIELD_T * radius, np.arcsinh(slope)


def same_tracks(first: ArrayLike, second: ArrayLike) -> bool:
    """Whether two arrays of labels say the same, whatever the tracks are called.

    Args:
        first: (n_hits,) labels; negative for hits without a track.
        second: the same hits, labelled otherwise.
    """
    one, other = (np.asarray(labels) for labels in (first, second))
    if one.shape != other.shape or not np.array_equal(one < 0, other < 0):
        return False
    pairs = np.unique(np.stack([one, other])[:, one >= 0], axis=1)
    return bool(np.unique(pairs[0]).size == np.unique(pairs[1]).size == pairs.shape[1])
