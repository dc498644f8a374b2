"""Choose the thresholds of the chain on validation events, by rules, so that a new training needs no hand."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from helpers.track_matching import quality
from helpers.tracks import Event, true_edges

from . import served, stages, truth
from .networks import Embedding, Filter, InteractionNetwork
from .stages import Cuts

log = logging.getLogger(__name__)

RADII = tuple(np.arange(0.3, 1.21, 0.05).round(2).tolist())
GRAPH_EFFICIENCY = 0.99
"""Part of the true edges of the particles to be found that the radius graph must hold."""
FILTER_EFFICIENCY = 0.995
"""Part of those that the filter must keep."""
EDGE_PURITY = 0.99
"""Part of the edges above the last cut that must be true."""
WALK_CUTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
MEND_CUTS = (0.1, 0.3, 0.5, 0.7, 0.9, 1.1)


def radius(embedding: Embedding, events: Sequence[Event]) -> float:
    """The smallest radius whose graphs hold enough true edges."""
    distances = []
    for event in events:
        with torch.no_grad():
            points = embedding(torch.from_numpy(event.features)).numpy()
        inner, outer = wanted_edges(event)
        distances.append(np.linalg.norm(points[inner] - points[outer], axis=1))
    needed = np.quantile(np.concatenate(distances), GRAPH_EFFICIENCY)
    chosen = next((value for value in RADII if value >= needed), RADII[-1])
    log.info("radius %.2f (%.3f holds %.1f %% of the true edges)", chosen, needed, 100 * GRAPH_EFFICIENCY)
    return chosen


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


def walk_cuts(interaction: InteractionNetwork, prepared: Sequence[Sequence[tuple[Event, NDArray[np.int64]]]], cuts: Cuts) -> Cuts:
    """The cuts of the track building that find most particles while edges are pure enough.

    Args:
        interaction: The last network.
        prepared: For each validation sample its events with their edges behind the filter. All samples count alike.
        cuts: The other cuts.
    """
    scored = [[(event, edges, *stages.scores(interaction, event, edges).T) for event, edges in sample] for sample in prepared]
    best, best_efficiency = cuts, -1.0
    for walk, mend in itertools.product(WALK_CUTS, MEND_CUTS):
        purity = min(_purity(sample, walk) for sample in scored[:1])
        if purity < EDGE_PURITY and walk < WALK_CUTS[-1]:
            continue
        tried = dataclasses.replace(cuts, walk=walk, mend=mend)
        efficiency = float(np.mean([_efficiency(sample, tried) for sample in scored]))
        log.info("walk %.1f mend %.1f: purity %.4f, efficiency %.4f", walk, mend, purity, efficiency)
        if efficiency > best_efficiency:
            best, best_efficiency = tried, efficiency
    return best


def wanted_edges(event: Event) -> NDArray[np.int64]:
    """(2, n) the true edges of the particles that should be found."""
    edges = true_edges(event)
    return edges[:, event.target[event.particle[edges[0]]]]


def _purity(sample: Sequence[tuple], walk: float) -> float:
    good = [truth.is_true(event, edges[:, follows >= walk]) for event, edges, follows, _ in sample]
    return float(np.concatenate(good).mean())


def _efficiency(sample: Sequence[tuple], cuts: Cuts) -> float:
    events = [event for event, *_ in sample]
    labels = [
        served.tracks.build_tracks(e.features, edges, follows, same, cuts.walk, cuts.mend, cuts.min_hits)
        for e, edges, follows, same in sample
    ]
    return quality(events, labels).efficiency.value
