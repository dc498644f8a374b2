"""From clustered jets to the columns of the feature table: candidates and vertices.

Values are as a reconstruction would store them, before any transform.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from . import vertexing
from .clustering import Jets
from .features import CANDIDATE_FEATURES, VERTEX_FEATURES

PION_MASS_GEV = 0.13957


def sort_and_truncate(jets: Jets, pt: NDArray, longest: int) -> tuple[NDArray, NDArray]:
    """Candidates of each jet by falling transverse momentum, at most ``longest``.

    Returns:
        Candidate indices, flat, and (n_jets,) counts.
    """
    order = np.lexsort((-pt[jets.constituent], jets.constituent_jet))
    index, jet = jets.constituent[order], jets.constituent_jet[order]
    counts = np.bincount(jet, minlength=jets.event.size)
    rank = np.arange(index.size) - np.repeat(np.cumsum(counts) - counts, counts)
    return index[rank < longest], np.minimum(counts, longest)


def _wrap(angle: NDArray) -> NDArray:
    return np.mod(angle + np.pi, 2 * np.pi) - np.pi


def candidate_columns(jets: Jets, candidates: dict[str, NDArray], index: NDArray, counts: NDArray):
    """The 25 candidate features.

    Args:
        jets: The jets.
        candidates: Flat candidate arrays of the batch.
        index: (n,) candidates, jet by jet.
        counts: (n_jets,) candidates per jet.

    Returns:
        (n, 25) float32 in the order of `CANDIDATE_FEATURES`, and the tracks' inputs to the
        vertex finder: (n, 8) and significance (n,), 0 for neutrals.
    """
    c = {key: value[index] for key, value in candidates.items()}
    jet = np.repeat(np.arange(counts.size), counts)
    jet_eta, jet_phi = jets.eta[jet], jets.phi[jet]
    jet_direction = jets.momentum[jet, :3] / np.linalg.norm(jets.momentum[jet, :3], axis=1, keepdims=True)
    charged = c["charge"] != 0
    track = track_columns(c, jet_direction)

    def tracks_only(values: NDArray) -> NDArray:
        return np.where(charged, values, 0.0)

    columns = {
        "pt_log_nopuppi": np.log(c["pt"]),
        "e_log_nopuppi": np.log(c["energy"]),
        "etarel": np.where(jet_eta > 0, 1, -1) * (c["eta"] - jet_eta),
        "phirel": _wrap(c["phi"] - jet_phi),
        "abseta": np.abs(c["eta"]),
        "charge": c["charge"],
        **{name: c["type"] == i for i, name in enumerate(("isEl", "isMu", "isGamma", "isChargedHad", "isNeutralHad"))},
        "VTX_ass": c["vertex_association"],
        "lostInnerHits": tracks_only(c["lost_inner_hits"]),
        "normchi2": c["chi2"],
        "quality": c["quality"],
        "dz": c["dz"],
        "dzsig": tracks_only(c["dz"] / np.where(charged, c["dz_error"], 1)),
        "dxy": c["dxy"],
        "dxysig": tracks_only(c["dxy"] / np.where(charged, c["dxy_error"], 1)),
        **{name: tracks_only(value) for name, value in track.items()},
    }
    table = np.stack([columns[f.name.removeprefix("pfcand_")] for f in CANDIDATE_FEATURES], axis=1)
    helices = np.stack([c["pt"], c["phi"], np.sinh(c["eta"]), c["dxy"], c["dz"], c["charge"], c["dxy_error"], c["dz_error"]], axis=1)
    return table.astype(np.float32), helices, tracks_only(track["btagSip3dSig"])


def track_columns(c: dict[str, NDArray], jet_direction: NDArray) -> dict[str, NDArray]:
    """b-tagging quantities of tracks with respect to the jet axis; meaningless for neutrals."""
    sin, cos = np.sin(c["phi"]), np.cos(c["phi"])
    closest = np.stack([-c["dxy"] * sin, c["dxy"] * cos, c["dz"]], axis=1)
    momentum = np.stack([c["pt"] * cos, c["pt"] * sin, c["pt"] * np.sinh(c["eta"])], axis=1)
    size = np.linalg.norm(momentum, axis=1)
    direction = momentum / size[:, None]

    # The 3D impact parameter, signed by whether the track crosses the jet axis downstream.
    along = (closest * direction).sum(axis=1)
    impact = closest - along[:, None] * direction
    distance = np.maximum(np.linalg.norm(impact, axis=1), 1e-9)
    unit = impact / distance[:, None]
    across = -unit[:, 0] * sin + unit[:, 1] * cos
    error = np.hypot(across * c["dxy_error"], unit[:, 2] * c["dz_error"])
    sign = np.where((impact * jet_direction).sum(axis=1) >= 0, 1.0, -1.0)

    normal = np.cross(direction, jet_direction)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    parallel = (momentum * jet_direction).sum(axis=1)
    transverse = np.linalg.norm(np.cross(momentum, jet_direction), axis=1)
    energy = np.hypot(size, PION_MASS_GEV)
    return {
        "btagEtaRel": 0.5 * np.log((energy + parallel) / np.maximum(energy - parallel, 1e-9)),
        "btagPtRatio": transverse / size,
        "btagPParRatio": parallel / size,
        "btagSip3dVal": sign * distance,
        "btagSip3dSig": sign * distance / np.maximum(error, 1e-9),
        "btagJetDistVal": np.abs((closest * normal).sum(axis=1)),
    }


def vertex_columns(jets: Jets, helices: NDArray, significance: NDArray, counts: NDArray, longest: int):
    """Find secondary vertices and fill their 11 features.

    Returns:
        (n_vertices, 11) float32 in the order of `VERTEX_FEATURES`, and (n_jets,) counts.
    """
    direction = jets.momentum[:, :3] / np.linalg.norm(jets.momentum[:, :3], axis=1, keepdims=True)
    offsets = np.r_[0, np.cumsum(counts)]
    found, n = vertexing.find_vertices(helices, significance, offsets, direction, longest)
    rows = found[np.arange(longest)[None, :] < n[:, None]]
    jet = np.repeat(np.arange(n.size), n)
    px, py, pz, mass, tracks, chi2, dxy, dxysig, d3d, d3dsig = rows.T[:10]
    pt = np.hypot(px, py)
    eta = np.arcsinh(pz / np.maximum(pt, 1e-9))
    columns = {
        "pt_log": np.log(np.maximum(pt, 1e-9)),
        "mass": mass,
        "etarel": np.where(jets.eta[jet] > 0, 1, -1) * (eta - jets.eta[jet]),
        "phirel": _wrap(np.arctan2(py, px) - jets.phi[jet]),
        "abseta": np.abs(eta),
        "ntracks": tracks,
        "normchi2": chi2,
        "dxy": dxy,
        "dxysig": dxysig,
        "d3d": d3d,
        "d3dsig": d3dsig,
    }
    table = np.stack([columns[f.name.removeprefix("sv_")] for f in VERTEX_FEATURES], axis=1)
    return table.astype(np.float32), n
