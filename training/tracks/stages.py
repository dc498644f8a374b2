"""The chain of trained stages in one process: what training, choice of thresholds and evaluation run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from helpers.physics.tracks import Event

from . import losses, served, truth
from .fit import Plan, fit
from .losses import EdgeExample
from .networks import Embedding, Filter, InteractionNetwork
from .settings import Schedule

log = logging.getLogger(__name__)

# Generous limits: the trained graphs stay far below them.
MAX_NEIGHBOURS, MAX_EDGES = 64, 2_000_000


@dataclass(frozen=True)
class Cuts:
    """The thresholds of the chain.

    Attributes:
        radius: Hits that are closer in the embedding are joined.
        filter: Lowest score of the filter that stays.
        walk: Lowest score of an edge to walk along.
        mend: Lowest score of an edge that joins two pieces of a track.
        min_hits: Hits of a track.
    """

    radius: float = 0.7
    filter: float = 0.05
    walk: float = 0.5
    mend: float = 0.5
    min_hits: int = 3


def graph(embedding: Embedding, event: Event, radius: float) -> NDArray[np.int64]:
    """(2, n_edges) the radius graph of an event."""
    with torch.no_grad():
        points = embedding(torch.from_numpy(event.features)).numpy()
    return served.graph.radius_graph(points, served.graph.outwards(event.features), radius, MAX_NEIGHBOURS, MAX_EDGES)


def scores(network: torch.nn.Module, event: Event, edges: NDArray[np.int64]) -> NDArray[np.float32]:
    """Scores from 0 to 1 of each edge: (n_edges,) of the filter, (n_edges, 2) of the interaction network."""
    with torch.no_grad():
        return torch.sigmoid(network(torch.from_numpy(event.features), torch.from_numpy(edges))).numpy()


def train_embedding(events: Sequence[Event], schedule: Schedule, folder: Path) -> Embedding:
    """Train the first network."""
    return fit(Embedding(), plan("embedding", schedule), [losses.hit_example(event) for event in events], losses.embedding_loss, folder)


def train_filter(events: Sequence[Event], embedding: Embedding, radius: float, schedule: Schedule, folder: Path) -> Filter:
    """Train the second network on the graphs that the first one gives."""
    examples = [example(event, graph(embedding, event, radius)) for event in events]
    return fit(Filter(), plan("filter", schedule), examples, losses.filter_loss, folder)


def train_interaction(
    events: Sequence[Event], before: tuple[Embedding, Filter], cuts: Cuts, schedule: Schedule, folder: Path
) -> InteractionNetwork:
    """Train the third network on the edges that the second one keeps."""
    examples = [example(event, kept_edges(*before, event, cuts)) for event in events]
    return fit(InteractionNetwork(), plan("interaction", schedule), examples, losses.interaction_loss, folder)


def plan(name: str, schedule: Schedule) -> Plan:
    """A schedule as the training loop takes it."""
    return Plan(name, schedule.epochs, schedule.rate)


def kept_edges(embedding: Embedding, edge_filter: Filter, event: Event, cuts: Cuts) -> NDArray[np.int64]:
    """(2, n_edges) edges behind the filter."""
    edges = graph(embedding, event, cuts.radius)
    return edges[:, scores(edge_filter, event, edges) >= cuts.filter]


def find_tracks(networks: tuple[Embedding, Filter, InteractionNetwork], event: Event, cuts: Cuts) -> NDArray[np.int64]:
    """(n_hits,) track labels."""
    embedding, edge_filter, interaction = networks
    edges = kept_edges(embedding, edge_filter, event, cuts)
    follows, same = scores(interaction, event, edges).T
    return served.tracks.build_tracks(event.features, edges, follows, same, cuts.walk, cuts.mend, cuts.min_hits)


def example(event: Event, edges: NDArray[np.int64]) -> EdgeExample:
    """An event's graph for training."""
    return EdgeExample(event.features, edges.astype(np.int64), truth.kinds(event, edges))
