"""The radius graph of ExaTrk without a server: it is that of brute force, whatever the points look like."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import numpy as np
import pytest

from helpers import paths
from helpers.physics.tracks import load_events


def load() -> ModuleType:
    path = paths.models_dir() / "ExaTrk_graph" / "1" / "radius_graph.py"
    spec = importlib.util.spec_from_file_location("radius_graph_for_tests", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


graph = load()


def brute_force(points: np.ndarray, radius: float) -> set[tuple[int, int]]:
    double = points.astype(np.float64)
    square = sum((column[:, None] - column[None, :]) ** 2 for column in double.T)
    return set(zip(*(index.tolist() for index in np.nonzero(np.triu(square <= radius**2, k=1))), strict=True))


def pairs(points: np.ndarray, radius: float, max_neighbours: int = 10**6, max_edges: int = 10**7) -> list[tuple[int, int]]:
    edges = graph.radius_graph(points, np.arange(len(points)), radius, max_neighbours, max_edges)
    assert edges.dtype == np.int64
    return list(map(tuple, edges.T.tolist()))


def cloud(n: int, dimensions: int = 8, scale: float = 1.0, middle: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(n + dimensions)
    return (rng.normal(size=(n, dimensions)) * scale + middle).astype(np.float32)


def layers() -> np.ndarray:
    """Points on a lattice: many pairs are exactly as far apart as the radius."""
    return np.stack(np.meshgrid(*[np.arange(7.0)] * 3), axis=-1).reshape(-1, 3).astype(np.float32)


def clumps() -> np.ndarray:
    return np.concatenate([cloud(300, scale=1e-3), cloud(400, scale=1e-3, middle=5), cloud(500, scale=30)])


@pytest.mark.parametrize(
    ("points", "radius"),
    [
        (cloud(2), 3.0),
        (cloud(3), 1e-3),
        (cloud(129), 1.5),
        (cloud(1500), 1.5),
        (cloud(1500), 0.2),
        (cloud(700, dimensions=2), 0.01),
        (cloud(900, dimensions=3, scale=100, middle=1e4), 20.0),
        (cloud(600), 1000.0),
        (cloud(500, scale=1e15), 0.5),
        (layers(), 1.0),
        (layers(), 2.0),
        (clumps(), 0.01),
        (np.zeros((40, 8), np.float32), 0.5),
    ],
    ids=["two", "none is close", "a block and one", "event", "thin", "a plane", "far from 0", "all pairs", "huge numbers", "lattice",
         "wide lattice", "clumps", "one place"],
)  # fmt: skip
def test_it_is_that_of_brute_force(points: np.ndarray, radius: float):
    found = pairs(points, radius)
    assert len(found) == len(set(found)), "no pair twice"
    assert set(found) == brute_force(points, radius)


def test_strips_and_blocks_of_any_size_give_the_same(monkeypatch: pytest.MonkeyPatch):
    points = cloud(400)
    expected = brute_force(points, 1.2)
    for block in (1, 7, 128, 1000):
        monkeypatch.setattr(graph, "BLOCK", block)
        assert set(pairs(points, 1.2)) == expected


def test_fewer_than_two_hits_have_no_edge():
    for n in (0, 1):
        assert graph.radius_graph(cloud(n), np.arange(n), 1.0, 5, 5).shape == (2, 0)


def test_edges_lead_from_the_earlier_hit_of_the_order_to_the_later_one():
    points, order = cloud(300), np.random.default_rng(3).permutation(300)
    edges = graph.radius_graph(points, order, 1.5, 300, 10**6)
    place = np.argsort(order)
    assert edges.shape[1] == len(brute_force(points, 1.5)) and (place[edges[0]] < place[edges[1]]).all()


def test_the_limit_on_pairs_is_exact():
    points = cloud(500)
    n_pairs = len(brute_force(points, 1.5))
    assert len(pairs(points, 1.5, max_edges=n_pairs)) == n_pairs
    with pytest.raises(graph.TooDense, match=f"more than {n_pairs - 1} pairs of hits lie within the radius 1.5"):
        pairs(points, 1.5, max_edges=n_pairs - 1)


def test_hits_as_far_out_as_others_are_ordered_by_their_place():
    features = np.array([[0.5, 0.3, 0.1], [0.2, 0, 0], [0.5, -0.3, 0.2], [0.5, -0.3, 0.1], [0.9, 0, 0]], np.float32)
    assert graph.outwards(features).tolist() == [1, 3, 2, 0, 4]


def test_the_order_of_hits_is_that_of_sorting_by_all_three():
    for event in load_events()[:5] + load_events(pile_up=True)[:2]:
        coarse = event.features.round(2)
        for features in (event.features, coarse):
            r, phi, z = features.T
            expected = np.lexsort((z, phi, r + np.maximum(np.abs(z) - 0.55, 0)))
            assert np.array_equal(features[graph.outwards(features)], features[expected])
