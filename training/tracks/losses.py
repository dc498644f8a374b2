"""What each network is trained on, and what it is punished for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor, nn
from torch.nn import functional

from helpers.physics.tracks import Event, true_edges

from . import settings, truth
from .fit import mirrored

MARGIN = 1.0
"""Hits of different particles should be at least this far apart in the embedding."""
NEIGHBOURS = 20
"""Closest hits of each hit that are looked through for hard negatives."""
HARD_NEGATIVE_HITS = 1500
"""Hits of an event whose neighbours are looked at in one step; drawn anew each time."""
FILTER_BACKGROUND_WEIGHT = 0.25
"""The filter must keep nearly all true edges, so a false edge that stays counts less than a true edge that goes."""


@dataclass(frozen=True)
class HitExample:
    """An event for the embedding: (n, 3) features, (n,) particles, (2, m) consecutive hits of particles that count."""

    features: NDArray[np.float32]
    particle: NDArray[np.int32]
    consecutive: NDArray[np.int64]


@dataclass(frozen=True)
class EdgeExample:
    """An event for filter and interaction network: (n, 3) features, (2, m) edges and their (m,) kinds."""

    features: NDArray[np.float32]
    edges: NDArray[np.int64]
    kinds: NDArray[np.int8]


def hit_example(event: Event) -> HitExample:
    """What the embedding learns from an event."""
    edges = true_edges(event)
    return HitExample(event.features, event.particle, edges[:, event.pt[event.particle[edges[0]]] >= settings.LOSS_MIN_PT_GEV])


def embedding_loss(network: nn.Module, example: HitExample, generator: np.random.Generator) -> Tensor:
    """Pull consecutive hits together, push close hits of different particles at least a margin apart."""
    points = network(mirrored(example.features, generator))
    inner, outer = torch.from_numpy(example.consecutive)
    attraction = _squared(points, inner, outer).mean()
    where = points.detach().numpy()
    chosen = generator.permutation(len(where))[:HARD_NEGATIVE_HITS]
    distance, near = cKDTree(where).query(where[chosen], k=min(NEIGHBOURS, len(where)), distance_upper_bound=MARGIN)
    first = np.repeat(chosen, near.shape[1])[np.isfinite(distance).ravel()]
    second = near[np.isfinite(distance)]
    random = generator.integers(0, len(where), (2, HARD_NEGATIVE_HITS))
    first, second = np.concatenate([first, random[0]]), np.concatenate([second, random[1]])
    different = example.particle[first] != example.particle[second]
    first, second = torch.from_numpy(first[different]), torch.from_numpy(second[different])
    separation = torch.sqrt(_squared(points, first, second) + 1e-6)
    return attraction + (MARGIN - separation).clamp(min=0).square().mean()


def filter_loss(network: nn.Module, example: EdgeExample, generator: np.random.Generator) -> Tensor:
    """Cross entropy of consecutive hits against hits of different particles; other pairs of the same particle are left alone."""
    counted = (example.kinds == truth.TRUE) | (example.kinds == truth.FALSE)
    edges, label = torch.from_numpy(example.edges[:, counted]), torch.from_numpy(example.kinds[counted] == truth.TRUE).float()
    logits = network(mirrored(example.features, generator), edges)
    weight = torch.where(label > 0, 1.0, FILTER_BACKGROUND_WEIGHT)
    return functional.binary_cross_entropy_with_logits(logits, label, weight)


def interaction_loss(network: nn.Module, example: EdgeExample, generator: np.random.Generator) -> Tensor:
    """Cross entropy of both questions: do the hits follow each other, and are they of the same particle."""
    logits = network(mirrored(example.features, generator), torch.from_numpy(example.edges))
    kind = torch.from_numpy(example.kinds)
    follows = (kind == truth.TRUE).float()
    same = follows + (kind == truth.SKIPPING).float()
    weight = (kind != truth.IGNORED).float()
    each = functional.binary_cross_entropy_with_logits(logits, torch.stack([follows, same], dim=1), reduction="none").sum(dim=1)
    return (each * weight).sum() / weight.sum().clamp(min=1)


def _squared(points: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Squared distances; rows are taken by ``index_select``, whose gradient is quicker than that of indexing."""
    return (points.index_select(0, first) - points.index_select(0, second)).square().sum(dim=1)
