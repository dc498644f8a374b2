"""Events, their tensors, and the truth about edges."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.errors import CourseError
from helpers.physics.tracks import Event, edge_quality, is_true, load_events, quality, true_edges
from tests.support import ROOT


def made_event(particle: list[int], r: list[float], z: list[float] | None = None, pt: list[float] | None = None) -> Event:
    """A small event: one hit for each entry; particles are numbered from 0."""
    n_hits, n_particles = len(particle), max(particle) + 1
    rng = np.random.default_rng(3)
    return Event(
        np.array(r, np.float32), rng.uniform(-3, 3, n_hits).astype(np.float32), np.array(z or [0.0] * n_hits, np.float32),
        np.full(n_hits, 8, np.uint8), np.ones(n_hits, np.uint8), np.array(particle, np.int32),
        np.array(pt or [1.0] * n_particles, np.float32), np.zeros(n_particles, np.float32), np.zeros(n_particles, np.float32),
        np.full(n_particles, 211, np.int32), np.ones(n_particles, np.int8), np.ones(n_particles, np.int16),
    )  # fmt: skip


def test_features_are_scaled_and_single_precision():
    event = made_event([0, 0], [1000.0, 32.0], z=[-500.0, 2950.0])
    np.testing.assert_allclose(event.features, np.stack([[1, 0.032], event.phi / np.pi, [-0.5, 2.95]], axis=1), rtol=1e-6)
    assert event.features.dtype == np.float32


@pytest.mark.parametrize(("pile_up", "events", "collisions"), [(False, 20, 1), (True, 5, 2)])
def test_shipped_events(pile_up: bool, events: int, collisions: int):
    loaded = load_events(pile_up=pile_up)
    assert len(loaded) == events
    for event in loaded:
        assert event.n_hits == event.phi.size == event.z.size == event.particle.size > 100
        assert event.pt.size == np.unique(event.particle).size == event.particle.max() + 1, "each particle has a hit"
        assert (event.r > 25).all() and (event.r < 1100).all() and (np.abs(event.z) < 3200).all() and (np.abs(event.phi) <= np.pi).all()
        assert np.unique(event.collision).size >= collisions
        assert 20 < event.target.sum() < 1000
        assert np.isfinite(event.features).all() and np.abs(event.features[:, 1]).max() <= 1
        np.testing.assert_allclose(np.hypot(event.x, event.y), event.r, rtol=1e-5)


def test_shipped_files_are_small():
    folder = ROOT / "notebooks" / "data"
    assert sum(path.stat().st_size for path in folder.glob("tracks*.npz")) < 2_000_000


def test_true_edges_join_consecutive_hits_from_the_inside_out():
    event = made_event([0, 1, 0, 1, 0], [100, 50, 30, 70, 60])
    assert sorted(true_edges(event).T.tolist()) == [[1, 3], [2, 4], [4, 0]]


def test_along_the_beam_the_way_out_is_along_z():
    # The same r, farther and farther along the beam: disks.
    event = made_event([0, 0, 0], [100, 100, 100], z=[-900, -600, -1500])
    assert true_edges(event).T.tolist() == [[1, 0], [0, 2]]


def test_an_edge_that_skips_a_hit_is_not_true():
    event = made_event([0, 0, 0, 1], [30, 60, 100, 70])
    assert is_true(event, [[0, 0, 1, 0, 1], [1, 2, 2, 3, 0]]).tolist() == [True, False, True, False, False]


def test_edge_quality_counts_particles_to_be_found_only_in_the_efficiency():
    r = [30, 60, 100, 200, 300, 40, 80, 120, 160, 210]
    event = made_event([0] * 5 + [1] * 5, r, pt=[1.0, 0.3])
    assert event.target.tolist() == [True, False]
    # Two of the four edges that count, one of the soft particle, one wrong.
    found = edge_quality(event, [[0, 1, 5, 0], [1, 2, 6, 9]])
    assert found == {"edges": 4, "efficiency": 0.5, "purity": 0.75}


def test_a_graph_without_edges_has_no_purity():
    event = made_event([0] * 5, [30, 60, 100, 200, 300])
    found = edge_quality(event, np.empty((2, 0), np.int64))
    assert found["edges"] == 0 and found["efficiency"] == 0 and np.isnan(found["purity"])


@pytest.mark.parametrize("labels", [[0, 1], [0.5, 1.0, 2.0], [[0, 1, 2]]])
def test_labels_that_do_not_fit_are_refused(labels: list):
    with pytest.raises(CourseError, match="3 hits"):
        quality([made_event([0, 0, 0], [30, 60, 100])], [labels])


def test_an_event_shows_itself():
    assert str(made_event([0, 0, 0], [30, 60, 100])) == "3 hits of 1 particles, 0 of them to be found; collisions: 1"
