"""Batches of jets for training: packed, of similar length, shuffled.

Jets are sorted into batches of similar length, so that the neighbour search, the one
step that works on padded arrays, wastes little.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from .dataset import JetTable, candidate_columns_of, transform
from .fast import PackedBatch
from .features import CANDIDATE_FEATURES, VERTEX_FEATURES, Tagger

BUCKET_BATCHES = 24
"""Batches over which jets are sorted by length: mixes classes well, keeps lengths alike."""


class TrainingSet:
    """Jets in memory, transformed, ready to be cut into packed batches.

    Args:
        table: The jets.
        tagger: Which network they are for.
    """

    def __init__(self, table: JetTable, tagger: Tagger) -> None:
        columns = candidate_columns_of(tagger)
        names = [f.name for f in CANDIDATE_FEATURES]
        axes = [names.index("pfcand_etarel"), names.index("pfcand_phirel")]
        sv_names = [f.name for f in VERTEX_FEATURES]
        sv_axes = [sv_names.index("sv_etarel"), sv_names.index("sv_phirel")]
        self.candidates = transform(table.candidates[:, columns], tagger.candidates)
        self.candidate_points = np.ascontiguousarray(table.candidates[:, axes])
        self.vertices = transform(table.vertices, tagger.vertices)
        self.vertex_points = np.ascontiguousarray(table.vertices[:, sv_axes])
        self.n_candidates = table.n_candidates.astype(np.int64)
        self.n_vertices = table.n_vertices.astype(np.int64)
        self.first_candidate = np.cumsum(self.n_candidates) - self.n_candidates
        self.first_vertex = np.cumsum(self.n_vertices) - self.n_vertices
        self.label = torch.from_numpy(table.label.astype(np.int64))

    def __len__(self) -> int:
        return self.label.numel()

    def epoch(self, rng: np.random.Generator, batch_size: int, weight: NDArray, share: float = 1.0) -> list[NDArray]:
        """Jet numbers of the batches of one epoch, or of a random share of one.

        Args:
            rng: Source of the shuffling.
            batch_size: Jets per batch.
            weight: (n_jets,) relative chance of each jet to be drawn; the mean is set to 1.
            share: Part of an epoch.
        """
        expected = share * weight / weight.mean()
        copies = np.floor(expected + rng.random(len(self))).astype(np.int64)
        chosen = np.repeat(np.arange(len(self)), copies)
        rng.shuffle(chosen)
        batches = []
        for bucket in np.array_split(chosen, max(1, round(chosen.size / (batch_size * BUCKET_BATCHES)))):
            bucket = bucket[np.argsort(self.n_candidates[bucket], kind="stable")]
            batches += np.array_split(bucket, max(1, round(bucket.size / batch_size)))
        rng.shuffle(batches := list(batches))
        return batches

    def pack(self, jets: NDArray, longest: int, threads: int) -> PackedBatch:
        """The packed batch of these jets.

        Args:
            jets: Jet numbers.
            longest: Candidates kept per jet.
            threads: Pieces for the compiled loops.
        """
        n_candidates = np.minimum(self.n_candidates[jets], longest)
        n_vertices = self.n_vertices[jets]
        candidate = _rows(self.first_candidate[jets], n_candidates)
        vertex = _rows(self.first_vertex[jets], n_vertices)
        counts = n_candidates + n_vertices
        starts = np.cumsum(counts) - counts
        place_candidate = _rows(np.zeros(jets.size, np.int64), n_candidates)
        place_vertex = _rows(n_candidates, n_vertices)
        position = np.r_[np.repeat(starts, n_candidates) + place_candidate, np.repeat(starts, n_vertices) + place_vertex]
        order = np.empty(position.size, np.int64)
        order[position] = np.arange(position.size)
        points = np.concatenate([self.candidate_points[candidate], self.vertex_points[vertex]])[order]
        place = np.r_[place_candidate, place_vertex][order]
        borders = np.r_[0, np.cumsum(counts)]
        cuts = borders[np.linspace(0, jets.size, 2 * threads + 1).astype(int)]
        return PackedBatch(
            candidates=torch.from_numpy(self.candidates[candidate]),
            vertices=torch.from_numpy(self.vertices[vertex]),
            points=torch.from_numpy(points),
            order=torch.from_numpy(order),
            place=torch.from_numpy(place),
            counts=torch.from_numpy(counts),
            parts=cuts.astype(np.int64),
        )

    def padded(self, jets: NDArray) -> tuple[torch.Tensor, ...]:
        """The six tensors of `model.ParticleNet` for these jets (for evaluation)."""
        tensors = []
        for values, points, first, counts, least in (
            (self.candidates, self.candidate_points, self.first_candidate, self.n_candidates, 16),
            (self.vertices, self.vertex_points, self.first_vertex, self.n_vertices, 1),
        ):
            n = counts[jets]
            length = max(least, int(n.max(initial=0)))
            row, place = np.repeat(np.arange(jets.size), n), _rows(np.zeros(jets.size, np.int64), n)
            source = _rows(first[jets], n)
            for data in (points, values, np.ones((len(values), 1), np.float32)):
                array = np.zeros((jets.size, length, data.shape[1]), np.float32)
                array[row, place] = data[source]
                tensors.append(torch.from_numpy(array).transpose(1, 2))
        return tuple(tensors)

    def evaluation_batches(self, batch_size: int) -> Iterator[NDArray]:
        """All jets, in batches of similar length."""
        order = np.argsort(self.n_candidates, kind="stable")
        yield from np.array_split(order, max(1, len(self) // batch_size))


def _rows(first: NDArray, counts: NDArray) -> NDArray[np.int64]:
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(first, counts) + within


def class_weights(label: NDArray, n_labels: int, power: float = 0.5) -> NDArray[np.float64]:
    """Chance of each jet to be drawn: rarer classes more often, by ``power`` of the imbalance."""
    share = np.bincount(label, minlength=n_labels) / label.size
    per_class = np.divide(1.0, share, out=np.zeros(n_labels), where=share > 0) ** power
    return np.minimum(per_class / np.average(per_class, weights=share), 6.0)[label]
