"""The training of tracks: truth, losses, exporters' silent errors, thresholds, and the whole chain. Needs the training environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REASON = "needs the training environment, which `make -C training test` makes"
torch = pytest.importorskip("torch", reason=REASON)
pytest.importorskip("onnxruntime", reason=REASON)
pytest.importorskip("scipy", reason=REASON)
from helpers.physics.tracks import Event, edge_quality, load_events, quality, same_tracks, true_edges  # noqa: E402  # noqa: E402
from training.tracks import choose, export, fit, helix, losses, networks, served, settings, stages, truth  # noqa: E402
from training.tracks.stages import Cuts  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def events() -> list[Event]:
    """Real ones: random numbers do not show what exporters break."""
    return load_events()[:3]


def some_edges(event: Event) -> np.ndarray:
    """All true edges, and as many by chance; also pairs in the same place in r or phi."""
    rng = np.random.default_rng(3)
    order = served.graph.outwards(event.features)
    chance = np.sort(rng.integers(0, event.n_hits, (2, 3000)), axis=0)
    good = true_edges(event)
    return np.concatenate([good, order[chance[:, chance[0] != chance[1]]]], axis=1)


# --- truth and losses ------------------------------------------------------------------------------------------------


def test_kinds_of_edges(events: list[Event]):
    event = events[0]
    good = true_edges(event)
    kind = truth.kinds(event, good)
    soft = event.pt[event.particle[good[0]]] < settings.LOSS_MIN_PT_GEV
    assert (kind[soft] == truth.IGNORED).all() and (kind[~soft] == truth.TRUE).all() and soft.any()
    hard = int(np.flatnonzero(event.target)[0])
    hits = np.flatnonzero(event.particle == hard)
    hits = hits[np.argsort(served.graph.outwards(event.features).argsort()[hits])]
    assert truth.kinds(event, np.array([[hits[0]], [hits[2]]])).tolist() == [truth.SKIPPING]
    other = np.flatnonzero(event.particle != hard)[0]
    assert truth.kinds(event, np.array([[hits[0]], [other]])).tolist() == [truth.FALSE]


@pytest.mark.parametrize("network", ["embedding", "filter", "interaction"])
def test_training_lowers_the_loss(network: str, tmp_path: Path):
    torch.set_num_threads(1)
    simulated = [helix.collision(np.random.default_rng(seed)) for seed in range(8)]
    make = {"embedding": networks.Embedding, "filter": networks.Filter, "interaction": networks.InteractionNetwork}[network]
    torch.manual_seed(1)
    if network == "embedding":
        examples, loss = [losses.hit_example(event) for event in simulated], losses.embedding_loss
    else:
        examples = [stages.example(event, some_edges(event)) for event in simulated]
        loss = losses.filter_loss if network == "filter" else losses.interaction_loss
    fit.fit(make(), fit.Plan(network, 4), examples, loss, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "losses.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < 0.85 * rows[0]["loss"]


def test_a_stopped_training_goes_on_as_if_it_had_not_stopped(tmp_path: Path):
    examples = [losses.hit_example(helix.collision(np.random.default_rng(seed))) for seed in range(2)]
    whole = _train_embedding(examples, tmp_path / "whole")

    calls = 0

    def stopping(network, example, generator):
        nonlocal calls
        calls += 1
        if calls > 3:
            raise KeyboardInterrupt
        return losses.embedding_loss(network, example, generator)

    torch.manual_seed(4)
    with pytest.raises(KeyboardInterrupt):
        fit.fit(networks.Embedding(), fit.Plan("embedding", 2), examples, stopping, tmp_path / "stopped")
    assert calls == 4, "stopped in the second epoch"
    resumed = _train_embedding(examples, tmp_path / "stopped")
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def _train_embedding(examples: list, folder: Path) -> torch.nn.Module:
    torch.manual_seed(4)
    return fit.fit(networks.Embedding(), fit.Plan("embedding", 2), examples, losses.embedding_loss, folder)


def test_a_mirrored_event_has_the_same_shape(events: list[Event]):
    features = events[0].features
    turned = fit.mirrored(features, np.random.default_rng(1)).numpy()
    assert np.array_equal(turned[:, 0], features[:, 0]) and np.array_equal(np.abs(turned[:, 2]), np.abs(features[:, 2]))
    assert np.abs(turned[:, 1]).max() <= 1.000001

    def steps(phi: np.ndarray) -> np.ndarray:
        return np.abs(np.mod(np.diff(phi) + 1, 2) - 1)

    np.testing.assert_allclose(steps(turned[:, 1]), steps(features[:, 1]), atol=1e-5)


# --- graph and thresholds --------------------------------------------------------------------------------------------


def test_the_radius_graph_is_that_of_brute_force():
    rng = np.random.default_rng(7)
    for n in (2, 50, 1500):
        points = rng.normal(size=(n, 8)).astype(np.float32)
        order = rng.permutation(n)
        edges = served.graph.radius_graph(points, order, 1.5, n, n * n)
        double = points.astype(np.float64)
        near = np.triu(((double[:, None] - double[None]) ** 2).sum(axis=2) <= 1.5**2, k=1)
        assert {frozenset(edge) for edge in edges.T.tolist()} == {frozenset(pair) for pair in np.argwhere(near).tolist()}
        assert edges.shape[1] == near.sum()
        place = np.argsort(order)
        assert (place[edges[0]] < place[edges[1]]).all()


def test_the_graph_does_not_depend_on_the_order_of_hits(events: list[Event]):
    event = events[0]
    torch.manual_seed(2)
    network = networks.Embedding().eval()
    with torch.no_grad():
        points = network(torch.from_numpy(event.features)).numpy()
    shuffle = np.random.default_rng(1).permutation(event.n_hits)
    one = served.graph.radius_graph(points, served.graph.outwards(event.features), 0.05, 9, 10**7)
    moved = event.features[shuffle]
    other = served.graph.radius_graph(points[shuffle], served.graph.outwards(moved), 0.05, 9, 10**7)
    assert one.shape[1] > 500
    assert np.array_equal(one, shuffle[other]), "the same edges in the same order"


def test_a_heap_of_hits_is_refused_before_pairs_are_made():
    heap = np.random.default_rng(1).normal(scale=1e-4, size=(20_000, 8)).astype(np.float32)
    with pytest.raises(served.graph.TooDense, match="more than 600000 pairs"):
        served.graph.radius_graph(heap, np.arange(len(heap)), 0.5, 64, 600_000)


def test_perfect_scores_give_perfect_tracks_and_the_thresholds_see_it(events: list[Event], monkeypatch: pytest.MonkeyPatch):
    """The choice of cuts, with networks that know the truth: any cut between 0 and 1 finds everything."""
    monkeypatch.setattr(stages, "kept_edges", lambda _embedding, _filter, event, _cuts: true_edges(event))
    monkeypatch.setattr(stages, "scores", lambda _network, _event, edges: np.full((edges.shape[1], 2), 0.999, np.float32))
    cuts = choose.walk_cuts((None, None, None), [events[:2], events[2:]], Cuts())
    assert 0 < cuts.walk < 1
    found = [served.tracks.build_tracks(e.features, t := true_edges(e), *np.ones((2, t.shape[1])), cuts.walk, 1.1, 3) for e in events]
    assert quality(events, found).efficiency.value == 1


# --- export ----------------------------------------------------------------------------------------------------------


def inputs(event: Event) -> dict[str, torch.Tensor]:
    return {"sp_features": torch.from_numpy(event.features), "edge_index": torch.from_numpy(some_edges(event))}


def arrays(events: list[Event]) -> list[dict[str, np.ndarray]]:
    return [{name: tensor.numpy() for name, tensor in inputs(event).items()} for event in events]


@pytest.mark.slow
def test_the_exported_network_is_the_network_on_real_events(events: list[Event], tmp_path: Path):
    pytest.importorskip("onnxscript", reason=REASON)
    torch.manual_seed(5)
    network = export.ServedInteractionNetwork(networks.InteractionNetwork()).eval()
    export.export(network, inputs(events[0]), ["edge_score", "same_score"], tmp_path / "gnn.onnx")
    assert export.largest_difference(network, export.session(tmp_path / "gnn.onnx"), arrays(events)) < export.TOLERANCE
    assert not list(tmp_path.glob("*.data"))


@pytest.mark.slow
def test_hits_in_the_same_place_give_the_same_numbers(events: list[Event], tmp_path: Path):
    """Steps of nothing in r, phi and z are where a deleted guard would divide by zero."""
    pytest.importorskip("onnxscript", reason=REASON)
    torch.manual_seed(5)
    network = export.ServedFilter(networks.Filter(), 0.5).eval()
    export.export(network, inputs(events[0]), ["filter_score", "kept_edges"], tmp_path / "filter.onnx")
    hits = np.repeat(events[0].features[:4], 2, axis=0)
    hits[4:6, 2] += 0.5
    edges = np.array([[0, 2, 4, 0], [1, 3, 5, 4]])
    assert export.largest_difference(network, export.session(tmp_path / "filter.onnx"), [{"sp_features": hits, "edge_index": edges}]) < 1e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_the_check_catches_the_old_exporters_lost_sum(events: list[Event], tmp_path: Path):
    torch.manual_seed(5)
    network = export.ServedInteractionNetwork(networks.InteractionNetwork()).eval()
    one = inputs(events[0])
    torch.onnx.export(
        network, tuple(one.values()), tmp_path / "old.onnx", dynamo=False, opset_version=17, input_names=list(one),
        output_names=["edge_score", "same_score"], dynamic_axes={"sp_features": {0: "hits"}, "edge_index": {1: "edges"}},
    )  # fmt: skip
    assert export.largest_difference(network, export.session(tmp_path / "old.onnx"), arrays(events)) > 100 * export.TOLERANCE


@pytest.mark.slow
def test_the_check_catches_the_new_exporters_deleted_guard(events: list[Event], tmp_path: Path):
    pytest.importorskip("onnxscript", reason=REASON)

    class Guarded(torch.nn.Module):
        def forward(self, sp_features: torch.Tensor, edge_index: torch.Tensor) -> torch.Tensor:
            step = (sp_features[edge_index[1], 2] - sp_features[edge_index[0], 2]).abs()
            return step / (step + 1e-8)

    one = inputs(events[0])
    one["edge_index"][:, 0] = 0
    export.export(Guarded(), one, ["ratio"], tmp_path / "guard.onnx")
    assert export.largest_difference(Guarded(), export.session(tmp_path / "guard.onnx"), [{k: v.numpy() for k, v in one.items()}]) == np.inf


def test_no_guard_of_the_networks_is_small_enough_to_be_deleted():
    assert min(networks.SMALLEST_R, networks.SMALLEST_STEP) > 1e-7
    source = Path(networks.__file__).read_text()
    assert "1e-8" not in source.split('"""', 2)[2] and "atan2" not in source.split('"""', 2)[2]


def test_parameters_are_written_into_configs(tmp_path: Path):
    config = tmp_path / "config.pbtxt"
    config.write_text((ROOT / "models" / "ExaTrk_tracks" / "config.pbtxt").read_text())
    export.set_parameters(config, cut=0.123, min_hits=4)
    text = config.read_text()
    assert 'key: "cut" value: { string_value: "0.123" }' in text and 'key: "min_hits" value: { string_value: "4" }' in text
    assert text.count("mend_cut") == 1
    with pytest.raises(ValueError, match="no parameter 'radius'"):
        export.set_parameters(config, radius=1)


# --- simulation and the whole chain ----------------------------------------------------------------------------------


def test_the_helix_generator_makes_events_of_the_same_form():
    event = helix.collision(np.random.default_rng(1), pile_up=3)
    assert event.target.sum() > 40 and np.unique(event.collision).size > 1
    assert event.r.dtype == np.float32 and np.abs(event.phi).max() <= np.pi
    good = edge_quality(event, true_edges(event))
    assert good["efficiency"] == good["purity"] == 1
    same = helix.collision(np.random.default_rng(1), pile_up=3)
    assert np.array_equal(event.r, same.r), "the seed decides"


@pytest.mark.slow
def test_acts_makes_events_of_the_detector(tmp_path: Path):
    for package in ("acts", "pythia8mc"):
        pytest.importorskip(package, reason=REASON)
    from training.tracks import simulate
    from training.tracks.events import load_sample

    sample = settings.Sample("some", 3, 0, 5)
    simulate.simulate(sample, tmp_path, events_per_shard=2)
    made = list(load_sample(tmp_path))
    assert len(made) == 3
    for event in made:
        assert set(np.unique(event.volume)) <= {7, 8, 9, 12, 13, 14, 16, 17, 18}
        assert 20 < event.target.sum() < 400 and 500 < event.n_hits < 8000
    stamp = (tmp_path / "0000.npz").stat().st_mtime_ns
    simulate.simulate(sample, tmp_path, events_per_shard=2)
    assert (tmp_path / "0000.npz").stat().st_mtime_ns == stamp, "what is there is not made again"


@pytest.mark.slow
def test_the_whole_chain_runs_on_a_trial_size_and_is_served(tmp_path: Path, free_base_port):
    for package in ("onnxscript", "acts", "pythia8mc"):
        pytest.importorskip(package, reason=REASON)
    from helpers.client import Client
    from helpers.server import launch_server

    command = [sys.executable, "-m", "training.tracks", "all", "--trial", "--output", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}, check=True, timeout=1200)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["test"]["events"] == 8 and report["test_pile_up"]["events"] == 2
    made = load_events(path=tmp_path / "data" / "tracks_ttbar.npz")
    with launch_server(tmp_path / "models", load=["ExaTrk"], base_port=free_base_port(), name="trial") as server, Client(server) as client:
        labels = client.infer("ExaTrk", FEATURES=made[0].features)["LABELS"]
        shuffled = np.random.default_rng(1).permutation(made[0].n_hits)
        again = client.infer("ExaTrk", FEATURES=made[0].features[shuffled])["LABELS"]
    assert same_tracks(again, labels[shuffled])
    assert quality(made[:1], [labels]).efficiency.value > 0.1, "two passes teach little, but not nothing"
