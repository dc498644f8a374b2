"""The three networks of the pipeline. All take the scaled features of the hits: r in m, phi / pi, z in m.

Two constructs are avoided because an ONNX exporter breaks them without a word: constants of 1e-8 or less in sums (dropped), and
``arctan2``. Sums over edges use ``index_add``, which the dynamo exporter translates correctly and the older exporter does not.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

EMBEDDING_DIMENSIONS = 8
HIT_FEATURES = 8
EDGE_FEATURES = 7
MAX_HITS = 65_536
"""Hits that the embedding reads, at most: bounds its memory. The graph stage refuses larger events with a sentence."""
SMALLEST_R = 1e-3
"""Metres; no hit of the detector is closer to the beam."""
SMALLEST_STEP = 1e-4
"""Metres; smaller steps in r between two hits are taken as this one."""


def hit_features(x: Tensor) -> Tensor:
    """(n, 3) scaled features to (n, 8) that networks can use: r, cos and sin of phi, z, x, y, eta / 3, cos of theta."""
    r, angle, z = x[:, 0], x[:, 1] * torch.pi, x[:, 2]
    r = r.clamp(min=SMALLEST_R)
    cosine, sine = torch.cos(angle), torch.sin(angle)
    distance = torch.sqrt(r * r + z * z)
    # The usual log((z + distance) / r) cancels for large negative z.
    eta = torch.sign(z) * torch.log((z.abs() + distance) / r)
    return torch.stack([r, cosine, sine, z, r * cosine, r * sine, eta / 3, z / distance], dim=1)


def edge_features(x: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """(n_edges, 7): steps in r, phi / pi and z, their slopes, where the line through both hits meets the beam, and the length."""
    inner, outer = x.index_select(0, source), x.index_select(0, target)
    dr, dz = outer[:, 0] - inner[:, 0], outer[:, 2] - inner[:, 2]
    dphi = outer[:, 1] - inner[:, 1]
    dphi = dphi - 2 * torch.round(dphi / 2)
    step = torch.sqrt(dr * dr + (dphi * torch.pi * 0.5 * (inner[:, 0] + outer[:, 0])) ** 2).clamp(min=SMALLEST_STEP)
    slope = dz / step
    z0 = inner[:, 2] - inner[:, 0] * slope
    return torch.stack(
        [
            5 * dr,
            20 * dphi,
            2 * dz,
            (torch.pi * dphi / step).clamp(-4, 4),
            (slope / 4).clamp(-4, 4),
            (5 * z0).clamp(-4, 4),
            torch.sqrt(step * step + dz * dz),
        ],
        dim=1,
    )


def _mlp(*widths: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths[:-1]):
        layers += [nn.Linear(before, after), nn.LayerNorm(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


class Embedding(nn.Module):
    """Puts hits of the same particle close together: (n, 3) to (n, 8)."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.layers = _mlp(HIT_FEATURES, width, width, width, EMBEDDING_DIMENSIONS)

    def forward(self, sp_features: Tensor) -> Tensor:
        return self.layers(hit_features(sp_features[:MAX_HITS]))


class PairLayer(nn.Module):
    """A linear layer on (inner hit, outer hit, edge); the hits' shares are computed once for each hit, not for each edge."""

    def __init__(self, hit_width: int, edge_width: int, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(hit_width, width)
        self.outer = nn.Linear(hit_width, width, bias=False)
        self.edge = nn.Linear(edge_width, width, bias=False)

    def forward(self, hits: Tensor, edges: Tensor, source: Tensor, target: Tensor) -> Tensor:
        return self.inner(hits).index_select(0, source) + self.outer(hits).index_select(0, target) + self.edge(edges)


class Filter(nn.Module):
    """Scores each edge by itself: (n, 3) and (2, n_edges) to (n_edges,) logits."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.hits = nn.Sequential(nn.Linear(HIT_FEATURES, width), nn.ReLU())
        self.pair = PairLayer(width, EDGE_FEATURES, width)
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(width, width // 2), nn.ReLU(), nn.Linear(width // 2, 1))

    def forward(self, sp_features: Tensor, edge_index: Tensor) -> Tensor:
        source, target = edge_index[0], edge_index[1]
        pairs = self.pair(self.hits(hit_features(sp_features)), edge_features(sp_features, source, target), source, target)
        return self.head(pairs)[:, 0]


class InteractionNetwork(nn.Module):
    """Scores edges by what lies around them: (n, 3) and (2, n_edges) to (n_edges, 2) logits.

    The first says that both hits follow each other on a particle's way, the second that they are of the same particle.
    """

    def __init__(self, width: int = 32, iterations: int = 5) -> None:
        super().__init__()
        self.iterations = iterations
        self.hit_encoder = _mlp(HIT_FEATURES, width, width)
        self.edge_encoder = _mlp(EDGE_FEATURES, width, width)
        self.message = PairLayer(width, width, width)
        self.message_out = nn.Sequential(nn.LayerNorm(width), nn.ReLU(), nn.Linear(width, width))
        self.update = _mlp(3 * width, width, width)
        self.head = _mlp(width, width, 2)

    def forward(self, sp_features: Tensor, edge_index: Tensor) -> Tensor:
        source, target = edge_index[0], edge_index[1]
        hits = self.hit_encoder(hit_features(sp_features))
        edges = self.edge_encoder(edge_features(sp_features, source, target))
        for _ in range(self.iterations):
            edges = edges + self.message_out(self.message(hits, edges, source, target))
            nothing = torch.zeros_like(hits)
            arriving, leaving = nothing.index_add(0, target, edges), nothing.index_add(0, source, edges)
            hits = hits + self.update(torch.cat([hits, arriving, leaving], dim=1))
        return self.head(edges)
