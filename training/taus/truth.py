"""What each reconstructed tau really is, from the event record."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.jets.truth import Record, last_copy, nearest

from .features import ELECTRON, JET, MUON, TAU

MATCH_RADIUS = 0.2
JET_RADIUS = 0.5
"""A jet has no prompt lepton or tau this near."""
TAU_MIN_PT_GEV = 15.0
LEPTON_MIN_PT_GEV = 8.0
NEUTRINOS = (12, 14, 16)
PROMPT = (15, 23, 24)
"""What prompt electrons and muons come from."""


def _from_boson(record: Record, index: NDArray) -> NDArray[np.bool_]:
    """True for particles whose first ancestor of another kind is a W, a Z or a tau."""
    mother = record.mother[index]
    for _ in range(50):
        same = record.pdg[mother] == record.pdg[index]
        if not same.any():
            break
        mother = np.where(same, record.mother[mother], mother)
    return np.isin(np.abs(record.pdg[mother]), PROMPT)


def prompt(record: Record) -> tuple[NDArray, NDArray, NDArray]:
    """Prompt electrons, muons and hadronic taus.

    Returns:
        Class, event and momentum (n, 4), visible of taus, sorted by event. Leptonic taus are there as their electron or muon.
    """
    number = np.abs(record.pdg)
    leptons = np.flatnonzero(np.isin(number, (11, 13)) & (record.status > 0))
    leptons = leptons[_from_boson(record, leptons)]
    taus = np.unique(last_copy(record, np.flatnonzero(number == 15)))
    begin, end = record.daughter[taus].T
    count = end - begin + 1
    of_tau = np.repeat(np.arange(taus.size), count)
    daughter = np.arange(count.sum()) + np.repeat(begin - (np.cumsum(count) - count), count)
    kind = number[daughter]
    hadronic = np.bincount(of_tau[np.isin(kind, (11, 13))], minlength=taus.size) == 0
    visible = np.zeros((taus.size, 4))
    seen = ~np.isin(kind, NEUTRINOS)
    np.add.at(visible, of_tau[seen], record.momentum[daughter[seen]])

    label = np.r_[np.where(number[leptons] == 11, ELECTRON, MUON), np.full(hadronic.sum(), TAU)]
    momentum = np.concatenate([record.momentum[leptons], visible[hadronic]])
    event = np.r_[record.event[leptons], record.event[taus[hadronic]]]
    least = np.where(label == TAU, TAU_MIN_PT_GEV, LEPTON_MIN_PT_GEV)
    chosen = np.hypot(momentum[:, 0], momentum[:, 1]) > least
    order = np.flatnonzero(chosen)[np.argsort(event[chosen], kind="stable")]
    return label[order], event[order], momentum[order]


def label(record: Record, event: NDArray, eta: NDArray, phi: NDArray) -> NDArray[np.int64]:
    """Class of each reconstructed tau, -1 where it is unclear.

    Args:
        record: The event record.
        event, eta, phi: (n_taus,) the reconstructed taus.
    """
    kind, true_event, momentum = prompt(record)
    pt = np.maximum(np.hypot(momentum[:, 0], momentum[:, 1]), 1e-9)
    true_eta, true_phi = np.arcsinh(momentum[:, 2] / pt), np.arctan2(momentum[:, 1], momentum[:, 0])
    match, near = (nearest(event, eta, phi, true_event, true_eta, true_phi, radius) for radius in (MATCH_RADIUS, JET_RADIUS))
    if not kind.size:
        return np.full(event.size, JET)
    return np.where(match >= 0, kind[match], np.where(near < 0, JET, -1))
