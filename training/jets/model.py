"""ParticleNet as it is served: the architecture of CMS's jet taggers, in plain PyTorch.

This is the definition that is exported. Training runs the same parameters through the
packed kernels of `fast`, and a test holds the two together.

Two rearrangements make it quick on a CPU, neither changes what is computed: points are
rows, so that a 1x1 convolution is a matrix product, and the first convolution of an edge
block, W [x_i, x_j - x_i], is split into (W_a - W_b) x_i + W_b x_j, so that it runs once
per point and not once per edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from .features import TAGGERS, Tagger


@dataclass(frozen=True)
class Layout:
    """Widths of one ParticleNet.

    Attributes:
        edge_blocks: Output channels of the three convolutions of each edge block.
        fusion: Channels after the blocks are joined.
        hidden: Units of the fully connected layer.
        parameters: Number of trainable parameters, as CMS's network has it.
    """

    edge_blocks: tuple[int, ...]
    fusion: int
    hidden: int
    parameters: int


LAYOUTS = {
    "ak4": Layout((64, 96, 128), 256, 128, 232_486),
    "ak8": Layout((64, 128, 256), 384, 256, 582_492),
}
FEATURE_WIDTH = 32
"""Channels to which candidates and vertices are mapped before they are mixed."""
DROPOUT = 0.1


class FeatureConv(nn.Module):
    """Batch norm, linear map, batch norm, ReLU on the features of each point."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.norm_in = nn.BatchNorm1d(n_in)
        self.linear = nn.Linear(n_in, n_out, bias=False)
        self.norm_out = nn.BatchNorm1d(n_out)

    def forward(self, rows: Tensor) -> Tensor:
        """(rows, n_in) to (rows, n_out)."""
        return torch.relu(self.norm_out(self.linear(self.norm_in(rows))))


class EdgeConv(nn.Module):
    """One edge block: three convolutions on k neighbours, their mean, and a shortcut."""

    def __init__(self, n_in: int, width: int, k: int) -> None:
        super().__init__()
        self.k = k
        self.first = nn.Linear(2 * n_in, width, bias=False)
        self.second = nn.Linear(width, width, bias=False)
        self.third = nn.Linear(width, width, bias=False)
        self.norm_first = nn.BatchNorm1d(width)
        self.norm_second = nn.BatchNorm1d(width)
        self.norm_third = nn.BatchNorm1d(width)
        self.shortcut = nn.Linear(n_in, width, bias=False)
        self.norm_shortcut = nn.BatchNorm1d(width)

    def forward(self, rows: Tensor, neighbours: Tensor) -> Tensor:
        """(rows, n_in) and row numbers (rows * k,) to (rows, width)."""
        n_in = rows.size(1)
        weight_centre = self.first.weight[:, :n_in]
        weight_neighbour = self.first.weight[:, n_in:]
        centre = nn.functional.linear(rows, weight_centre - weight_neighbour)
        other = nn.functional.linear(rows, weight_neighbour).index_select(0, neighbours)
        width = centre.size(1)
        edges = (centre.unsqueeze(1) + other.view(-1, self.k, width)).view(-1, width)
        edges = torch.relu(self.norm_first(edges))
        edges = torch.relu(self.norm_second(self.second(edges)))
        edges = torch.relu(self.norm_third(self.third(edges)))
        mean = edges.view(-1, self.k, width).mean(dim=1)
        return torch.relu(mean + self.norm_shortcut(self.shortcut(rows)))


def squared_distances_of_points(points: Tensor) -> Tensor:
    """(B, P, 2) to (B, P, P).

    From differences, so that all runtimes agree on which of two nearly equidistant
    candidates is nearer.
    """
    difference = points.unsqueeze(2) - points.unsqueeze(1)
    return (difference * difference).sum(dim=3)


def squared_distances_of_features(rows: Tensor) -> Tensor:
    """(B, P, C) to (B, P, P), by a matrix product: differences would be too large."""
    square = (rows * rows).sum(dim=2)
    return square.unsqueeze(2) + square.unsqueeze(1) - 2.0 * torch.matmul(rows, rows.transpose(1, 2))


def nearest_neighbours(distances: Tensor, hidden: Tensor, k: int) -> Tensor:
    """Row numbers (B * P * k,) of the k nearest other points of the same jet.

    Args:
        distances: (B, P, P) squared distances.
        hidden: (B, P), 1 for padding, 0 for real points: padding is far away.
        k: Neighbours; P must be at least k + 1.
    """
    n_jets, n_points = hidden.size(0), hidden.size(1)
    itself = torch.eye(n_points, dtype=distances.dtype, device=distances.device)
    distances = distances + 1e9 * hidden.unsqueeze(1) - 1e10 * itself
    index = torch.topk(distances, k + 1, dim=2, largest=False, sorted=True)[1][:, :, 1:]
    first_row = torch.arange(n_jets, device=distances.device).view(-1, 1, 1) * n_points
    return (index + first_row).reshape(-1)


class ParticleNet(nn.Module):
    """The tagger: six padded tensors in, class probabilities out.

    Args:
        tagger: Its inputs, classes and k.
        layout: Its widths; by default those that CMS serves.
    """

    def __init__(self, tagger: Tagger, layout: Layout | None = None) -> None:
        super().__init__()
        layout = layout or LAYOUTS[tagger.key]
        self.k = tagger.neighbours
        self.pf_conv = FeatureConv(len(tagger.candidates), FEATURE_WIDTH)
        self.sv_conv = FeatureConv(len(tagger.vertices), FEATURE_WIDTH)
        widths = (FEATURE_WIDTH, *layout.edge_blocks)
        self.blocks = nn.ModuleList(EdgeConv(n_in, n_out, self.k) for n_in, n_out in pairwise(widths))
        self.fusion = nn.Linear(sum(layout.edge_blocks), layout.fusion, bias=False)
        self.norm_fusion = nn.BatchNorm1d(layout.fusion)
        self.hidden = nn.Linear(layout.fusion, layout.hidden)
        self.dropout = nn.Dropout(DROPOUT)
        self.output = nn.Linear(layout.hidden, len(tagger.labels))

    def forward(
        self,
        pf_points: Tensor,
        pf_features: Tensor,
        pf_mask: Tensor,
        sv_points: Tensor,
        sv_features: Tensor,
        sv_mask: Tensor,
    ) -> Tensor:
        """Class probabilities (B, n_labels).

        Args:
            pf_points: (B, 2, N) relative pseudorapidity and azimuth of candidates.
            pf_features: (B, F, N) transformed features of candidates.
            pf_mask: (B, 1, N) 1 for candidates, 0 for padding.
            sv_points, sv_features, sv_mask: (B, 2, M), (B, 11, M), (B, 1, M) of vertices.
        """
        return torch.softmax(self.logits(pf_points, pf_features, pf_mask, sv_points, sv_features, sv_mask), dim=1)

    def logits(
        self,
        pf_points: Tensor,
        pf_features: Tensor,
        pf_mask: Tensor,
        sv_points: Tensor,
        sv_features: Tensor,
        sv_mask: Tensor,
    ) -> Tensor:
        """As `forward`, before the softmax."""
        n_jets = pf_points.size(0)
        mask = torch.cat([pf_mask, sv_mask], dim=2).transpose(1, 2)  # (B, P, 1)
        points = torch.cat([pf_points * pf_mask, sv_points * sv_mask], dim=2).transpose(1, 2)
        candidates = (pf_features * pf_mask).transpose(1, 2)
        vertices = (sv_features * sv_mask).transpose(1, 2)
        candidates = self.pf_conv(candidates.reshape(-1, candidates.size(2)))
        vertices = self.sv_conv(vertices.reshape(-1, vertices.size(2)))
        width = candidates.size(1)
        together = torch.cat([candidates.view(n_jets, -1, width), vertices.view(n_jets, -1, width)], dim=1)
        n_points = together.size(1)
        row_mask = mask.reshape(-1, 1)
        rows = together.reshape(-1, width) * row_mask

        hidden = (mask == 0).to(points.dtype).squeeze(2)
        distances = squared_distances_of_points(points)
        outputs = []
        for block in self.blocks:
            if len(outputs) > 0:
                distances = squared_distances_of_features(rows.view(n_jets, n_points, -1))
            rows = block(rows, nearest_neighbours(distances, hidden, self.k)) * row_mask
            outputs.append(rows)
        fused = torch.relu(self.norm_fusion(self.fusion(torch.cat(outputs, dim=1)))) * row_mask
        count = mask.sum(dim=1).clamp(min=1.0)
        pooled = fused.view(n_jets, n_points, -1).sum(dim=1) / count
        return self.output(self.dropout(torch.relu(self.hidden(pooled))))


def build(key: str) -> ParticleNet:
    """An untrained network for ``"ak4"`` or ``"ak8"``."""
    return ParticleNet(TAGGERS[key])


def count_parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
