"""Anti-kT jets with FastJet, with heavy hadrons as ghosts."""

from __future__ import annotations

from dataclasses import dataclass

import awkward as ak
import fastjet
import numpy as np
import vector
from numpy.typing import NDArray

vector.register_awkward()
GHOST_SCALE = 1e-12
"""Heavy hadrons enter the clustering with their momenta times this: they change no jet."""


@dataclass
class Jets:
    """Jets of a batch, and which candidates and ghosts they hold (flat, jet by jet)."""

    event: NDArray[np.int64]
    momentum: NDArray[np.float64]  # (n_jets, 4): px, py, pz, E
    constituent: NDArray[np.int64]  # indices of candidates
    constituent_jet: NDArray[np.int64]
    n_b: NDArray[np.int64]
    n_c: NDArray[np.int64]

    @property
    def pt(self) -> NDArray:
        """Transverse momenta, GeV."""
        return np.hypot(self.momentum[:, 0], self.momentum[:, 1])

    @property
    def eta(self) -> NDArray:
        """Pseudorapidities."""
        return np.arcsinh(self.momentum[:, 2] / np.maximum(self.pt, 1e-9))

    @property
    def phi(self) -> NDArray:
        """Azimuths, rad."""
        return np.arctan2(self.momentum[:, 1], self.momentum[:, 0])

    @property
    def mass(self) -> NDArray:
        """Invariant masses, GeV."""
        px, py, pz, energy = self.momentum.T
        return np.sqrt(np.maximum(energy**2 - px**2 - py**2 - pz**2, 0))


def cluster(candidates, ghosts, radius: float, pt_range, max_abs_eta: float, n_events: int, least_constituents: int = 2) -> Jets:
    """Cluster the candidates of a batch.

    Args:
        candidates: Candidates in order of event.
        ghosts: Events (n,), momenta (n, 4) and flavour (n,), 5 or 4, of heavy hadrons.
        radius: Jet radius parameter.
        pt_range: Lowest and highest transverse momentum, GeV.
        max_abs_eta: Acceptance.
        n_events: Events in the batch.
        least_constituents: Jets of fewer are dropped.

    Returns:
        The jets.
    """
    c = candidates
    momentum = np.stack([c["pt"] * np.cos(c["phi"]), c["pt"] * np.sin(c["phi"]), c["pt"] * np.sinh(c["eta"]), c["energy"]], axis=1)
    event = np.r_[c["event"], ghosts[0]]
    source = np.r_[np.arange(c["event"].size), -ghosts[2]]  # negative: flavour of a ghost
    momentum = np.concatenate([momentum, ghosts[1] * GHOST_SCALE])
    order = np.argsort(event, kind="stable")
    momentum, source, event = momentum[order], source[order], event[order]
    counts = np.bincount(event, minlength=n_events)
    kept = np.flatnonzero(counts > 0)  # FastJet's array interface wants no empty event
    flat = ak.zip(dict(zip(("px", "py", "pz", "E"), momentum.T)), with_name="Momentum4D")
    events = ak.unflatten(flat, counts[kept])
    sequence = fastjet.ClusterSequence(events, fastjet.JetDefinition(fastjet.antikt_algorithm, radius))
    found = sequence.inclusive_jets(min_pt=pt_range[0])
    members = sequence.constituent_index(min_pt=pt_range[0])

    jet_event = np.repeat(kept, ak.to_numpy(ak.num(found)))
    jet_momentum = np.stack([ak.to_numpy(ak.flatten(found[k])) for k in ("px", "py", "pz", "E")], axis=1)
    per_jet = ak.to_numpy(ak.flatten(ak.num(members, axis=2)))
    first_of_event = np.r_[0, np.cumsum(counts)][:-1]
    index = ak.to_numpy(ak.flatten(members, axis=None)).astype(np.int64)
    index = index + np.repeat(first_of_event[jet_event], per_jet)
    of_jet = np.repeat(np.arange(jet_event.size), per_jet)
    source = source[index]

    n_jets = jet_event.size
    n_b = np.bincount(of_jet[source == -5], minlength=n_jets)
    n_c = np.bincount(of_jet[source == -4], minlength=n_jets)
    real = source >= 0
    jets = Jets(jet_event, jet_momentum, source[real], of_jet[real], n_b, n_c)
    good = (np.abs(jets.eta) < max_abs_eta) & (jets.pt < pt_range[1])
    good &= np.bincount(jets.constituent_jet, minlength=n_jets) >= least_constituents
    return select(jets, good)


def select(jets: Jets, good: NDArray[np.bool_]) -> Jets:
    """The jets for which ``good`` is true, with their constituents."""
    renumbered = np.cumsum(good) - 1
    mine = good[jets.constituent_jet]
    return Jets(
        jets.event[good],
        jets.momentum[good],
        jets.constituent[mine],
        renumbered[jets.constituent_jet[mine]],
        jets.n_b[good],
        jets.n_c[good],
    )
