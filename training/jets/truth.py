"""Truth labels: heavy hadrons, partons and resonances from the event record.

Heavy hadrons are associated to jets as ghosts in the clustering (see `clustering`);
partons and resonances by distance in eta and phi.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .features import AK4, AK8
from .processes import HIGGS, TOP, W_BOSON, Z_BOSON

MAX_PRONGS = 4


@dataclass
class Record:
    """The event record of a batch, flat. Mothers and daughters index these flat arrays."""

    event: NDArray[np.int64]
    pdg: NDArray[np.int64]
    status: NDArray[np.int64]
    mother: NDArray[np.int64]
    daughter: NDArray[np.int64]  # (n, 2): first and last
    momentum: NDArray[np.float64]  # (n, 4)
    vertex_mm: NDArray[np.float64]  # (n, 3)

    def eta_phi(self, index: NDArray) -> tuple[NDArray, NDArray]:
        """Pseudorapidity and azimuth of the particles at ``index`` (any shape)."""
        px, py, pz, _ = np.moveaxis(self.momentum[index], -1, 0)
        return np.arcsinh(pz / np.maximum(np.hypot(px, py), 1e-9)), np.arctan2(py, px)


def has_quark(pdg: NDArray, quark: int) -> NDArray[np.bool_]:
    """Whether these are hadrons that contain the given heavy quark (and none heavier)."""
    number = np.abs(pdg)
    hadron = (number > 100) & (number < 1_000_000)
    content = np.stack([number // 10 % 10, number // 100 % 10, number // 1000 % 10])
    return hadron & (content.max(axis=0) == quark)


def last_heavy_hadrons(record: Record, quark: int) -> NDArray[np.int64]:
    """Indices of heavy hadrons that do not decay to another of the same flavour."""
    heavy = has_quark(record.pdg, quark)
    index = np.flatnonzero(heavy)
    parents = record.mother[index]
    not_last = np.zeros(heavy.size, bool)
    not_last[parents[heavy[parents]]] = True
    return index[~not_last[index]]


def last_copy(record: Record, index: NDArray) -> NDArray:
    """Follow particles through recoils and radiation to the copy that decays."""
    index = index.copy()
    for _ in range(50):
        first, last = record.daughter[index].T
        same = record.pdg[first] == record.pdg[index]
        same_last = record.pdg[last] == record.pdg[index]
        following = np.where(same, first, np.where(same_last, last, index))
        if np.array_equal(following, index):
            break
        index = following
    return index


@dataclass
class Resonances:
    """Boosted particles and the fermions they decay to, sorted by event."""

    event: NDArray[np.int64]
    kind: NDArray[np.int64]
    eta: NDArray[np.float64]
    phi: NDArray[np.float64]
    prong_pdg: NDArray[np.int64]  # (n, 4), 0 where there are fewer
    prong_eta: NDArray[np.float64]
    prong_phi: NDArray[np.float64]


def resonances(record: Record, kinds: tuple[int, ...]) -> Resonances:
    """Collect the resonances of the given kinds and their prongs.

    The prongs of a top are (bottom, fermion, fermion); of H → WW the four fermions.
    """
    absolute = np.abs(record.pdg)
    found = np.flatnonzero(np.isin(absolute, kinds))
    found = np.unique(last_copy(record, found))
    children = record.daughter[found]
    prongs = np.full((found.size, MAX_PRONGS), -1)
    prongs[:, :2] = children
    is_top = absolute[found] == TOP
    first_is_w = absolute[children[:, 0]] == W_BOSON
    bottom = np.where(first_is_w, children[:, 1], children[:, 0])
    boson = np.where(first_is_w, children[:, 0], children[:, 1])
    prongs[is_top, 0] = bottom[is_top]
    prongs[is_top, 1:3] = record.daughter[last_copy(record, boson[is_top])]
    is_ww = (absolute[found] == HIGGS) & first_is_w
    for column in (0, 1):
        pair = record.daughter[last_copy(record, children[is_ww, column])]
        prongs[is_ww, 2 * column : 2 * column + 2] = pair
    eta, phi = record.eta_phi(found)
    prong_eta, prong_phi = record.eta_phi(prongs)
    prong_pdg = np.where(prongs >= 0, absolute[prongs], 0)
    return Resonances(record.event[found], absolute[found], eta, phi, prong_pdg, prong_eta, prong_phi)


@njit(cache=True)
def _distance(eta1, phi1, eta2, phi2):
    return np.hypot(eta1 - eta2, (phi1 - phi2 + np.pi) % (2 * np.pi) - np.pi)


@njit(cache=True)
def nearest(event, eta, phi, other_event, other_eta, other_phi, radius):
    """For each jet, the index of the nearest other object of its event within ``radius``, or -1.

    ``other_event`` must be sorted.
    """
    result = np.full(event.size, -1)
    for i in range(event.size):
        best = radius
        for j in range(np.searchsorted(other_event, event[i]), other_event.size):
            if other_event[j] != event[i]:
                break
            d = _distance(eta[i], phi[i], other_eta[j], other_phi[j])
            if d < best:
                best, result[i] = d, j
    return result


HARD_OUTGOING = (-23,)
RADIATED = (-33, -43, -51)
"""Pythia's status of partons from further scatters, initial- and final-state radiation."""


def parton_flavour(record: Record, event, eta, phi, radius: float) -> NDArray[np.int64]:
    """PDG number of the parton that started each jet, 0 for none.

    The nearest outgoing parton of the hard scatter; failing that, the nearest radiated
    parton of at least 10 GeV.
    """
    flavour = np.zeros(event.size, np.int64)
    pt = np.hypot(record.momentum[:, 0], record.momentum[:, 1])
    for status in (RADIATED, HARD_OUTGOING):
        partons = np.flatnonzero(np.isin(record.status, status) & (pt > 10.0))
        parton_eta, parton_phi = record.eta_phi(partons)
        match = nearest(event, eta, phi, record.event[partons], parton_eta, parton_phi, radius)
        flavour = np.where(match >= 0, record.pdg[partons[match]], flavour)
    return flavour


def label_ak4(n_b, n_c, parton, pileup: bool) -> NDArray[np.int64]:
    """Class of each AK4 jet, as an index into ``AK4.labels``.

    Args:
        n_b, n_c: Numbers of bottom and charm hadrons in the jets.
        parton: PDG number of the nearest parton of the hard scatter, 0 for none.
        pileup: Whether these jets come from a displaced vertex.
    """
    names = list(AK4.labels)
    index = {name: names.index("prob" + name) for name in ("b", "bb", "c", "cc", "uds", "g", "undef", "pu")}
    if pileup:
        return np.full(n_b.size, index["pu"])
    parton = np.abs(parton)
    conditions = [
        n_b > 1,
        n_b == 1,
        n_c > 1,
        n_c == 1,
        (parton >= 1) & (parton <= 3),
        parton == 21,
    ]
    return np.select(conditions, [index[k] for k in ("bb", "b", "cc", "c", "uds", "g")], index["undef"])


def label_qcd(n_b, n_c) -> NDArray[np.int64]:
    """Class of each AK8 jet of a multijet process, by its heavy hadrons."""
    names = [f"probQCD{k}" for k in ("bb", "b", "cc", "c")]
    values = [AK8.labels.index(n) for n in names]
    return np.select([n_b > 1, n_b == 1, n_c > 1, n_c == 1], values, AK8.labels.index("probQCDothers"))


def label_resonance(jet_eta, jet_phi, match, found: Resonances, radius: float = 0.8) -> NDArray[np.int64]:
    """Class of each AK8 jet by the prongs that it contains, -1 where none fits.

    Args:
        jet_eta, jet_phi: (n_jets,) jet axes.
        match: (n_jets,) index of the resonance of each jet, -1 for none.
        found: The resonances.
        radius: Prongs nearer than this to the axis count as contained.
    """
    label = np.full(match.size, -1)
    for i in np.flatnonzero(match >= 0):
        pdg = found.prong_pdg[match[i]]
        distance = np.hypot(
            found.prong_eta[match[i]] - jet_eta[i],
            (found.prong_phi[match[i]] - jet_phi[i] + np.pi) % (2 * np.pi) - np.pi,
        )
        inside = (distance < radius) & (pdg > 0)
        name = _resonance_class(found.kind[match[i]], pdg, inside)
        if name:
            label[i] = AK8.labels.index("prob" + name)
    return label


def _resonance_class(kind: int, pdg: NDArray, inside: NDArray) -> str:
    if kind == TOP:
        return _top_class(pdg, inside)
    if kind == HIGGS and pdg[2]:
        return "Hqqqq" if inside.sum() >= 3 else ""
    if not inside[:2].all():
        return ""
    if kind == W_BOSON:
        return "Wcq" if 4 in pdg[:2] else "Wqq"
    flavour = {5: "bb", 4: "cc"}.get(int(pdg[0]), "qq")
    return {Z_BOSON: "Z", HIGGS: "H"}[kind] + flavour


def _top_class(pdg: NDArray, inside: NDArray) -> str:
    fermions, contained = pdg[1:3], inside[1:3]
    lepton = [int(p) for p, c in zip(fermions, contained) if c and p in (11, 13, 15)]
    if (fermions > 10).any():
        return {11: "Tbel", 13: "Tbmu", 15: "Tbta"}[lepton[0]] if inside[0] and lepton else ""
    charm = "c" if 4 in fermions[contained] else "q"
    if inside[0] and contained.any():
        return f"Tb{charm}q" if contained.all() else f"Tb{charm}"
    if not inside[0] and contained.all():
        return f"W{charm}q"
    return ""
