"""What is generated: the physics processes, their share of the events, their seeds.

Every process is a list of Pythia 8 settings on top of a common list. A *shard* is a
fixed number of events of one process with a seed of its own, and is the unit of work:
one file, made by one process, never made twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

EVENTS_PER_SHARD = 3000
"""Long enough to make Pythia's start-up negligible, short enough to lose little to a kill."""

COMMON_SETTINGS = (
    "Print:quiet=on",
    "Beams:eCM=13000.",
    "PhaseSpace:bias2Selection=on",
    "PhaseSpace:bias2SelectionPow=4.",
    # Decay everything inside the tracker: strange hadrons are the displaced
    # background of light jets, without which b tagging is unrealistically easy.
    "ParticleDecays:limitCylinder=on",
    "ParticleDecays:xyMax=300.",
    "ParticleDecays:zMax=800.",
)
PHASE_SPACE = {
    "ak4": ("PhaseSpace:pTHatMin=25.", "PhaseSpace:pTHatMax=200.", "PhaseSpace:bias2SelectionRef=50."),
    "ak8": ("PhaseSpace:pTHatMin=250.", "PhaseSpace:pTHatMax=800.", "PhaseSpace:bias2SelectionRef=300."),
}
"""Per tagger: hard-scatter transverse momentum in GeV, reweighted to a nearly flat spectrum."""

JET_PT_RANGE_GEV = {"ak4": (25.0, 250.0), "ak8": (200.0, 1000.0)}
JET_MAX_ABS_ETA = {"ak4": 2.5, "ak8": 2.4}

TOP, W_BOSON, Z_BOSON, HIGGS = 6, 24, 23, 25
"""Particle Data Group numbers of the resonances that jets are matched to."""

_Z_TO_QUARKS = ("23:onMode=off", "23:onIfAny=1 2 3 4 5")
_W_TO_QUARKS = ("24:onMode=off", "24:onIfAny=1 2 3 4 5")


@dataclass(frozen=True)
class Process:
    """One physics process.

    Attributes:
        name: Used in file names.
        tagger: ``"ak4"`` or ``"ak8"``.
        share: Fraction of the events of this tagger.
        settings: Pythia settings on top of the common ones.
        resonances: Resonances to match AK8 jets to; empty for multijet processes.
        pileup: Whether the vertex is displaced along the beam, to make pile-up jets.
    """

    name: str
    tagger: str
    share: float
    settings: tuple[str, ...]
    resonances: tuple[int, ...] = ()
    pileup: bool = False

    @property
    def index(self) -> int:
        """Position in `PROCESSES`, part of the seed and of the event number."""
        return PROCESSES.index(self)

    def pythia_settings(self) -> tuple[str, ...]:
        """All settings, the seed apart, in the order in which Pythia must read them."""
        return (*COMMON_SETTINGS, *PHASE_SPACE[self.tagger], *self.settings)


def _hz(name: str, decay: tuple[str, ...], share: float) -> Process:
    settings = ("HiggsSM:ffbar2HZ=on", "25:onMode=off", *decay, *_Z_TO_QUARKS)
    return Process(name, "ak8", share, settings, (HIGGS, Z_BOSON))


PROCESSES: tuple[Process, ...] = (
    Process("qcd", "ak4", 0.25, ("HardQCD:all=on",)),
    Process("bb", "ak4", 0.25, ("HardQCD:hardbbbar=on",)),
    Process("cc", "ak4", 0.20, ("HardQCD:hardccbar=on",)),
    Process("uds", "ak4", 0.25, ("HardQCD:qg2qg=on", "HardQCD:qq2qq=on")),
    Process("pileup", "ak4", 0.05, ("HardQCD:all=on",), pileup=True),
    Process("top", "ak8", 0.24, ("Top:gg2ttbar=on", "Top:qqbar2ttbar=on"), (TOP,)),
    Process("ww", "ak8", 0.06, ("WeakDoubleBoson:ffbar2WW=on", *_W_TO_QUARKS), (W_BOSON,)),
    _hz("hbb", ("25:onIfMatch=5 -5",), 0.12),
    _hz("hcc", ("25:onIfMatch=4 -4",), 0.10),
    _hz("hqqqq", ("25:onIfMatch=24 -24", *_W_TO_QUARKS), 0.12),
    Process("boosted_qcd", "ak8", 0.20, ("HardQCD:all=on",)),
    Process("boosted_bb", "ak8", 0.08, ("HardQCD:hardbbbar=on",)),
    Process("boosted_cc", "ak8", 0.08, ("HardQCD:hardccbar=on",)),
)

FIRST_SEED = {"train": 1, "ship": 500_000_001}
"""The shipped jets have seeds that no training jet can reach. Pythia takes up to 900 million."""
SHARDS_PER_PROCESS = 100_000


@dataclass(frozen=True)
class Shard:
    """A number of events of one process with one seed."""

    process: Process
    number: int
    events: int
    purpose: str = "train"
    first_seed: ClassVar[dict[str, int]] = FIRST_SEED

    @property
    def seed(self) -> int:
        """Seed of Pythia and of the detector emulation."""
        return self.first_seed[self.purpose] + self.process.index * SHARDS_PER_PROCESS + self.number

    @property
    def file_name(self) -> str:
        """Name of the file that holds its jets."""
        return f"{self.process.name}_{self.number:05d}.npz"


def plan(tagger: str, events: int, purpose: str = "train") -> list[Shard]:
    """Cut ``events`` events into shards, process by process in turn.

    The shards of every process advance together, so that whatever part of the list is
    done holds all classes in about the right proportions.
    """
    shards: list[tuple[float, Shard]] = []
    for process in PROCESSES:
        if process.tagger != tagger:
            continue
        wanted = round(events * process.share)
        done = number = 0
        while done < wanted:
            size = min(EVENTS_PER_SHARD, wanted - done)
            shards.append(((done + size / 2) / wanted, Shard(process, number, size, purpose)))
            done += size
            number += 1
    return [shard for _, shard in sorted(shards, key=lambda s: (s[0], s[1].process.index))]
