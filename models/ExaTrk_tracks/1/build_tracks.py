"""From scored edges to tracks: walk from hit to hit along the best edges, then mend tracks that fell apart. NumPy only."""

import numpy as np

# Metres. Beyond this |z| a track crosses disks instead of cylinders, so it moves outwards along z rather than along r.
BARREL_HALF_LENGTH = 0.55
NOBODY = -1


def build_tracks(features, edges, follows, same, cut, mend_cut, min_hits):
    """Give each hit the label of its track.

    A hit has at most one next hit: where edges compete, the higher score wins. That walk leaves pieces of tracks wherever an
    edge is missing. Two pieces become one if one begins where the other has ended and an edge between any of their hits
    says that they are of the same particle.

    Args:
        features: (n_hits, 3) r in m, phi / pi, z in m.
        edges: (2, n_edges) hit indices, inner hit first.
        follows: (n_edges,) score from 0 to 1 that both hits follow each other on the way of a particle.
        same: (n_edges,) score from 0 to 1 that both hits are of the same particle.
        cut: lowest ``follows`` of an edge to walk along.
        mend_cut: lowest ``same`` of an edge that joins two pieces.
        min_hits: tracks of fewer hits are given up.

    Returns:
        (n_hits,) int64 labels 0, 1, ...; hits without a track are -1.
    """
    walk = follows >= cut
    piece = _pieces(best_partners(edges[0, walk], edges[1, walk], follows[walk], len(features)))
    piece = _mend(features, edges, same, mend_cut, piece)
    long_enough = np.bincount(piece) >= min_hits
    return np.where(long_enough, np.cumsum(long_enough) - 1, NOBODY)[piece]


def best_partners(source, target, score, size):
    """Pair sources with targets, each at most once, the highest score first.

    Args:
        source, target: (n_edges,) indices below ``size``.
        score: (n_edges,) any numbers.
        size: how many there are of each.

    Returns:
        (size,) the partner of each source, -1 where it has none.
    """
    order = np.argsort(-score, kind="stable")
    source, target = source[order], target[order]
    partner = np.full(size, NOBODY, dtype=np.int64)
    taken = np.zeros(size, dtype=bool)
    best_of_source, best_of_target = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.int64)
    while len(source):
        rank = np.arange(len(source))
        # Written from the worst to the best, so that the best stays.
        best_of_source[source[::-1]] = rank[::-1]
        best_of_target[target[::-1]] = rank[::-1]
        agreed = (best_of_source[source] == rank) & (best_of_target[target] == rank)
        partner[source[agreed]] = target[agreed]
        taken[target[agreed]] = True
        free = (partner[source] == NOBODY) & ~taken[target]
        source, target = source[free], target[free]
    return partner


def _pieces(following):
    """(n,) for each hit the number of its chain, 0, 1, ...; chains have no loops, since edges lead outwards."""
    hits = np.arange(len(following))
    first = hits.copy()
    linked = np.flatnonzero(following != NOBODY)
    first[following[linked]] = linked
    while not np.array_equal(further := first[first], first):
        first = further
    return (np.cumsum(first == hits) - 1)[first]


def _mend(features, edges, same, mend_cut, piece):
    """Join pieces of tracks one after the other: (n_hits,) pieces to (n_hits,) pieces."""
    inner, outer = piece[edges[0]], piece[edges[1]]
    candidates = (same >= mend_cut) & (inner != outer)
    inner, outer, same = inner[candidates], outer[candidates], same[candidates]
    if not len(inner):
        return piece
    begin, end = _extent(features, piece)
    after = end[inner] <= begin[outer]
    return _pieces(best_partners(inner[after], outer[after], same[after], len(begin)))[piece]


def _extent(features, piece):
    """How far out each piece begins and ends, two arrays of (n_pieces,) metres."""
    way = features[:, 0] + np.maximum(np.abs(features[:, 2]) - BARREL_HALF_LENGTH, 0)
    outwards = np.argsort(way)
    begin, end = np.empty((2, piece.max() + 1), dtype=way.dtype)
    # What is written last stays.
    begin[piece[outwards[::-1]]] = way[outwards[::-1]]
    end[piece[outwards]] = way[outwards]
    return begin, end
