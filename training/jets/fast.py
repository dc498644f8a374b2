"""The network's forward and backward pass for training on CPUs.

Same parameters and same mathematics as `model.ParticleNet` in training mode, with two
differences: padding is left out of the computation (and so of the batch statistics),
and each edge block may use a random part of the k neighbours, which estimates the mean
over all k without bias at a fraction of the cost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from . import kernels
from .model import (
    EdgeConv,
    FeatureConv,
    ParticleNet,
    nearest_neighbours,
    squared_distances_of_features,
    squared_distances_of_points,
)

NO_FLOOR = np.float32(-1e30)
RELU_FLOOR = np.float32(0.0)


class Workspace:
    """Buffers that live from step to step: fresh memory would cost a page fault per 4 kB."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def get(self, name: str, *shape: int) -> Tensor:
        """An uninitialised contiguous tensor of this shape; the last one of this name is invalid."""
        size = int(np.prod(shape))
        held = self._buffers.get(name)
        if held is None or held.numel() < size:
            held = self._buffers[name] = torch.empty(int(size * 1.1))
        return held[:size].view(shape)


@dataclass
class _Norm:
    """Batch norm in the form that the kernels take: y = scale * h + shift."""

    mean: np.ndarray
    inverse: np.ndarray
    scale: np.ndarray
    shift: np.ndarray
    n: int

    @classmethod
    def from_sums(cls, sums: np.ndarray, n: int, gamma: Tensor, beta: Tensor, norm: nn.BatchNorm1d) -> _Norm:
        mean = sums[0] / n
        variance = np.maximum(sums[1] / n - mean**2, 0)
        inverse = 1 / np.sqrt(variance + norm.eps)
        scale = gamma.detach().numpy() * inverse
        shift = beta.detach().numpy() - mean * scale
        if norm.training:
            unbiased = variance * n / max(n - 1, 1)
            norm.running_mean.lerp_(torch.from_numpy(mean.astype(np.float32)), norm.momentum)
            norm.running_var.lerp_(torch.from_numpy(unbiased.astype(np.float32)), norm.momentum)
        return cls(mean, inverse, scale.astype(np.float32), shift.astype(np.float32), n)

    def backward(self, sums: np.ndarray) -> tuple[tuple, Tensor, Tensor]:
        """Coefficients of dh = a * dy + b * h + c, and the gradients of gamma and beta."""
        d_beta = sums[0]
        d_gamma = self.inverse * (sums[1] - self.mean * sums[0])
        b = -self.scale * self.inverse * d_gamma / self.n
        c = self.scale * (self.mean * self.inverse * d_gamma - d_beta) / self.n
        coefficients = (self.scale, b.astype(np.float32), c.astype(np.float32))
        return (
            coefficients,
            torch.from_numpy(d_gamma.astype(np.float32)),
            torch.from_numpy(d_beta.astype(np.float32)),
        )


class _NormAct(torch.autograd.Function):
    """Batch norm of (rows, width), with or without a ReLU."""

    @staticmethod
    def forward(ctx, rows, gamma, beta, norm, floor, parts):
        array = rows.detach().numpy()[:, None, :]
        state = _Norm.from_sums(kernels.row_sums(array, parts), array.shape[0], gamma, beta, norm)
        out = torch.empty_like(rows)
        kernels.row_apply(array, state.scale, state.shift, floor, out.numpy()[:, None, :], parts)
        ctx.held = (array, state, floor, parts)
        return out

    @staticmethod
    def backward(ctx, grad):
        array, state, floor, parts = ctx.held
        g = grad.contiguous().numpy()[:, None, :]
        sums = kernels.row_backward_sums(g, array, state.scale, state.shift, floor, parts)
        coefficients, d_gamma, d_beta = state.backward(sums)
        out = torch.empty(array.shape[0], array.shape[2])
        kernels.row_backward(g, array, state.scale, state.shift, floor, *coefficients, out.numpy()[:, None, :], parts)
        return out, d_gamma, d_beta, None, None, None


def _normalise(rows: Tensor, norm: nn.BatchNorm1d, floor, parts) -> Tensor:
    return _NormAct.apply(rows.contiguous(), norm.weight, norm.bias, norm, floor, parts)


class _EdgeMean(torch.autograd.Function):
    """The three edge convolutions and the mean over neighbours: (T, n_in) to (T, width)."""

    @staticmethod
    def forward(ctx, rows, w1, w2, w3, g1, b1, g2, b2, g3, b3, block, neighbours, parts, work, name):
        n, n_in = rows.shape
        k, width = neighbours.shape[1], w1.shape[0]
        edges = n * k
        centre = rows @ (w1[:, :n_in] - w1[:, n_in:]).t()
        other = torch.zeros(n + 1, width)
        torch.mm(rows, w1[:, n_in:].t(), out=other[:n])
        u, v = centre.numpy(), other.numpy()

        first = _Norm.from_sums(kernels.edge_sums(u, v, neighbours, parts), edges, g1, b1, block.norm_first)
        a1 = work.get(name + "a1", n, k, width)
        kernels.edge_apply(u, v, neighbours, first.scale, first.shift, a1.numpy(), parts)
        h2 = work.get(name + "h2", n, k, width)
        torch.mm(a1.view(edges, width), w2.t(), out=h2.view(edges, width))
        second = _Norm.from_sums(kernels.row_sums(h2.numpy(), parts), edges, g2, b2, block.norm_second)
        a2 = work.get(name + "a2", n, k, width)
        kernels.row_apply(h2.numpy(), second.scale, second.shift, RELU_FLOOR, a2.numpy(), parts)
        h3 = work.get(name + "h3", n, k, width)
        torch.mm(a2.view(edges, width), w3.t(), out=h3.view(edges, width))
        third = _Norm.from_sums(kernels.row_sums(h3.numpy(), parts), edges, g3, b3, block.norm_third)
        out = torch.empty(n, width)
        kernels.row_apply_mean(h3.numpy(), third.scale, third.shift, out.numpy(), parts)

        ctx.save_for_backward(rows, w1, w2, w3)
        ctx.held = (u, v, a1, h2, a2, h3, first, second, third, neighbours, parts)
        return out

    @staticmethod
    def backward(ctx, grad):
        rows, w1, w2, w3 = ctx.saved_tensors
        u, v, a1, h2, a2, h3, first, second, third, neighbours, parts = ctx.held
        n, k, width = a1.shape
        edges, n_in = n * k, rows.shape[1]
        g = (grad / k).contiguous().numpy()[:, None, :]

        def through(g, h, norm):
            sums = kernels.row_backward_sums(g, h.numpy(), norm.scale, norm.shift, RELU_FLOOR, parts)
            coefficients, d_gamma, d_beta = norm.backward(sums)
            kernels.row_backward(g, h.numpy(), norm.scale, norm.shift, RELU_FLOOR, *coefficients, h.numpy(), parts)
            return h.view(edges, width), d_gamma, d_beta

        d3, d_g3, d_b3 = through(g, h3, third)
        d_w3 = d3.t() @ a2.view(edges, width)
        torch.mm(d3, w3, out=a2.view(edges, width))
        d2, d_g2, d_b2 = through(a2.numpy(), h2, second)
        d_w2 = d2.t() @ a1.view(edges, width)
        torch.mm(d2, w2, out=a1.view(edges, width))
        g1 = a1.numpy()
        sums = kernels.edge_backward_sums(g1, u, v, neighbours, first.scale, first.shift, parts)
        coefficients, d_g1, d_b1 = first.backward(sums)
        d_centre, d_other = torch.zeros(n, width), torch.zeros(n, width)
        kernels.edge_backward(
            g1, u, v, neighbours, first.scale, first.shift, *coefficients,
            d_centre.numpy(), d_other.numpy(), parts,
        )  # fmt: skip
        d_rows = d_centre @ (w1[:, :n_in] - w1[:, n_in:]) + d_other @ w1[:, n_in:]
        d_difference = d_centre.t() @ rows
        d_w1 = torch.cat([d_difference, d_other.t() @ rows - d_difference], dim=1)
        return d_rows, d_w1, d_w2, d_w3, d_g1, d_b1, d_g2, d_b2, d_g3, d_b3, None, None, None, None, None


@dataclass
class PackedBatch:
    """Jets without padding: candidates first, then vertices, jet by jet.

    Attributes:
        candidates: (n_candidates, F) transformed.
        vertices: (n_vertices, 11) transformed.
        points: (T, 2) of all points, in their final order.
        order: (T,) position of each final point in candidates followed by vertices.
        place: (T,) position of each point in a padded (B, P) array.
        counts: (B,) points per jet.
        parts: Row borders between threads.
    """

    candidates: Tensor
    vertices: Tensor
    points: Tensor
    order: Tensor
    place: Tensor
    counts: Tensor
    parts: np.ndarray


def _feature_rows(conv: FeatureConv, rows: Tensor) -> Tensor:
    parts = np.array([0, rows.shape[0]])
    rows = _normalise(rows, conv.norm_in, NO_FLOOR, parts)
    return _normalise(conv.linear(rows), conv.norm_out, RELU_FLOOR, parts)


@torch.no_grad()
def _neighbours(rows: Tensor, batch: PackedBatch, k: int, used: int, first: bool) -> np.ndarray:
    """(T, used) neighbour rows, T standing for "there is none"."""
    n_jets, n_points = batch.counts.numel(), max(int(batch.counts.max()), k + 1)
    total = rows.shape[0]
    jet = torch.repeat_interleave(torch.arange(n_jets), batch.counts)
    flat = jet * n_points + batch.place
    padded = rows.new_zeros(n_jets * n_points, rows.shape[1])
    padded[flat] = rows
    hidden = torch.ones(n_jets * n_points)
    hidden[flat] = 0
    padded = padded.view(n_jets, n_points, -1)
    distances = squared_distances_of_points(padded) if first else squared_distances_of_features(padded)
    index = nearest_neighbours(distances, hidden.view(n_jets, n_points), k).view(-1, k)[flat]
    if used < k:
        chosen = torch.rand(total, k).topk(used, dim=1, sorted=False)[1]
        index = index.gather(1, chosen)
    row_of = torch.full((n_jets * n_points,), total)
    row_of[flat] = torch.arange(total)
    return row_of[index].to(torch.int32).numpy()


def _edge_block(block: EdgeConv, rows: Tensor, neighbours: np.ndarray, parts, work, name: str) -> Tensor:
    norms = (block.norm_first, block.norm_second, block.norm_third)
    affine = [p for norm in norms for p in (norm.weight, norm.bias)]
    mean = _EdgeMean.apply(
        rows, block.first.weight, block.second.weight, block.third.weight, *affine,
        block, neighbours, parts, work, name,
    )  # fmt: skip
    shortcut = _normalise(block.shortcut(rows), block.norm_shortcut, NO_FLOOR, parts)
    return torch.relu(mean + shortcut)


def logits(model: ParticleNet, batch: PackedBatch, work: Workspace, used_neighbours: int) -> Tensor:
    """Class scores (B, n_labels) of a packed batch in training mode.

    Args:
        model: The network; its batch-norm statistics are updated.
        batch: The jets.
        work: Buffers; one batch at a time, forward then backward.
        used_neighbours: How many of the k neighbours to use, at random.
    """
    together = torch.cat([_feature_rows(model.pf_conv, batch.candidates), _feature_rows(model.sv_conv, batch.vertices)])
    rows = together[batch.order]
    outputs: list[Tensor] = []
    for i, block in enumerate(model.blocks):
        source = batch.points if i == 0 else rows
        neighbours = _neighbours(source, batch, model.k, used_neighbours, first=i == 0)
        rows = _edge_block(block, rows, neighbours, batch.parts, work, f"block{i}")
        outputs.append(rows)
    fused = _normalise(model.fusion(torch.cat(outputs, dim=1)), model.norm_fusion, RELU_FLOOR, batch.parts)
    jet = torch.repeat_interleave(torch.arange(batch.counts.numel()), batch.counts)
    pooled = fused.new_zeros(batch.counts.numel(), fused.shape[1]).index_add(0, jet, fused)
    pooled = pooled / batch.counts.clamp(min=1).unsqueeze(1)
    return model.output(model.dropout(torch.relu(model.hidden(pooled))))
