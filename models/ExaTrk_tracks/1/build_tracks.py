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
    n_hits = len(features)
    walk = follows >= cut
    following = best_partners(edges[0, walk], edges[1, walk], follows[walk], n_hits)
    piece = _number(_heads(following))
    piece = _mend(features, edges, same, mend_cut, piece)
    size = np.bincount(piece, minlength=1)
    piece = np.where(size[piece] >= min_hits, piece, NOBODY) if n_hits else piece
    labels = np.full(n_hits, NOBODY, dtype=np.int64)
    labels[piece != NOBODY] = _number(piece[piece != NOBODY])
    return labels


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


def _heads(following):
    """(n,) for each hit the first of its chain; chains have no loops, since edges lead outwards."""
    head = np.arange(len(following))
    linked = np.flatnonzero(following != NOBODY)
    head[following[linked]] = linked
    while True:
        further = head[head]
        if np.array_equal(further, head):
            return head
        head = further


def _mend(features, edges, same, mend_cut, piece):
    """Join pieces of tracks one after the other: (n_hits,) pieces to (n_hits,) pieces."""
    inner, outer = piece[edges[0]], piece[edges[1]]
    candidates = (same >= mend_cut) & (inner != outer)
    inner, outer, same = inner[candidates], outer[candidates], same[candidates]
    if not len(inner):
        return piece
    way = features[:, 0] + np.maximum(np.abs(features[:, 2]) - BARREL_HALF_LENGTH, 0)
    n_pieces = piece.max() + 1
    begin, end = np.full(n_pieces, np.inf), np.full(n_pieces, -np.inf)
    np.minimum.at(begin, piece, way)
    np.maximum.at(end, piece, way)
    after = end[inner] <= begin[outer]
    following = best_partners(inner[after], outer[after], same[after], n_pieces)
    return _number(_heads(following)[piece])


def _number(names):
    """The same names as numbers 0, 1, ..."""
    return np.unique(names, return_inverse=True)[1].reshape(-1)
