"""Matching to truth: efficiency, fakes, duplicates and their uncertainties, on cases that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.physics.tracks import Event, Rate, load_events, match, quality, same_tracks
from tests.unit.test_tracks import made_event


def long_event() -> Event:
    """Two particles of six hits, both to be found."""
    return made_event([0] * 6 + [1] * 6, [30, 70, 110, 170, 260, 360, 31, 71, 111, 171, 261, 361])


def test_perfect_labels_find_everything():
    found = quality([long_event()], [[7] * 6 + [3] * 6])
    assert (found.efficiency.passed, found.efficiency.total) == (2, 2)
    assert found.fake_rate.passed == found.duplicate_rate.passed == 0 and found.fake_rate.total == 2
    assert found.purity.value == 1


def test_no_label_finds_nothing():
    found = quality([long_event()], [[-1] * 12])
    assert found.efficiency.value == 0 and found.fake_rate.total == 0 and np.isnan(found.fake_rate.value)


@pytest.mark.parametrize(
    ("labels", "found", "fakes", "duplicates"),
    [
        # Half of the hits is not more than half.
        ([0, 0, 0, 1, 1, 1] + [2] * 6, 1, 0, 1),
        # Four of six are, and the rest is a duplicate.
        ([0, 0, 0, 0, 1, 1] + [2] * 6, 2, 0, 1),
        # One track for both: half of its hits are of each.
        ([0] * 12, 0, 1, 0),
        # Five hits of one and two of the other: found, but not pure.
        ([0] * 5 + [-1] + [0, 0, 1, 1, 1, 1], 2, 0, 0),
    ],
)
def test_double_majority(labels: list[int], found: int, fakes: int, duplicates: int):
    got = quality([long_event()], [labels])
    assert (got.efficiency.passed, got.fake_rate.passed, got.duplicate_rate.passed) == (found, fakes, duplicates)


def test_soft_and_short_particles_do_not_count():
    event = made_event([0] * 6 + [1] * 4 + [2] * 6, list(range(30, 62, 2)), pt=[0.4, 5.0, 0.6])
    found = quality([event], [event.particle])
    assert found.efficiency.total == 1 and found.fake_rate.total == 3


def test_negative_labels_are_no_common_track():
    event = long_event()
    matching = match(event, [-1] * 6 + [0] * 6)
    assert matching.n_hits.tolist() == [6] and matching.found.tolist() == [False, True]


def test_rates_have_wilson_intervals():
    assert Rate.of(0, 10)[:3] == pytest.approx((0, 0, 1 / 11))
    assert Rate.of(10, 10)[:3] == pytest.approx((1, 10 / 11, 1))
    half = Rate.of(50, 100)
    assert half.high - half.low == pytest.approx(2 * 0.05, rel=0.01), "about one binomial standard deviation each side"
    assert np.isnan(Rate.of(0, 0)[:3]).all()


def test_bins_add_up_and_know_their_edges():
    events = load_events()[:3]
    found = quality(events, [event.particle.astype(np.int64) for event in events])
    rows = found.against("eta")
    assert rows["total"].sum() == (np.abs(found.particles["eta"]) <= 3).sum() > 0.9 * found.efficiency.total
    assert rows["eta_low"].tolist() == [-3 + 0.5 * i for i in range(12)] and rows["eta_high"].iloc[-1] == 3


def test_same_tracks_does_not_care_for_names():
    assert same_tracks([0, 0, 1, -1], [5, 5, 2, -7])
    assert not same_tracks([0, 0, 1, -1], [5, 5, 5, -1]), "two tracks became one"
    assert not same_tracks([0, 0, 0, -1], [5, 5, 2, -1]), "one track became two"
    assert not same_tracks([0, 0, 1, -1], [0, 0, 1, 1]), "a hit more on a track"
    assert not same_tracks([0, 0], [0, 0, 0])
    assert same_tracks([-1, -1], [-1, -1])


def test_a_quality_shows_itself():
    found = quality([long_event()], [[0] * 12])
    assert found.table["quantity"].tolist() == ["efficiency", "fake rate", "duplicate rate", "hit purity"]
    assert found.table["value"].tolist() == [0, 1, 0, 0.5] and "particles" not in str(found)
