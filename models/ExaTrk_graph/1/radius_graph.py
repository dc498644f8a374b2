"""The fixed-radius graph: join hits that lie close together in the space of the embedding. NumPy only.

All pairs that may be close are compared by multiplying matrices, block by block, in single precision; the few that lie on the edge
are looked at again in double precision, so the graph is that of brute force. In the 8 dimensions of the embedding, whose hits hardly
ever are alone in any direction, this takes a third of the time of a k-d tree.
"""

import numpy as np

# Metres. Beyond this |z| a track crosses disks instead of cylinders, so it moves outwards along z rather than along r.
BARREL_HALF_LENGTH = 0.55
# Hits that are compared with their neighbours at once: enough to keep NumPy busy, few enough to stay in the processor's cache.
BLOCK = 128
# Single precision as long as it leaves at most this part of the squared radius in doubt.
DOUBT = 0.01


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
    way = r + np.maximum(np.abs(z) - BARREL_HALF_LENGTH, 0)
    order = np.argsort(way)
    # Sorting by all three at once would take five times as long, and few hits are as far out as another one.
    equal = way[order[1:]] == way[order[:-1]]
    tied = np.flatnonzero(np.append(equal, False) | np.append(False, equal))
    some = order[tied]
    order[tied] = some[np.lexsort((z[some], phi[some], way[some]))]
    return order


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
    points = embedding[order].astype(np.float64)
    pairs = close_pairs(points, radius, max_edges)
    if pairs.size and np.bincount(pairs[0]).max() > max_neighbours:
        pairs = _closest(points, pairs, max_neighbours)
    return order[pairs]


def close_pairs(points, radius, most):
    """All pairs of points that are at most ``radius`` apart.

    Points are turned on their principal axes, cut into strips along the first one and sorted along the second one inside each
    strip: the neighbours of a block of points are then two slices, one of its own strip and one of the next.

    Args:
        points: (n, d) double precision.
        radius: above 0.
        most: pairs, at most.

    Returns:
        (2, n_pairs) indices, the lower one first.

    Raises:
        TooDense: there are more.
    """
    turned = principal_axes(points)
    square = np.einsum("ij,ij->i", turned, turned)
    precision, doubt = _precision(square.max(), points.shape[1], radius)
    low, high = precision(radius**2 - doubt), precision(radius**2 + doubt)
    reach = np.sqrt(radius**2 + doubt)
    strip = np.floor(turned[:, 0] / reach)
    by_place = np.lexsort((turned[:, 1], strip))
    strip, along = strip[by_place], turned[by_place, 1]
    # The product of a row of left and a column of right is the squared distance of the two points.
    left = np.empty((len(points), points.shape[1] + 2), dtype=precision)
    left[:, :-2], left[:, -2], left[:, -1] = turned[by_place], square[by_place], 1
    right = np.ascontiguousarray(left.T)
    right[:-2] *= -2
    right[[-2, -1]] = right[[-1, -2]]
    blocks = _blocks(strip, along, reach)
    distances = np.empty(BLOCK * max(end - begin for _, _, begin, end in blocks), dtype=precision)
    upper = np.triu(np.ones((BLOCK, BLOCK), dtype=bool), k=1)
    found, lengths, n_pairs = [], [], 0
    for first, last, begin, end in blocks:
        distance = distances[: (last - first) * (end - begin)].reshape(last - first, end - begin)
        np.matmul(left[first:last], right[:, begin:end], out=distance)
        close = distance <= high
        if begin == first:
            close[:, : last - first] &= upper[: last - first, : last - first]
        place = np.flatnonzero(close)
        found.append(place)
        lengths.append(distance.ravel()[place])
        n_pairs += len(place)
        if n_pairs > most:
            raise TooDense(
                f"more than {most} pairs of hits lie within the radius {radius:g} in the embedding, and at most {most} are allowed"
                " (parameter max_edges of the model ExaTrk_graph)."
            )
    first, _, begin, end = np.repeat(np.array(blocks).T, [len(place) for place in found], axis=1)
    row, column = np.divmod(np.concatenate(found), end - begin)
    one, other = by_place[first + row], by_place[begin + column]
    unsure = np.flatnonzero(np.concatenate(lengths) >= low)
    far = unsure[((points[one[unsure]] - points[other[unsure]]) ** 2).sum(axis=1) > radius**2]
    pairs = np.stack([np.minimum(one, other), np.maximum(one, other)])
    return np.delete(pairs, far, axis=1) if len(far) else pairs


def principal_axes(points):
    """The same points, turned so that their first axis is the one along which they differ most, and so on."""
    centred = points - points.mean(axis=0)
    return centred @ np.linalg.eigh(centred.T @ centred)[1][:, ::-1]


def _precision(largest, dimensions, radius):
    """The type to compute squared distances in, and by how much rounding may change them.

    Args:
        largest: square of the distance of the outermost point from the origin.
        dimensions: of the space.
        radius: that distances are compared with.
    """
    for precision in (np.float32, np.float64):
        # A sum of d + 2 products of up to 2 * largest, each rounded, of numbers that were rounded before.
        doubt = 8 * (dimensions + 2) * np.finfo(precision).eps * largest
        if doubt < DOUBT * radius**2:
            break
    return precision, float(doubt)


def _blocks(strip, along, reach):
    """Which points to compare with which: (first, last, begin, end) of both slices, each pair of points in one of them.

    Args:
        strip: (n,) sorted numbers of strips, each as wide as ``reach``.
        along: (n,) where points lie along their strip, sorted in each.
        reach: points that are further apart need not be compared.
    """
    blocks = []
    starts = np.flatnonzero(np.diff(strip, prepend=-np.inf)).tolist()
    stops = [*starts[1:], len(strip)]
    for number, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        beside = number + 1 < len(starts) and strip[stop] - strip[start] == 1
        here, there = along[start:stop], along[stop : stops[number + 1]] if beside else along[:0]
        for first in range(start, stop, BLOCK):
            last = min(first + BLOCK, stop)
            upmost = along[last - 1] + reach
            blocks.append((first, last, first, start + int(here.searchsorted(upmost, "right"))))
            begin, end = there.searchsorted(along[first] - reach), there.searchsorted(upmost, "right")
            if begin < end:
                blocks.append((first, last, stop + int(begin), stop + int(end)))
    return blocks


def _closest(points, pairs, max_neighbours):
    """Of the pairs with the same first hit keep those that are closest."""
    distance = ((points[pairs[0]] - points[pairs[1]]) ** 2).sum(axis=1)
    pairs = pairs[:, np.lexsort((pairs[1], distance, pairs[0]))]
    first = np.searchsorted(pairs[0], pairs[0])
    return pairs[:, np.arange(pairs.shape[1]) - first < max_neighbours]
