"""The last stage's algorithm and the checks of hits, without a server: plain NumPy files of the model repository."""

from __future__ import annotations

import importlib.util
from types import ModuleType

import numpy as np
import pytest

from helpers import paths
from helpers.physics.tracks import load_events, same_tracks, true_edges


def load(model: str, name: str) -> ModuleType:
    path = paths.models_dir() / model / "1" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"{model}_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tracks = load("ExaTrk_tracks", "build_tracks")
hits = load("ExaTrk_graph", "check_hits")


def line_of_hits(n: int) -> np.ndarray:
    """Hits one behind the other, 0.1 m apart."""
    return np.stack([0.1 * np.arange(1, n + 1), np.zeros(n), np.zeros(n)], axis=1).astype(np.float32)


def build(n: int, edges: list[tuple[int, int, float]], same: float = 0.0, **cuts: float) -> list[int]:
    source, target, score = (np.array(column) for column in zip(*edges, strict=True)) if edges else ([], [], [])
    index = np.array([source, target], dtype=np.int64).reshape(2, -1)
    options = {"cut": 0.5, "mend_cut": 0.5, "min_hits": 3, **cuts}
    return tracks.build_tracks(line_of_hits(n), index, np.asarray(score, float), np.full(index.shape[1], same), **options).tolist()


def test_a_chain_is_a_track_and_the_rest_has_none():
    assert build(5, [(0, 1, 0.9), (1, 2, 0.9)]) == [0, 0, 0, -1, -1]


def test_competing_edges_the_higher_score_wins():
    # Hit 1 may go on to 2 or 3; hit 3 may come from 1 or 4.
    assert build(7, [(0, 1, 0.9), (1, 2, 0.6), (1, 3, 0.8), (3, 5, 0.9), (2, 6, 0.9)], min_hits=4) == [0, 0, -1, 0, -1, 0, -1]


def test_the_greedy_choice_is_the_best_edge_first():
    rng = np.random.default_rng(5)
    n, m = 60, 400
    source, target, score = rng.integers(0, n, m), rng.integers(0, n, m), rng.random(m)
    partner, taken = {}, set()
    for index in np.argsort(-score):
        if source[index] not in partner and target[index] not in taken:
            partner[source[index]] = target[index]
            taken.add(target[index])
    expected = [partner.get(hit, -1) for hit in range(n)]
    assert tracks.best_partners(source, target, score, n).tolist() == expected


def test_edges_below_the_cut_are_not_walked():
    assert build(4, [(0, 1, 0.9), (1, 2, 0.9), (2, 3, 0.4)]) == [0, 0, 0, -1]
    assert build(4, [(0, 1, 0.9), (1, 2, 0.9), (2, 3, 0.4)], cut=0.3) == [0, 0, 0, 0]


def test_a_split_track_is_mended_where_one_piece_ends_before_the_other_begins():
    pieces = [(0, 1, 0.9), (1, 2, 0.9), (3, 4, 0.9), (4, 5, 0.9)]
    bridge = [(1, 4, 0.1)]
    assert build(6, pieces + bridge, same=0.9) == [0] * 6
    assert build(6, pieces + bridge, same=0.9, mend_cut=0.95) == [0, 0, 0, 1, 1, 1]
    assert build(6, pieces, same=0.9) == [0, 0, 0, 1, 1, 1]


def test_pieces_side_by_side_are_not_mended():
    # Both pieces span the same radii: two particles close together.
    assert build(6, [(0, 2, 0.9), (2, 4, 0.9), (1, 3, 0.9), (3, 5, 0.9), (2, 3, 0.1)], same=0.9) == [0, 1, 0, 1, 0, 1]


def test_short_tracks_are_given_up():
    assert build(3, [(0, 1, 0.9)]) == [-1, -1, -1]
    assert build(3, [(0, 1, 0.9)], min_hits=2) == [0, 0, -1]


@pytest.mark.parametrize("n", [0, 1, 2])
def test_hardly_any_hits(n: int):
    assert build(n, []) == [-1] * n


def test_true_edges_give_true_tracks_in_any_order():
    event = load_events()[0]
    edges = true_edges(event)
    ones = np.ones(edges.shape[1])
    options = {"cut": 0.5, "mend_cut": 2.0, "min_hits": 1}
    labels = tracks.build_tracks(event.features, edges, ones, ones, **options)
    assert same_tracks(labels, event.particle)
    shuffled = np.random.default_rng(1).permutation(edges.shape[1])
    assert same_tracks(labels, tracks.build_tracks(event.features, edges[:, shuffled], ones, ones, **options))


def good_hits(n: int = 50) -> np.ndarray:
    rng = np.random.default_rng(2)
    return np.stack([rng.uniform(0.03, 1, n), rng.uniform(-1, 1, n), rng.uniform(-3, 3, n)], axis=1).astype(np.float32)


def test_real_events_pass():
    for event in load_events() + load_events(pile_up=True):
        hits.check_hits(event.features, 30000)


@pytest.mark.parametrize("n", [0, 1])
def test_no_hit_and_one_hit_pass(n: int):
    hits.check_hits(good_hits(n), 30000)
    hits.check_twins(good_hits(n), np.arange(n))


@pytest.mark.parametrize(
    ("scale", "words"),
    [
        ((1000, 1, 1000), "millimetres"),
        ((100, 1, 100), "centimetres"),
        ((1, np.pi, 1), "in radians"),
        ((1, 180, 1), "in degrees"),
        ((1000, np.pi, 1000), "millimetres.*radians"),
        ((-1, 1, 1), "hypot"),
        ((1, 1, 50), "outside the detector"),
        ((1, 1e6, 1), "no angle"),
    ],
)
def test_wrong_units_are_named(scale: tuple[float, float, float], words: str):
    with pytest.raises(hits.BadHits, match=words):
        hits.check_hits(good_hits() * np.array(scale, np.float32), 30000)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_number_is_named_with_its_hit(value: float):
    bad = good_hits()
    bad[17, 2] = value
    with pytest.raises(hits.BadHits, match=r"hit 17 .*no finite number"):
        hits.check_hits(bad, 30000)


def test_too_many_hits_are_counted():
    with pytest.raises(hits.BadHits, match=r"has 51 hits.*at most 50"):
        hits.check_hits(good_hits(51), 50)


def test_twins_are_named():
    bad = good_hits()
    bad[40] = bad[3]
    with pytest.raises(hits.BadHits, match="hits 3 and 40 are the same point"):
        hits.check_twins(bad, np.lexsort(bad.T))
    hits.check_twins(good_hits(), np.lexsort(good_hits().T))
