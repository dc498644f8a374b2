"""The inputs of DeepTau: names, order, transforms, labels.

Names, order and transforms are those of DeepTau v2.1, so that CMS's own network could take the place of ours. CMS's list is for
CMS's detector: what the course's detector does not measure has a place in the tensors and stays 0. A feature that is
filled has a transform here; a name without one is never filled.

The module imports the standard library only.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from training.jets.features import NO_BOUND

LABELS = ("electron", "muon", "tau", "jet")
"""Classes in the order of the output."""
ELECTRON, MUON, TAU, JET = range(4)


@dataclass(frozen=True)
class Transform:
    """How a client transforms a feature: ``clip((x - mean) / width, lower, upper)``, in the unit of the feature."""

    mean: float = 0.0
    width: float = 1.0
    lower: float = -NO_BOUND
    upper: float = NO_BOUND

    def info(self) -> dict[str, float]:
        """The entry in ``preprocess.json``, in the layout of the jets' tables."""
        return {
            "median": self.mean,
            "norm_factor": 1 / self.width,
            "replace_inf_value": 0,
            "lower_bound": self.lower,
            "upper_bound": self.upper,
            "pad": 0,
        }


Names = dict[str, Transform | None]
"""Features in the order of an input; None is what the course's detector does not measure."""

PLAIN = Transform()


def _share(mean: float, width: float) -> Transform:
    """From 0 to 1."""
    return Transform(mean, width, 0.0, 1.0)


def _both(width: float) -> Transform:
    """From -1 to 1."""
    return Transform(0.0, width, -1.0, 1.0)


def _spread(mean: float, width: float) -> Transform:
    """Standardised, at most five standard deviations."""
    return Transform(mean, width, -5.0, 5.0)


HIGH_LEVEL: Names = {
    "rho": None,
    "tau_pt": _share(20.0, 980.0),
    "tau_eta": _both(2.3),
    "tau_phi": _both(math.pi),
    "tau_mass": _spread(0.6669, 0.6553),
    "tau_E_over_pt": _share(1.0, 4.2),
    "tau_charge": PLAIN,
    "tau_n_charged_prongs": _share(1, 2),
    "tau_n_neutral_prongs": _share(0, 2),
    "chargedIsoPtSum": _spread(47.78, 123.5),
    "chargedIsoPtSumdR03_over_dR05": PLAIN,
    "footprintCorrection": None,
    "neutralIsoPtSum": _spread(57.59, 155.3),
    "neutralIsoPtSumWeight_over_neutralIsoPtSum": None,
    "neutralIsoPtSumWeightdR03_over_neutralIsoPtSum": None,
    "neutralIsoPtSumdR03_over_dR05": PLAIN,
    "photonPtSumOutsideSignalCone": _spread(1.731, 6.846),
    "puCorrPtSum": None,
    "tau_dxy_pca_x": None,
    "tau_dxy_pca_y": None,
    "tau_dxy_pca_z": None,
    "tau_dxy_valid": PLAIN,
    "tau_dxy": _spread(0.0018, 0.0085),
    "tau_dxy_sig": _spread(2.26, 4.191),
    "tau_ip3d_valid": PLAIN,
    "tau_ip3d": _spread(0.0026, 0.0114),
    "tau_ip3d_sig": _spread(2.928, 4.466),
    "tau_dz": _spread(0.0, 0.019),
    "tau_dz_sig_valid": PLAIN,
    "tau_dz_sig": _spread(4.717, 11.78),
    "tau_flightLength_x": None,
    "tau_flightLength_y": None,
    "tau_flightLength_z": None,
    "tau_flightLength_sig": None,
    "tau_pt_weighted_deta_strip": _share(0.0, 1.0),
    "tau_pt_weighted_dphi_strip": _share(0.0, 1.0),
    "tau_pt_weighted_dr_signal": _spread(0.0052, 0.01433),
    "tau_pt_weighted_dr_iso": _share(0.0, 1.0),
    "tau_leadingTrackNormChi2": _spread(1.538, 4.401),
    "tau_e_ratio_valid": PLAIN,
    "tau_e_ratio": _share(0.0, 1.0),
    "tau_gj_angle_diff_valid": None,
    "tau_gj_angle_diff": None,
    "tau_n_photons": _spread(2.95, 3.927),
    "tau_emFraction": None,
    "tau_inside_ecal_crack": PLAIN,
    "leadChargedCand_etaAtEcalEntrance_minus_tau_eta": None,
}
"""The 47 features of the reconstructed tau. CMS, too, sets ``tau_dxy_pca`` to 0 when it uses the network."""

CELL_GLOBAL: Names = {
    "rho": None,
    "tau_pt": _share(20.0, 980.0),
    "tau_eta": _both(2.3),
    "tau_inside_ecal_crack": PLAIN,
}
"""What every occupied cell repeats of its tau."""

_REL_PT = {
    "inner": {
        "ele": (0.9792, 0.5383),
        "muon": (0.9509, 0.4294),
        "gamma": (0.6048, 1.669),
        "chHad": (0.2564, 0.8607),
        "nHad": (0.3163, 0.2769),
    },
    "outer": {
        "ele": (0.304, 1.845),
        "muon": (0.0861, 0.4065),
        "gamma": (0.02576, 0.3833),
        "chHad": (0.0194, 0.1865),
        "nHad": (0.0502, 0.4266),
    },
}
"""Mean and width of the transverse momentum over that of the tau."""
_REACH = {"inner": 0.1, "outer": 0.5}
"""Largest distance from the tau's axis within each grid."""

_TRACK = {
    "ele": {"dx": (0.0, 0.1221), "dy": (0.0, 0.1226), "dz": (0.001, 1.024), "dxy": (0.0, 0.171), "dxy_sig": (1.634, 6.45),
            "z": (0.001, 1.02), "z_sig": (24.56, 210.4), "chi2": (2.272, 8.439)},
    "muon": {"dx": (-0.0007, 0.6869), "dy": (0.0001, 0.6784), "dz": (-0.0117, 4.097), "dxy": (-0.0045, 0.9655), "dxy_sig": (4.575, 42.36),
             "z": (-0.0117, 4.097), "z_sig": (80.37, 343.3), "chi2": (0.69, 1.711)},
    "chHad": {"dx": (0.0005, 1.735), "dy": (-0.0008, 1.752), "dz": (-0.0201, 8.333), "dxy": (-0.012, 2.386), "dxy_sig": (6.417, 36.28),
              "z": (-0.0246, 7.618), "z_sig": (301.3, 491.1), "chi2": (0.7876, 3.694)},
}  # fmt: skip
"""Mean and width of what is known of a track: position of the closest approach, impact parameters, fit."""


def _kinematics(kind: str, grid: str) -> Names:
    reach = _REACH[grid]
    return {"valid": PLAIN, "rel_pt": _spread(*_REL_PT[grid][kind]), "deta": _both(reach), "dphi": _both(reach)}


def _track(kind: str) -> Names:
    """From the hits on: the last 15 features of a charged candidate; of a photon none is filled."""
    t = {name: _spread(*values) for name, values in _TRACK[kind].items()} if kind in _TRACK else dict.fromkeys(_TRACK["ele"])
    plain = PLAIN if kind in _TRACK else None
    return {
        "lostInnerHits": plain,
        "numberOfPixelHits": None,
        **{f"vertex_{axis}": t[axis] for axis in ("dx", "dy", "dz")},
        **{f"vertex_{axis}_tauFL": None for axis in ("dx", "dy", "dz")},
        "hasTrackDetails": plain,
        "dxy": t["dxy"],
        "dxy_sig": t["dxy_sig"],
        "dz": t["z"],
        "dz_sig": t["z_sig"],
        "track_chi2_ndof": t["chi2"],
        "track_ndof": None,
    }


def _candidate(kind: str, grid: str) -> Names:
    """The features of the hardest candidate of one kind in a cell."""
    kinematics = _kinematics(kind, grid)
    quality: Names = {"pvAssociationQuality": _share(0, 7)}
    if kind == "ele":
        features = {**kinematics, **quality, "puppiWeight": None, "charge": PLAIN, **_track(kind)}
    elif kind == "muon":
        features = {**kinematics, **quality, "fromPV": None, "puppiWeight": None, "charge": PLAIN, **_track(kind)}
    elif kind == "gamma":
        features = {**kinematics, **quality, "fromPV": None, "puppiWeight": None, "puppiWeightNoLep": None, **_track(kind)}
    elif kind == "chHad":
        features = {
            **kinematics, "leadChargedHadrCand": PLAIN, **quality, "fromPV": None, "puppiWeight": None, "puppiWeightNoLep": None,
            "charge": PLAIN, **_track(kind), "hcalFraction": None, "rawCaloFraction": None,
        }  # fmt: skip
    else:
        features = {**kinematics, "puppiWeight": None, "puppiWeightNoLep": None, "hcalFraction": None}
    return {f"pfCand_{kind}_{name}": transform for name, transform in features.items()}


def _unmeasured(prefix: str, names: str) -> Names:
    """Features of a collection that the course's detector does not have."""
    return {f"{prefix}_{name}": None for name in names.split()}


_ELECTRONS = _unmeasured(
    "ele",
    "valid rel_pt deta dphi cc_valid cc_ele_rel_energy cc_gamma_rel_energy cc_n_gamma rel_trackMomentumAtVtx rel_trackMomentumAtCalo"
    " rel_trackMomentumOut rel_trackMomentumAtEleClus rel_trackMomentumAtVtxWithConstraint rel_ecalEnergy ecalEnergy_sig"
    " eSuperClusterOverP eSeedClusterOverP eSeedClusterOverPout eEleClusterOverPout deltaEtaSuperClusterTrackAtVtx"
    " deltaEtaSeedClusterTrackAtCalo deltaEtaEleClusterTrackAtCalo deltaPhiEleClusterTrackAtCalo deltaPhiSuperClusterTrackAtVtx"
    " deltaPhiSeedClusterTrackAtCalo mvaInput_earlyBrem mvaInput_lateBrem mvaInput_sigmaEtaEta mvaInput_hadEnergy mvaInput_deltaEta"
    " gsfTrack_normalizedChi2 gsfTrack_numberOfValidHits rel_gsfTrack_pt gsfTrack_pt_sig has_closestCtfTrack"
    " closestCtfTrack_normalizedChi2 closestCtfTrack_numberOfValidHits",
)
_MUONS = _unmeasured(
    "muon",
    "valid rel_pt deta dphi dxy dxy_sig normalizedChi2_valid normalizedChi2 numberOfValidHits segmentCompatibility caloCompatibility"
    " pfEcalEnergy_valid rel_pfEcalEnergy "
    + " ".join(f"n_{what}_{part}_{station}" for what in ("matches", "hits") for part in ("DT", "CSC", "RPC") for station in range(1, 5)),
)


def inputs() -> dict[str, Names]:
    """The seven inputs in the order of the model: name of the tensor to its features."""
    tensors = {"input_tau": HIGH_LEVEL}
    for grid in ("inner", "outer"):
        tensors[f"input_{grid}_egamma"] = {**CELL_GLOBAL, **_candidate("ele", grid), **_ELECTRONS, **_candidate("gamma", grid)}
        tensors[f"input_{grid}_muon"] = {**CELL_GLOBAL, **_candidate("muon", grid), **_MUONS}
        tensors[f"input_{grid}_hadrons"] = {**CELL_GLOBAL, **_candidate("chHad", grid), **_candidate("nHad", grid)}
    return tensors


def preprocess() -> dict:
    """The table that the client reads: names in the order of each input, and a transform for each feature that is filled."""
    table: dict = {"output_names": list(LABELS), "input_names": list(inputs())}
    for name, features in inputs().items():
        filled = {feature: transform.info() for feature, transform in features.items() if transform is not None}
        table[name] = {"var_names": list(features), "var_infos": filled}
    return table


def write_preprocess(path: Path) -> None:
    """Write the table as JSON to ``path``."""
    path.write_text(json.dumps(preprocess(), indent=1) + "\n")
