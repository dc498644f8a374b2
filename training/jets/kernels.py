"""Compiled loops for training on CPUs: batch norm, ReLU and neighbour sums in one pass.

PyTorch's own batch norm passes over the edge tensors, which exceed the caches, many
times. These loops fuse what can be fused; the matrix products stay with PyTorch.

All arrays are float32 and row-major. ``parts`` (n + 1,) cuts the rows into pieces, one
per thread, at borders of jets, so that sums into neighbours never collide.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

_jit = njit(parallel=True, fastmath=True, cache=True)


@_jit
def edge_sums(centre, other, neighbours, parts):
    """Sum and sum of squares, per channel, of centre[i] + other[neighbours[i, j]]."""
    n, width = parts.size - 1, centre.shape[1]
    total = np.zeros((n, 2, width))
    for p in prange(n):
        first = np.zeros(width, np.float32)
        second = np.zeros(width, np.float32)
        for i in range(parts[p], parts[p + 1]):
            for j in range(neighbours.shape[1]):
                row = neighbours[i, j]
                for c in range(width):
                    value = centre[i, c] + other[row, c]
                    first[c] += value
                    second[c] += value * value
            if i % 64 == 63:  # keep single-precision sums short
                for c in range(width):
                    total[p, 0, c] += first[c]
                    total[p, 1, c] += second[c]
                    first[c] = 0
                    second[c] = 0
        for c in range(width):
            total[p, 0, c] += first[c]
            total[p, 1, c] += second[c]
    return total.sum(axis=0)


@_jit
def edge_apply(centre, other, neighbours, scale, shift, out, parts):
    """Write relu(scale * (centre[i] + other[neighbours[i, j]]) + shift) to ``out[i, j]``."""
    width = centre.shape[1]
    for p in prange(parts.size - 1):
        for i in range(parts[p], parts[p + 1]):
            for j in range(neighbours.shape[1]):
                row = neighbours[i, j]
                for c in range(width):
                    value = scale[c] * (centre[i, c] + other[row, c]) + shift[c]
                    out[i, j, c] = max(value, np.float32(0))


@_jit
def edge_backward_sums(grad, centre, other, neighbours, scale, shift, parts):
    """Sums over edges of dy and dy * h, dy being ``grad`` where the ReLU was open."""
    n, width = parts.size - 1, centre.shape[1]
    total = np.zeros((n, 2, width))
    for p in prange(n):
        first = np.zeros(width, np.float32)
        second = np.zeros(width, np.float32)
        for i in range(parts[p], parts[p + 1]):
            for j in range(neighbours.shape[1]):
                row = neighbours[i, j]
                for c in range(width):
                    h = centre[i, c] + other[row, c]
                    dy = grad[i, j, c] if scale[c] * h + shift[c] > 0 else np.float32(0)
                    first[c] += dy
                    second[c] += dy * h
            if i % 64 == 63:
                for c in range(width):
                    total[p, 0, c] += first[c]
                    total[p, 1, c] += second[c]
                    first[c] = 0
                    second[c] = 0
        for c in range(width):
            total[p, 0, c] += first[c]
            total[p, 1, c] += second[c]
    return total.sum(axis=0)


@_jit
def edge_backward(grad, centre, other, neighbours, scale, shift, a, b, c0, d_centre, d_other, parts):
    """Gradient through batch norm and ReLU, summed into points and neighbours.

    dh = a * dy + b * h + c0. The last row of ``other`` is a stand-in for a missing
    neighbour and gets no gradient. ``d_centre`` and ``d_other`` start at 0.
    """
    width = centre.shape[1]
    missing = other.shape[0] - 1
    for p in prange(parts.size - 1):
        for i in range(parts[p], parts[p + 1]):
            for j in range(neighbours.shape[1]):
                row = neighbours[i, j]
                for c in range(width):
                    h = centre[i, c] + other[row, c]
                    dy = grad[i, j, c] if scale[c] * h + shift[c] > 0 else np.float32(0)
                    grad[i, j, c] = a[c] * dy + b[c] * h + c0[c]
                for c in range(width):
                    d_centre[i, c] += grad[i, j, c]
                if row != missing:
                    for c in range(width):
                        d_other[row, c] += grad[i, j, c]


@_jit
def row_sums(rows, parts):
    """Sum and sum of squares per channel of (n, k, width)."""
    n, width = parts.size - 1, rows.shape[2]
    total = np.zeros((n, 2, width))
    for p in prange(n):
        first = np.zeros(width, np.float32)
        second = np.zeros(width, np.float32)
        for i in range(parts[p], parts[p + 1]):
            for j in range(rows.shape[1]):
                for c in range(width):
                    value = rows[i, j, c]
                    first[c] += value
                    second[c] += value * value
            if i % 64 == 63:
                for c in range(width):
                    total[p, 0, c] += first[c]
                    total[p, 1, c] += second[c]
                    first[c] = 0
                    second[c] = 0
        for c in range(width):
            total[p, 0, c] += first[c]
            total[p, 1, c] += second[c]
    return total.sum(axis=0)


@_jit
def row_apply(rows, scale, shift, floor, out, parts):
    """Write max(scale * rows + shift, floor) to ``out``; a floor of 0 is a ReLU, of -1e30 none."""
    width = rows.shape[2]
    for p in prange(parts.size - 1):
        for i in range(parts[p], parts[p + 1]):
            for j in range(rows.shape[1]):
                for c in range(width):
                    out[i, j, c] = max(scale[c] * rows[i, j, c] + shift[c], floor)


@_jit
def row_backward_sums(grad, rows, scale, shift, floor, parts):
    """Sums of dy and dy * h for (n, k, width) rows; ``grad`` may be (n, 1, width)."""
    n, width = parts.size - 1, rows.shape[2]
    spread = grad.shape[1] == 1
    total = np.zeros((n, 2, width))
    for p in prange(n):
        first = np.zeros(width, np.float32)
        second = np.zeros(width, np.float32)
        for i in range(parts[p], parts[p + 1]):
            for j in range(rows.shape[1]):
                g = 0 if spread else j
                for c in range(width):
                    h = rows[i, j, c]
                    dy = grad[i, g, c] if scale[c] * h + shift[c] > floor else np.float32(0)
                    first[c] += dy
                    second[c] += dy * h
            if i % 64 == 63:
                for c in range(width):
                    total[p, 0, c] += first[c]
                    total[p, 1, c] += second[c]
                    first[c] = 0
                    second[c] = 0
        for c in range(width):
            total[p, 0, c] += first[c]
            total[p, 1, c] += second[c]
    return total.sum(axis=0)


@_jit
def row_backward(grad, rows, scale, shift, floor, a, b, c0, out, parts):
    """Write a * dy + b * h + c0 to ``out``; ``out`` may be ``rows`` itself."""
    width = rows.shape[2]
    spread = grad.shape[1] == 1
    for p in prange(parts.size - 1):
        for i in range(parts[p], parts[p + 1]):
            for j in range(rows.shape[1]):
                g = 0 if spread else j
                for c in range(width):
                    h = rows[i, j, c]
                    dy = grad[i, g, c] if scale[c] * h + shift[c] > floor else np.float32(0)
                    out[i, j, c] = a[c] * dy + b[c] * h + c0[c]


@_jit
def row_apply_mean(rows, scale, shift, out, parts):
    """Write the mean over j of relu(scale * rows[i, j] + shift) to ``out[i]``."""
    width, k = rows.shape[2], rows.shape[1]
    for p in prange(parts.size - 1):
        for i in range(parts[p], parts[p + 1]):
            for c in range(width):
                out[i, c] = 0
            for j in range(k):
                for c in range(width):
                    out[i, c] += max(scale[c] * rows[i, j, c] + shift[c], np.float32(0))
            for c in range(width):
                out[i, c] /= np.float32(k)
