"""From candidates to reconstructed taus: a simple version of the hadrons-plus-strips algorithm.

A jet with a hard track is a seed. Its decay products are looked for in a signal cone that shrinks with its momentum: up to three
tracks, and photons in up to two strips, which stand for neutral pions. Electrons and muons are tracks like any other, so they make
taus, too.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from training.jets import clustering
from training.jets.constituents import track_columns
from training.jets.detector import CHARGED_HADRON, MASS_GEV, PHOTON

JET_RADIUS = 0.4
JET_PT_RANGE_GEV = (15.0, 1000.0)
MAX_ABS_ETA = 2.3
MIN_PT_GEV = 20.0
LEAD_MIN_PT_GEV = 5.0
STRIP_MIN_PT_GEV = 2.5
PION_MASS_GEV = float(MASS_GEV[CHARGED_HADRON])
ISOLATION_RADIUS = 0.5
ECAL_CRACK = (1.46, 1.558)

_MEASURED = (
    "tau_pt", "tau_eta", "tau_phi", "tau_mass", "tau_E_over_pt", "tau_charge", "tau_n_charged_prongs", "tau_n_neutral_prongs",
    "chargedIsoPtSum", "chargedIsoPtSumdR03", "neutralIsoPtSum", "neutralIsoPtSumdR03", "photonPtSumOutsideSignalCone",
    "tau_pt_weighted_deta_strip", "tau_pt_weighted_dphi_strip", "tau_pt_weighted_dr_signal", "tau_pt_weighted_dr_iso",
    "tau_e_ratio", "tau_n_photons",
)  # fmt: skip
"""What `_build` returns for each seed, in this order."""


@njit(cache=True)
def _dphi(a, b):
    return (a - b + math.pi) % (2 * math.pi) - math.pi


@njit(cache=True)
def _build(jet_event, jet_pt, jet_eta, jet_phi, first, kind, pt, eta, phi, energy, charge, dz):
    """Decay products and isolation of each seed.

    Args:
        jet_event, jet_pt, jet_eta, jet_phi: (n_jets,) seeds.
        first: (n_events + 1,) where the candidates of each event begin.
        kind, pt, eta, phi, energy, charge, dz: (n_candidates,).

    Returns:
        (n_jets, 19) as `_MEASURED` names them, and (n_jets,) the hardest track, -1 where there is no tau.
    """
    n = jet_event.size
    result = np.zeros((n, 19))
    lead = np.full(n, -1)
    for i in range(n):
        begin, end = first[jet_event[i]], first[jet_event[i] + 1]
        best = LEAD_MIN_PT_GEV
        for c in range(begin, end):
            near = math.hypot(eta[c] - jet_eta[i], _dphi(phi[c], jet_phi[i])) < JET_RADIUS
            if charge[c] != 0 and near and abs(dz[c]) < 0.2 and pt[c] > best:
                best, lead[i] = pt[c], c
        if lead[i] < 0:
            continue
        track = lead[i]
        cone = min(max(3.0 / jet_pt[i], 0.05), 0.1)
        product = np.zeros(end - begin, np.int8)  # 1: track of the decay, 2: photon of a strip
        strip = np.zeros(end - begin, np.int8)
        product[track - begin] = 1
        prongs = 1
        while prongs < 3:
            hardest, found = 0.5, -1
            for c in range(begin, end):
                if charge[c] == 0 or product[c - begin] != 0 or pt[c] < hardest or abs(dz[c] - dz[track]) > 0.4:
                    continue
                if math.hypot(eta[c] - eta[track], _dphi(phi[c], phi[track])) < cone:
                    hardest, found = pt[c], c
            if found < 0:
                break
            product[found - begin] = 1
            prongs += 1
        strips = 0
        while strips < 2:
            hardest, seed = 0.5, -1
            for c in range(begin, end):
                if kind[c] != PHOTON or product[c - begin] != 0 or pt[c] < hardest:
                    continue
                if math.hypot(eta[c] - eta[track], _dphi(phi[c], phi[track])) < max(cone, 0.1):
                    hardest, seed = pt[c], c
            if seed < 0:
                break
            total = 0.0
            for c in range(begin, end):
                inside = abs(eta[c] - eta[seed]) < 0.05 and abs(_dphi(phi[c], phi[seed])) < 0.2
                if inside and kind[c] == PHOTON and product[c - begin] == 0 and pt[c] > 0.5:
                    strip[c - begin] = strips + 1
                    total += pt[c]
            if total < STRIP_MIN_PT_GEV:
                break
            for c in range(end - begin):
                if strip[c] == strips + 1:
                    product[c] = 2
            strips += 1

        px = py = pz = e = e_photons = q = 0.0
        for c in range(begin, end):
            if product[c - begin] == 0:
                continue
            px += pt[c] * math.cos(phi[c])
            py += pt[c] * math.sin(phi[c])
            z = pt[c] * math.sinh(eta[c])
            pz += z
            if product[c - begin] == 1:
                e += math.sqrt((pt[c] * math.cosh(eta[c])) ** 2 + PION_MASS_GEV**2)
                q += charge[c]
            else:
                e += pt[c] * math.cosh(eta[c])
                e_photons += pt[c] * math.cosh(eta[c])
        tau_pt = math.hypot(px, py)
        tau_eta, tau_phi = math.asinh(pz / tau_pt), math.atan2(py, px)
        cone = min(max(3.0 / tau_pt, 0.05), 0.1)

        charged = charged3 = neutral = neutral3 = outside = photons = 0.0
        strip_pt = strip_deta = strip_dphi = signal_pt = signal_dr = iso_pt = iso_dr = 0.0
        for c in range(begin, end):
            deta, dphi = eta[c] - tau_eta, _dphi(phi[c], tau_phi)
            dr = math.hypot(deta, dphi)
            if dr > ISOLATION_RADIUS:
                continue
            what = product[c - begin]
            if charge[c] != 0 and what == 0 and pt[c] > 0.5 and abs(dz[c] - dz[track]) < 0.2:
                charged += pt[c]
                charged3 += pt[c] if dr < 0.3 else 0.0
            if kind[c] != PHOTON or pt[c] < 0.5:
                continue
            photons += 1
            if what == 2:
                strip_pt += pt[c]
                strip_deta += pt[c] * abs(deta)
                strip_dphi += pt[c] * abs(dphi)
                outside += pt[c] if dr > cone else 0.0
            else:
                neutral += pt[c]
                neutral3 += pt[c] if dr < 0.3 else 0.0
            if dr < cone:
                signal_pt += pt[c]
                signal_dr += pt[c] * dr
            else:
                iso_pt += pt[c]
                iso_dr += pt[c] * dr
        row = result[i]
        row[0], row[1], row[2] = tau_pt, tau_eta, tau_phi
        row[3] = math.sqrt(max(e * e - px * px - py * py - pz * pz, 0.0))
        row[4], row[5], row[6], row[7] = e / tau_pt, q, prongs, strips
        row[8], row[9], row[10], row[11], row[12] = charged, charged3, neutral, neutral3, outside
        row[13], row[14] = strip_deta / max(strip_pt, 1e-9), strip_dphi / max(strip_pt, 1e-9)
        row[15], row[16] = signal_dr / max(signal_pt, 1e-9), iso_dr / max(iso_pt, 1e-9)
        row[17], row[18] = e_photons / e, photons
    return result, lead


def reconstruct(candidates: dict[str, NDArray], n_events: int) -> tuple[dict[str, NDArray], NDArray]:
    """Reconstruct the taus of a batch.

    Args:
        candidates: Flat candidate arrays in order of event, as `training.jets.detector.emulate` returns them.
        n_events: Events in the batch.

    Returns:
        The features of the taus by DeepTau's names, with ``event``; and (n_taus,) the candidate that is the hardest track of each.
    """
    c = candidates
    nothing = (np.zeros(0, np.int64), np.zeros((0, 4)), np.zeros(0, np.int64))
    jets = clustering.cluster(c, nothing, JET_RADIUS, JET_PT_RANGE_GEV, 2.5, n_events, least_constituents=1)
    order = np.argsort(jets.event, kind="stable")
    event = jets.event[order]
    first = np.searchsorted(c["event"], np.arange(n_events + 1))
    columns = (c[name] for name in ("type", "pt", "eta", "phi", "energy", "charge", "dz"))
    values, lead = _build(event, jets.pt[order], jets.eta[order], jets.phi[order], first, *columns)
    measured = dict(zip(_MEASURED, values.T, strict=True))
    good = (lead >= 0) & (measured["tau_pt"] > MIN_PT_GEV) & (np.abs(measured["tau_eta"]) < MAX_ABS_ETA)
    # Two jets may share their hardest track; the first then has it.
    _, only = np.unique(np.where(good, lead, -1), return_index=True)
    good &= np.isin(np.arange(good.size), only)
    lead = lead[good]
    tau = {name: column[good] for name, column in measured.items()}
    return _with_track({"event": event[good], **tau}, {name: column[lead] for name, column in c.items()}), lead


def _with_track(tau: dict[str, NDArray], track: dict[str, NDArray]) -> dict[str, NDArray]:
    """The features of taus with those of their hardest tracks."""
    charged, neutral = tau["chargedIsoPtSum"], tau["neutralIsoPtSum"]
    direction = np.stack([np.cos(tau["tau_phi"]), np.sin(tau["tau_phi"]), np.sinh(tau["tau_eta"])], axis=1)
    impact = track_columns(track, direction / np.linalg.norm(direction, axis=1, keepdims=True))
    one = np.ones(charged.size)
    crack = (np.abs(tau["tau_eta"]) > ECAL_CRACK[0]) & (np.abs(tau["tau_eta"]) < ECAL_CRACK[1])
    return tau | {
        "chargedIsoPtSumdR03_over_dR05": tau["chargedIsoPtSumdR03"] / np.where(charged > 0, charged, 1),
        "neutralIsoPtSumdR03_over_dR05": tau["neutralIsoPtSumdR03"] / np.where(neutral > 0, neutral, 1),
        "tau_dxy_valid": one,
        "tau_dxy": track["dxy"],
        "tau_dxy_sig": np.abs(track["dxy"]) / track["dxy_error"],
        "tau_ip3d_valid": one,
        "tau_ip3d": impact["btagSip3dVal"],
        "tau_ip3d_sig": np.abs(impact["btagSip3dSig"]),
        "tau_dz": track["dz"],
        "tau_dz_sig_valid": one,
        "tau_dz_sig": np.abs(track["dz"]) / track["dz_error"],
        "tau_leadingTrackNormChi2": track["chi2"],
        "tau_e_ratio_valid": (tau["tau_e_ratio"] > 0).astype(float),
        "tau_inside_ecal_crack": crack.astype(float),
    }


def around(tau: dict[str, NDArray], lead: NDArray, candidates: dict[str, NDArray], n_events: int) -> tuple[dict[str, NDArray], NDArray]:
    """The candidates within 0.5 of each tau, hardest first.

    Returns:
        By name, (n,) columns of the candidates, tau after tau; and (n_taus,) counts.
    """
    c = candidates
    first = np.searchsorted(c["event"], np.arange(n_events + 1))
    begin, count = first[tau["event"]], np.diff(first)[tau["event"]]
    of_tau = np.repeat(np.arange(begin.size), count)
    index = np.arange(count.sum()) + np.repeat(begin - (np.cumsum(count) - count), count)
    deta = c["eta"][index] - tau["tau_eta"][of_tau]
    dphi = np.mod(c["phi"][index] - tau["tau_phi"][of_tau] + np.pi, 2 * np.pi) - np.pi
    near = np.flatnonzero(np.hypot(deta, dphi) < ISOLATION_RADIUS)
    near = near[np.lexsort((-c["pt"][index[near]], of_tau[near]))]
    index, of_tau, deta, dphi = index[near], of_tau[near], deta[near], dphi[near]
    track = {name: column[index] for name, column in c.items()}
    charged = track["charge"] != 0

    def tracks_only(values: NDArray) -> NDArray:
        return np.where(charged, values, 0.0)

    columns = {
        "type": track["type"],  # the detector counts them as `helpers.physics.taus.KINDS` does
        "rel_pt": track["pt"] / tau["tau_pt"][of_tau],
        "deta": deta,
        "dphi": dphi,
        "charge": track["charge"],
        "pvAssociationQuality": track["vertex_association"],
        "leadChargedHadrCand": index == lead[of_tau],
        "lostInnerHits": tracks_only(track["lost_inner_hits"]),
        "hasTrackDetails": charged,
        "vertex_dx": tracks_only(-track["dxy"] * np.sin(track["phi"])),
        "vertex_dy": tracks_only(track["dxy"] * np.cos(track["phi"])),
        "vertex_dz": tracks_only(track["dz"]),
        "dxy": tracks_only(track["dxy"]),
        "dxy_sig": tracks_only(np.abs(track["dxy"]) / np.where(charged, track["dxy_error"], 1)),
        "dz": tracks_only(track["dz"]),
        "dz_sig": tracks_only(np.abs(track["dz"]) / np.where(charged, track["dz_error"], 1)),
        "track_chi2_ndof": tracks_only(track["chi2"]),
    }
    return columns, np.bincount(of_tau, minlength=begin.size)
