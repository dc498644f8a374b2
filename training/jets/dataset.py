"""Jets on disk and in memory: ragged arrays in compressed files, one per shard.

A `JetTable` holds any number of jets. Candidates and vertices are flat, jet by jet,
with counts; values are those before the transforms of the feature table.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .features import CANDIDATE_FEATURES, VERTEX_FEATURES, Feature, Tagger


@dataclass
class JetTable:
    """Jets with their candidates, vertices and truth.

    Attributes:
        candidates: (n_candidates, 25) float32.
        n_candidates: (n_jets,).
        vertices: (n_vertices, 11) float32.
        n_vertices: (n_jets,).
        pt, eta, phi, mass: (n_jets,) of the jets, GeV and rad.
        label: (n_jets,) index into the tagger's labels.
        n_b, n_c: (n_jets,) bottom and charm hadrons in the jets.
        event: (n_jets,) event number, unique within a tagger and purpose.
        process: (n_jets,) index into `processes.PROCESSES`.
    """

    candidates: NDArray[np.float32]
    n_candidates: NDArray[np.int32]
    vertices: NDArray[np.float32]
    n_vertices: NDArray[np.int32]
    pt: NDArray[np.float32]
    eta: NDArray[np.float32]
    phi: NDArray[np.float32]
    mass: NDArray[np.float32]
    label: NDArray[np.int32]
    n_b: NDArray[np.int32]
    n_c: NDArray[np.int32]
    event: NDArray[np.int64]
    process: NDArray[np.int32]

    def __len__(self) -> int:
        return self.label.size

    def take(self, index: NDArray) -> JetTable:
        """The jets at ``index``, in that order."""
        return JetTable(
            **{f.name: getattr(self, f.name)[index] for f in fields(self) if f.name not in ("candidates", "vertices")},
            candidates=self.candidates[ragged_index(self.n_candidates, index)],
            vertices=self.vertices[ragged_index(self.n_vertices, index)],
        )

    def save(self, path: Path) -> None:
        """Write atomically: a file that exists is complete."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.npz")
        np.savez(partial, **{f.name: getattr(self, f.name) for f in fields(self)})
        partial.replace(path)

    @classmethod
    def load(cls, path: Path) -> JetTable:
        """Read what `save` wrote."""
        with np.load(path) as stored:
            return cls(**{f.name: stored[f.name] for f in fields(cls)})

    @classmethod
    def concatenate(cls, tables: Sequence[JetTable]) -> JetTable:
        """All jets of several tables."""
        return cls(**{f.name: np.concatenate([getattr(t, f.name) for t in tables]) for f in fields(cls)})


def ragged_index(counts: NDArray, index: NDArray) -> NDArray[np.int64]:
    """Positions, in a flat array, of the elements of the chosen rows."""
    starts = np.cumsum(counts, dtype=np.int64) - counts
    chosen = counts[index].astype(np.int64)
    within = np.arange(chosen.sum()) - np.repeat(np.cumsum(chosen) - chosen, chosen)
    return np.repeat(starts[index], chosen) + within


def transform(values: NDArray, features: Sequence[Feature]) -> NDArray[np.float32]:
    """Apply the table: ``clip((x - median) * norm, lower, upper)``, not-a-number and infinite to 0.

    Args:
        values: (n, n_features) as stored.
        features: In the same order.
    """
    median = np.array([f.median for f in features], np.float32)
    norm = np.array([f.norm for f in features], np.float32)
    lower, upper = np.array([f.bounds for f in features], np.float32).T
    finite = np.where(np.isfinite(values), values, 0)
    return np.clip((finite - median) * norm, lower, upper).astype(np.float32)


def candidate_columns_of(tagger: Tagger) -> list[int]:
    """Which of the 25 stored columns the tagger takes."""
    stored = [f.name for f in CANDIDATE_FEATURES]
    return [stored.index(f.name) for f in tagger.candidates]


def padded_inputs(
    table: JetTable, tagger: Tagger, n_candidates: int | None = None, n_vertices: int | None = None
) -> dict[str, NDArray[np.float32]]:
    """The six input tensors of the served models.

    Args:
        table: The jets.
        tagger: Which model.
        n_candidates: Length of the candidate axis; by default that of the longest jet, and
            not less than the network needs.
        n_vertices: Length of the vertex axis, likewise, at least 1.

    Returns:
        ``pf_points`` (n_jets, 2, N), ``pf_features`` (n_jets, F, N), ``pf_mask`` (n_jets, 1, N),
        ``sv_points`` (n_jets, 2, M), ``sv_features`` (n_jets, 11, M), ``sv_mask`` (n_jets, 1, M).
    """
    candidate_names = [f.name for f in CANDIDATE_FEATURES]
    vertex_names = [f.name for f in VERTEX_FEATURES]
    inputs: dict[str, NDArray[np.float32]] = {}
    for prefix, values, counts, features, names, longest, wanted, least in (
        ("pf", table.candidates, table.n_candidates, tagger.candidates, candidate_names,
         tagger.max_candidates, n_candidates, tagger.neighbours),
        ("sv", table.vertices, table.n_vertices, tagger.vertices, vertex_names,
         tagger.max_vertices, n_vertices, 1),
    ):  # fmt: skip
        stem = "pfcand_" if prefix == "pf" else "sv_"
        length = wanted or max(least, min(longest, int(counts.max(initial=0))))
        row = np.repeat(np.arange(len(table)), counts)
        place = np.arange(row.size) - np.repeat(np.cumsum(counts) - counts, counts)
        fits = place < length
        columns = [names.index(f.name) for f in features]
        points = [names.index(stem + "etarel"), names.index(stem + "phirel")]
        for part, data in (
            ("points", values[:, points]),
            ("features", transform(values[:, columns], features)),
            ("mask", np.ones((row.size, 1), np.float32)),
        ):
            padded = np.zeros((len(table), length, data.shape[1]), np.float32)
            padded[row[fits], place[fits]] = data[fits]
            inputs[f"{prefix}_{part}"] = np.ascontiguousarray(padded.transpose(0, 2, 1))
    return inputs
