"""What is generated: the physics processes, their share of the events, their seeds.

`training.jets.processes` has the settings and the shards of both.

All processes have a hard scatter with a jet, of transverse momenta that are reweighted to be nearly flat, so that taus, leptons and jets
of similar momenta meet.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.jets import processes as jets

EVENTS_PER_SHARD = 1000
"""Small, so that training can begin early and a kill loses little."""

_FLAT = ("PhaseSpace:pTHatMin={low}.", "PhaseSpace:pTHatMax=200.", "PhaseSpace:bias2SelectionRef=50.")
_Z_AND_JET = ("WeakBosonAndParton:qqbar2gmZg=on", "WeakBosonAndParton:qg2gmZq=on", "WeakZ0:gmZmode=2", "23:onMode=off")
_W_AND_JET = ("WeakBosonAndParton:qqbar2Wg=on", "WeakBosonAndParton:qg2Wq=on", "24:onMode=off", "24:onIfAny=11 13 15")


@dataclass(frozen=True)
class Process:
    """One physics process.

    Attributes:
        name: Used in file names.
        share: Fraction of the events.
        low: Least transverse momentum of the hard scatter, GeV.
        settings: Pythia settings on top of the common ones.
    """

    name: str
    share: float
    low: int
    settings: tuple[str, ...]

    @property
    def index(self) -> int:
        """Position in `PROCESSES`, part of the seed and of the event number."""
        return PROCESSES.index(self)

    def pythia_settings(self) -> tuple[str, ...]:
        """All settings, the seed apart, in the order in which Pythia must read them."""
        return (*jets.COMMON_SETTINGS, *(setting.format(low=self.low) for setting in _FLAT), *self.settings)


PROCESSES: tuple[Process, ...] = (
    Process("ztautau", 0.46, 15, (*_Z_AND_JET, "23:onIfAny=15")),
    Process("zee", 0.13, 15, (*_Z_AND_JET, "23:onIfAny=11")),
    Process("zmumu", 0.13, 15, (*_Z_AND_JET, "23:onIfAny=13")),
    Process("wjets", 0.12, 25, _W_AND_JET),
    Process("qcd", 0.16, 25, ("HardQCD:all=on",)),
)

FIRST_SEED = {"train": 1_000_001, "ship": 600_000_001}
"""The shipped taus have seeds that no training tau can reach."""


class Shard(jets.Shard):
    """A number of events of one process with one seed: the unit of work, one file, never made twice."""

    first_seed = FIRST_SEED


def plan(events: int, purpose: str = "train") -> list[Shard]:
    """Cut ``events`` events into shards; those of all processes advance together."""
    shards: list[tuple[float, Shard]] = []
    for process in PROCESSES:
        wanted = round(events * process.share)
        for number, done in enumerate(range(0, wanted, EVENTS_PER_SHARD)):
            size = min(EVENTS_PER_SHARD, wanted - done)
            shards.append(((done + size / 2) / wanted, Shard(process, number, size, purpose)))
    return [shard for _, shard in sorted(shards, key=lambda s: (s[0], s[1].process.index))]
