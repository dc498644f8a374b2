"""Simulated collisions for track finding: read them, turn them into tensors for ``ExaTrk``, and know the truth about edges.

Typical use::

    from helpers.tracks import load_events
    event = load_events()[0]
    labels = client.infer("ExaTrk", FEATURES=event.features)["LABELS"]     # one for each hit, -1 for hits without a track
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from helpers import settings
from helpers.errors import InputError, SetupError
from helpers.tables import as_html, as_text

# What ExaTrk takes for one hit: r, phi and z, divided by these (mm, rad, mm).
FEATURE_SCALES = (1000.0, np.pi, 1000.0)
# The particles that the efficiency is about: enough momentum to cross the detector, enough hits to be found (GeV, hits).
TARGET_MIN_PT_GEV = 0.5
TARGET_MIN_HITS = 5
# Beyond this |z|, in mm, particles cross disks instead of cylinders, so they move outwards along z rather than along r.
BARREL_HALF_LENGTH_MM = 550.0
# The field of the simulated detector, in tesla.
FIELD_T = 2.0

SAMPLES = {False: "tracks_ttbar.npz", True: "tracks_ttbar_pileup.npz"}
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
        """The event in numbers."""
        collisions = np.unique(self.collision).size
        return {"hits": self.n_hits, "particles": self.pt.size, "to be found": int(self.target.sum()), "collisions": collisions}

    def __repr__(self) -> str:
        return as_text([self.summary()])

    def _repr_html_(self) -> str:
        return as_html([self.summary()])


def features(r: ArrayLike, phi: ArrayLike, z: ArrayLike) -> NDArray[np.float32]:
    """Positions of hits as ``ExaTrk`` takes them.

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
    """The events that come with the course, or those of another file of the same form.

    Args:
        pile_up: events with about 15 further collisions (5 events) in place of those without (20 events).
        path: another file, as ``training.tracks`` writes it.

    Raises:
        SetupError: the file is missing, or is none of events.
    """
    file = Path(path) if path else settings.root() / "notebooks" / "data" / SAMPLES[pile_up]
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
    """The edges that a perfect track finder would find: from each hit of a particle to its next.

    Returns:
        (2, n_edges) hit indices, inner hit first.
    """
    return edges_within(event, event.particle)


def edges_within(event: Event, group: ArrayLike) -> NDArray[np.int64]:
    """The edges from each hit to the next one outward in the same group.

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
    """Which edges join a hit of a particle to its next.

    Args:
        event: the event.
        edges: (2, n_edges) hit indices, inner hit first, as ``ExaTrk_graph`` returns them.
    """
    edges = _edges(event, edges)
    truth = true_edges(event)
    return np.isin(edges[0] * event.n_hits + edges[1], truth[0] * event.n_hits + truth[1])


def edge_quality(event: Event, edges: ArrayLike) -> dict[str, float]:
    """Efficiency and purity of a graph.

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
    """The labels as an array, one for each hit.

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
    """Events and their labels in pairs, for one event or for many.

    Raises:
        InputError: there are not as many label arrays as events, or one does not fit its event.
    """
    if isinstance(events, Event):
        events, labels = [events], [labels]
    if len(events) != len(labels):
        raise InputError(f"{len(events)} events and {len(labels)} arrays of labels were given.", "Expected one array for each event.")
    return [(event, check_labels(event, of_event)) for event, of_event in zip(events, labels, strict=True)]
