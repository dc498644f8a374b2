"""Choose the thresholds of the chain on validation events, by rules, so that a new training needs no hand."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from helpers.physics.tracks import Event, Quality, quality, true_edges

from . import served, stages, truth
from .networks import Embedding, Filter, InteractionNetwork
from .stages import Cuts

log = logging.getLogger(__name__)

RADII = tuple(np.arange(0.3, 1.21, 0.02).round(2).tolist())
GRAPH_EFFICIENCY = 0.975
"""Part of the true edges of the particles to be found that the radius graph must hold. Most of those that it does not hold begin at the
first layer: a track loses a hit there, and does not fall apart."""
FILTER_EFFICIENCY = 0.99
"""Part of those that the filter must keep."""
EDGE_PURITY = 0.99
"""Part of the edges above the last cut that must be true."""
MOST_FAKES = (0.01, 0.03)
"""Fakes among the tracks, at most, without pile-up and with."""
WALK_CUTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
MEND_CUTS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.1)


def radius(embedding: Embedding, plain: Sequence[Event], crowded: Sequence[Event]) -> float:
    """The smallest radius whose graphs hold enough true edges, without pile-up and with."""
    needed = max(
        np.quantile(np.concatenate([_lengths(embedding, event) for event in events]), GRAPH_EFFICIENCY) for events in (plain, crowded)
    )
    chosen = next((value for value in RADII if value >= needed), RADII[-1])
    log.info("radius %.2f (%.3f is needed)", chosen, needed)
    return chosen


def _lengths(embedding: Embedding, event: Event) -> NDArray[np.float64]:
    """How far apart the embedding puts the hits of each wanted edge."""
    with torch.no_grad():
        points = embedding(torch.from_numpy(event.features)).numpy()
    inner, outer = wanted_edges(event)
    return np.linalg.norm(points[inner] - points[outer], axis=1)


def filter_cut(embedding: Embedding, edge_filter: Filter, radius: float, events: Sequence[Event]) -> float:
    """The highest cut that keeps enough true edges."""
    kept = []
    for event in events:
        edges = stages.graph(embedding, event, radius)
        good = (truth.kinds(event, edges) == truth.TRUE) & event.target[event.particle[edges[0]]]
        kept.append(stages.scores(edge_filter, event, edges[:, good]))
    cut = float(np.quantile(np.concatenate(kept), 1 - FILTER_EFFICIENCY).round(4))
    log.info("filter cut %.4f", cut)
    return cut


def walk_cuts(networks: tuple[Embedding, Filter, InteractionNetwork], samples: Sequence[Sequence[Event]], cuts: Cuts) -> Cuts:
    """The cuts of the track building that find most particles while edges are pure enough and fakes are rare.

    Args:
        networks: All three.
        samples: Validation events, first those without pile-up; both samples count alike.
        cuts: The other cuts.
    """
    scored = [[_scored(networks, event, cuts) for event in sample] for sample in samples]
    tried = []
    for walk in WALK_CUTS:
        purity = _purity(scored[0], walk)
        for mend in MEND_CUTS if purity >= EDGE_PURITY or walk == WALK_CUTS[-1] else ():
            these = dataclasses.replace(cuts, walk=walk, mend=mend)
            found = [_quality(sample, these) for sample in scored]
            efficiencies, fakes = [one.efficiency.value for one in found], [one.fake_rate.value for one in found]
            excess = max(0.0, *(np.nan_to_num(one, nan=1.0) - most for one, most in zip(fakes, MOST_FAKES, strict=True)))
            tried.append((-excess, float(np.mean(efficiencies)), these))
            log.info("walk %.2f mend %.1f: purity %.4f, efficiency %s, fakes %s", walk, mend, purity, *np.round([efficiencies, fakes], 4))
    return max(tried, key=lambda one: one[:2])[2]


def _scored(networks: tuple[Embedding, Filter, InteractionNetwork], event: Event, cuts: Cuts) -> tuple:
    """An event with its edges behind the filter and their two scores."""
    edges = stages.kept_edges(*networks[:2], event, cuts)
    return event, edges, *stages.scores(networks[2], event, edges).T


def wanted_edges(event: Event) -> NDArray[np.int64]:
    """(2, n) the true edges of the particles that should be found."""
    edges = true_edges(event)
    return edges[:, event.target[event.particle[edges[0]]]]


def _purity(sample: Sequence[tuple], walk: float) -> float:
    good = [truth.is_true(event, edges[:, follows >= walk]) for event, edges, follows, _ in sample]
    return float(np.concatenate(good).mean())


def _quality(sample: Sequence[tuple], cuts: Cuts) -> Quality:
    events = [event for event, *_ in sample]
    labels = [
        served.tracks.build_tracks(e.features, edges, follows, same, cuts.walk, cuts.mend, cuts.min_hits)
        for e, edges, follows, same in sample
    ]
    return quality(events, labels)
