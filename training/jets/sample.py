"""The shipped samples: jets that training never saw, as ROOT files.

One entry is one jet; jets of one event follow each other and share ``event``. Candidates
and vertices are jagged branches, as in NanoAOD, with the names of the feature table and
values before any transform.
"""

from __future__ import annotations

from pathlib import Path

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray

from .dataset import JetTable
from .features import CANDIDATE_FEATURES, VERTEX_FEATURES

TREE = "Jets"
MANTISSA_BITS = 11
"""Precision kept, relative 1/4096: finer than the detector, and the files compress to half."""
SHIPPED_JETS = {"ak4": 5_000, "ak8": 2_000}
INTEGER_BRANCHES = {
    *("pfcand_charge", "pfcand_isEl", "pfcand_isMu", "pfcand_isGamma", "pfcand_isChargedHad"),
    *("pfcand_isNeutralHad", "pfcand_VTX_ass", "pfcand_lostInnerHits", "pfcand_quality", "sv_ntracks"),
}


def round_mantissa(values: NDArray, bits: int = MANTISSA_BITS) -> NDArray[np.float32]:
    """Round to ``bits`` bits of mantissa, as CMS does in NanoAOD."""
    drop = 23 - bits
    raw = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (raw + np.uint32(1 << (drop - 1))) & np.uint32(~((1 << drop) - 1) & 0xFFFFFFFF)
    return rounded.view(np.float32)


def choose(table: JetTable, n_jets: int, seed: int = 7) -> JetTable:
    """Whole events in random order until there are ``n_jets`` jets; events renumbered from 0."""
    _, event = np.unique(table.event, return_inverse=True)
    order = np.random.default_rng(seed).permutation(event.max() + 1)
    jets = np.lexsort((-table.pt, order[event]))
    chosen = table.take(jets[:n_jets])
    _, first = np.unique(chosen.event, return_index=True)
    renumbered = np.searchsorted(np.sort(first), np.arange(len(chosen)), side="right") - 1
    chosen.event = renumbered.astype(np.int64)
    return chosen


def _collection(values: NDArray, counts: NDArray, features, prefix: str) -> ak.Array:
    columns = {}
    for i, feature in enumerate(features):
        column = values[:, i]
        whole = feature.name in INTEGER_BRANCHES
        column = column.astype(np.int8) if whole else round_mantissa(column)
        columns[feature.name.removeprefix(prefix)] = ak.unflatten(column, counts)
    return ak.zip(columns)


def write_root(table: JetTable, path: Path) -> None:
    """Write jets to a ROOT file with the tree ``Jets``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    branches = {
        "event": table.event.astype(np.int32),
        "jet_pt": round_mantissa(table.pt),
        "jet_eta": round_mantissa(table.eta),
        "jet_phi": round_mantissa(table.phi),
        "jet_mass": round_mantissa(table.mass),
        "jet_label": table.label.astype(np.int32),
        "jet_nBHadrons": table.n_b.astype(np.int32),
        "jet_nCHadrons": table.n_c.astype(np.int32),
        "jet_process": table.process.astype(np.int32),
        "pfcand": _collection(table.candidates, table.n_candidates, CANDIDATE_FEATURES, "pfcand_"),
        "sv": _collection(table.vertices, table.n_vertices, VERTEX_FEATURES, "sv_"),
    }
    # ZSTD reads four times as fast as LZMA, for a file a fifth larger: reading is part of what students time.
    with uproot.recreate(path, compression=uproot.ZSTD(19)) as file:
        # A TTree with counters, as NanoAOD has it; assigning would write the newer RNTuple.
        file.mktree(TREE, branches)


def read_root(path: Path) -> JetTable:
    """Read what `write_root` wrote."""
    with uproot.open(path) as file:
        arrays = file[TREE].arrays()

    def scalar(name: str, dtype: type) -> NDArray:
        return ak.to_numpy(arrays[name]).astype(dtype)

    def collection(features) -> tuple[NDArray, NDArray]:
        columns = [ak.to_numpy(ak.flatten(arrays[f.name])).astype(np.float32) for f in features]
        return np.stack(columns, axis=1), ak.to_numpy(ak.num(arrays[features[0].name])).astype(np.int32)

    candidates, n_candidates = collection(CANDIDATE_FEATURES)
    vertices, n_vertices = collection(VERTEX_FEATURES)
    return JetTable(
        candidates=candidates,
        n_candidates=n_candidates,
        vertices=vertices,
        n_vertices=n_vertices,
        pt=scalar("jet_pt", np.float32),
        eta=scalar("jet_eta", np.float32),
        phi=scalar("jet_phi", np.float32),
        mass=scalar("jet_mass", np.float32),
        label=scalar("jet_label", np.int32),
        n_b=scalar("jet_nBHadrons", np.int32),
        n_c=scalar("jet_nCHadrons", np.int32),
        event=scalar("event", np.int64),
        process=scalar("jet_process", np.int32),
    )


def ship(key: str, output: Path, destination: Path, n_jets: int | None = None) -> Path:
    """Write the shipped sample of a tagger from its generated shards.

    Args:
        key: ``"ak4"`` or ``"ak8"``.
        output: Root of the working folder.
        destination: Folder of the ROOT file.
        n_jets: Jets to write; by default what the course ships.
    """
    shards = [JetTable.load(p) for p in sorted((output / key / "ship").glob("[!.]*.npz"))]
    table = JetTable.concatenate(shards)
    path = destination / f"jets_{key}.root"
    write_root(choose(table, n_jets or SHIPPED_JETS[key]), path)
    return path
