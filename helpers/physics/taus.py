"""Taus: the course's sample, and the seven tensors of ``deeptau_nosplit``.

A reconstructed tau lies in the middle of two grids in pseudorapidity and azimuth. Of each kind of particle a cell holds the one with
the largest transverse momentum. Most cells are empty, so a file keeps the particles, and the grids are filled when they are needed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from helpers import paths

MODEL = "deeptau_nosplit"
SAMPLE = "taus.npz"
LABELS = ("electron", "muon", "tau", "jet")
# Kinds of particles, as pfCand_type counts them, and as CMS names their features.
KINDS = ("ele", "muon", "gamma", "chHad", "nHad")
# Cells along each side, and the size of a cell in pseudorapidity and in rad.
GRIDS = {"inner": (11, 0.02), "outer": (21, 0.05)}
_CANDIDATE = "pfCand_"


@dataclass(frozen=True)
class Taus:
    """Reconstructed taus and the particles around them, one tau after the other."""

    # By name, (n_taus,) what was reconstructed of each tau, before any transform; GeV, cm, rad.
    features: dict[str, NDArray[Any]]
    # By name, (n_candidates,) the particles within 0.5 of the tau's axis, largest transverse momentum first.
    candidates: dict[str, NDArray[Any]]
    # (n_taus,) particles of each tau.
    n_candidates: NDArray[np.int64]
    # (n_taus,) truth, as an index into `LABELS`.
    label: NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.label.size)

    def take(self, index: Sequence[int] | NDArray[Any]) -> Taus:
        """Return the taus at ``index``, in that order."""
        chosen = np.asarray(index, dtype=np.int64)
        counts = self.n_candidates[chosen]
        starts = (np.cumsum(self.n_candidates) - self.n_candidates)[chosen]
        rows = np.arange(counts.sum()) + np.repeat(starts - (np.cumsum(counts) - counts), counts)
        features = {name: values[chosen] for name, values in self.features.items()}
        candidates = {name: values[rows] for name, values in self.candidates.items()}
        return Taus(features, candidates, counts, self.label[chosen])


def read(path: str | Path | None = None) -> Taus:
    """Read the taus that come with the course, or those of another file of the same form."""
    with np.load(path or paths.root() / "notebooks" / "data" / SAMPLE) as stored:
        features = dict(stored)
    counts, label = (features.pop(name).astype(np.int64) for name in ("n_pfCand", "label"))
    candidates = {name: features.pop(name) for name in list(features) if name.startswith(_CANDIDATE)}
    return Taus(features, candidates, counts, label)


def table() -> dict[str, Any]:
    """Return the table beside the model: for each input the names of its features, and a transform for each that is filled."""
    return dict(json.loads(paths.read_text(paths.models_dir() / MODEL / "preprocess.json")))


def transform(values: NDArray[Any], info: dict[str, float]) -> NDArray[np.float32]:
    """Return ``clip((x - median) * norm_factor, lower_bound, upper_bound)``; what is not finite becomes 0 first."""
    finite = np.where(np.isfinite(values), values, info["replace_inf_value"]).astype(np.float32)
    moved = (finite - np.float32(info["median"])) * np.float32(info["norm_factor"])
    return np.asarray(np.clip(moved, np.float32(info["lower_bound"]), np.float32(info["upper_bound"])))


def high_level(taus: Taus, names: dict[str, Any]) -> NDArray[np.float32]:
    """Return ``input_tau``, (n_taus, 47): what was reconstructed of each tau, transformed; 0 where our detector measures nothing."""
    values = np.zeros((len(taus), len(names["var_names"])), np.float32)
    for name, info in names["var_infos"].items():
        values[:, names["var_names"].index(name)] = transform(taus.features[name], info)
    return values


def cells(taus: Taus, grid: str, inputs: dict[str, Any]) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float32]]]:
    """Fill the occupied cells of a grid: ``inner``, for particles in the signal cone, or ``outer``, for those within 0.5.

    Return (n_cells, 3) tau, row (pseudorapidity) and column (azimuth) of each, and by input (n_cells, n_features).
    """
    side, size = GRIDS[grid]
    tau = np.repeat(np.arange(len(taus)), taus.n_candidates)
    # From the middle of the grid, to the nearest cell.
    offset = np.stack([taus.candidates["pfCand_deta"], taus.candidates["pfCand_dphi"]]).astype(np.float32)
    row, column = np.floor(offset / size + 0.5).astype(np.int64) + side // 2
    radius = np.clip(3.0 / taus.features["tau_pt"], 0.05, 0.1)[tau] if grid == "inner" else 0.5
    inside = (row >= 0) & (row < side) & (column >= 0) & (column < side) & (np.hypot(*offset) < radius)
    candidate = np.flatnonzero(inside)
    kind = taus.candidates["pfCand_type"][candidate]
    occupied, cell = np.unique(((tau * side + row) * side + column)[candidate], return_inverse=True)
    # The first of a kind in a cell has the largest transverse momentum.
    _, first = np.unique(cell * len(KINDS) + kind, return_index=True)
    candidate, cell, kind = candidate[first], cell[first], kind[first]
    place = np.stack(np.unravel_index(occupied, (max(len(taus), 1), side, side)), axis=1)
    values = {}
    for tensor in (name for name in inputs if name.startswith(f"input_{grid}_")):
        names = inputs[tensor]["var_names"]
        filled = values[tensor] = np.zeros((occupied.size, len(names)), np.float32)
        for name, info in inputs[tensor]["var_infos"].items():
            column = filled[:, names.index(name)]
            if name in taus.features:
                column[:] = transform(taus.features[name], info)[place[:, 0]]
            else:
                particle, _, quantity = name.removeprefix(_CANDIDATE).partition("_")
                mine = kind == KINDS.index(particle)
                stored = 1.0 if quantity == "valid" else taus.candidates[_CANDIDATE + quantity][candidate[mine]]
                column[cell[mine]] = transform(np.asarray(stored), info)
    return place, values


def tensors(taus: Taus, inputs: dict[str, Any] | None = None) -> dict[str, NDArray[np.float32]]:
    """Return the seven inputs of the model by name, each with the taus along its first axis: 423 kB for each tau."""
    inputs = inputs or table()
    result = {"input_tau": high_level(taus, inputs["input_tau"])}
    for grid, (side, _) in GRIDS.items():
        place, filled = cells(taus, grid, inputs)
        for name, values in filled.items():
            result[name] = np.zeros((len(taus), side, side, values.shape[1]), np.float32)
            result[name][tuple(place.T)] = values
    return {name: result[name] for name in inputs["input_names"]}
