"""The fixed-radius graph: join hits that lie close together in the space of the embedding. NumPy and SciPy only."""

import numpy as np
from scipy.spatial import cKDTree

# Metres. Beyond this |z| a track crosses disks instead of cylinders, so it moves outwards along z rather than along r.
BARREL_HALF_LENGTH = 0.55
# Below this many hits even all pairs fit into memory, so nobody has to count them first.
FEW_HITS = 1000
# The density of an event is looked at where every so many-th hit lies.
SAMPLE_EVERY = 32


class TooDense(ValueError):
    """More pairs lie within the radius than the memory limit allows."""


def outwards(features):
    """The order in which tracks cross the hits, from the beam outwards.

    Args:
        features: (n, 3) r in m, phi / pi, z in m.

    Returns:
        (n,) indices. They depend on where hits are, not on the order in which they came.
    """
    r, phi, z = features.T
    return np.lexsort((z, phi, r + np.maximum(np.abs(z) - BARREL_HALF_LENGTH, 0)))


def radius_graph(embedding, order, radius, max_neighbours, max_edges):
    """Edges between all hits that are at most ``radius`` apart in the embedding, each from the inner hit to the outer one.

    Args:
        embedding: (n, d) positions in the space of the embedding.
        order: (n,) the hits from the inside to the outside, from :func:`outwards`.
        radius: in units of that space.
        max_neighbours: edges that start at one hit, at most; the closest are kept.
        max_edges: pairs that may lie within the radius.

    Returns:
        (2, n_edges) int64 hit indices, in an order that does not depend on that of the hits.

    Raises:
        TooDense: more than ``max_edges`` pairs; raised before they take memory.
    """
    if len(order) < 2:
        return np.empty((2, 0), dtype=np.int64)
    points = embedding[order]
    tree = cKDTree(points)
    if len(points) > FEW_HITS and _estimate(tree, points, radius) > max_edges / 2:
        # Counts each pair twice, and each hit with itself. Whole branches are counted at once, so it needs no memory, but it takes
        # twice as long as finding the pairs: only when there is reason to.
        pairs_within = (tree.count_neighbors(tree, radius) - len(points)) // 2
        if pairs_within > max_edges:
            raise TooDense(
                f"{pairs_within} pairs of hits lie within the radius {radius:g} in the embedding, and at most {max_edges} are allowed"
                " (parameter max_edges of the model ExaTrk_graph)."
            )
    pairs = tree.query_pairs(radius, output_type="ndarray")
    if np.bincount(pairs[:, 0], minlength=1).max() > max_neighbours:
        pairs = _closest(points, pairs, max_neighbours)
    return np.ascontiguousarray(order[pairs.T]).astype(np.int64, copy=False)


def _estimate(tree, points, radius):
    """About how many pairs lie within the radius: the neighbours of some hits, for all."""
    neighbours = tree.query_ball_point(points[::SAMPLE_EVERY], radius, return_length=True) - 1
    return neighbours.mean() * len(points) / 2


def _closest(points, pairs, max_neighbours):
    """Of the pairs with the same first hit keep those that are closest."""
    distance = ((points[pairs[:, 0]] - points[pairs[:, 1]]) ** 2).sum(axis=1)
    pairs = pairs[np.lexsort((pairs[:, 1], distance, pairs[:, 0]))]
    first = np.searchsorted(pairs[:, 0], pairs[:, 0])
    return pairs[np.arange(len(pairs)) - first < max_neighbours]
