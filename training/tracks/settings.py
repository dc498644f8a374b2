"""Every number of the track training that somebody might want to change, each with its unit and its reason."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "work" / "training" / "tracks"
"""Default of ``--output``; git ignores it."""

CENTRE_OF_MASS_GEV = 13000
BEAM_SPOT_MM = (0.0125, 0.0125, 55.5)
"""Spread of the collisions in x, y and z: about that of the LHC."""
MEAN_PILE_UP = 15
FIELD_T = 2.0
MIN_PT_GEV = 0.1
"""Particles below are not simulated: they curl up before they leave the pixels."""
MAX_ABS_ETA = 3.0
"""Acceptance of the generic detector."""
MIN_MOMENTUM_GEV = 0.05
"""The simulation stops following a particle here."""
EVENTS_PER_SHARD = 50

LOSS_MIN_PT_GEV = 0.3
"""True edges of softer particles count neither as signal nor as background in the training."""
TARGET_MIN_PT_GEV = 0.5
TARGET_MIN_HITS = 5
"""The particles that efficiency is about."""

PAUSE_FILE = os.environ.get("COURSE_PAUSE_FILE", "")
"""While this file exists, all loops sleep: measurements on the same machine want it quiet."""


@dataclass(frozen=True)
class Sample:
    """One kind of events for one purpose.

    Attributes:
        name: Folder of its shards.
        events: How many.
        pile_up: Mean number of soft collisions on top of the hard one.
        seed: Seed of its first shard; shards count on from there.
    """

    name: str
    events: int
    pile_up: float
    seed: int


SAMPLES = (
    Sample("train", 800, 0, 10_000),
    Sample("train_pile_up", 100, MEAN_PILE_UP, 20_000),
    Sample("validate", 50, 0, 30_000),
    Sample("validate_pile_up", 20, MEAN_PILE_UP, 40_000),
    Sample("test", 200, 0, 50_000),
    Sample("test_pile_up", 40, MEAN_PILE_UP, 60_000),
    Sample("ship", 20, 0, 70_000),
    Sample("ship_pile_up", 5, MEAN_PILE_UP, 80_000),
)
"""What a full run makes. Thresholds are chosen on "validate"; figures come from "test"; "ship" goes into ``notebooks/data``."""

TRIAL_SAMPLES = (
    Sample("train", 24, 0, 110_000),
    Sample("train_pile_up", 4, MEAN_PILE_UP, 120_000),
    Sample("validate", 8, 0, 130_000),
    Sample("validate_pile_up", 2, MEAN_PILE_UP, 140_000),
    Sample("test", 8, 0, 150_000),
    Sample("test_pile_up", 2, MEAN_PILE_UP, 160_000),
    Sample("ship", 2, 0, 170_000),
    Sample("ship_pile_up", 1, MEAN_PILE_UP, 180_000),
)
"""The same in two minutes, with networks that have hardly learnt anything."""


@dataclass(frozen=True)
class Schedule:
    """What one training sees.

    Attributes:
        epochs: Passes over its events.
        plain: Events without pile-up, of those there are.
        crowded: Events with pile-up; one takes as long as six without.
        rate: Highest learning rate.
    """

    epochs: int
    plain: int
    crowded: int
    rate: float = 3e-3


SCHEDULES = {
    "embedding": Schedule(4, 800, 50),
    "filter": Schedule(6, 300, 40),
    "interaction": Schedule(5, 500, 100),
}
TRIAL_SCHEDULES = {
    "embedding": Schedule(6, 24, 2),
    "filter": Schedule(1, 12, 2),
    "interaction": Schedule(4, 24, 2),
}
