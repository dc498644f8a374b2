"""ExaTrk on a real server: physics on the shipped events, invariances, the stages one by one, and events that cannot be right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from helpers.client import Client
from helpers.errors import CourseError, InputError, RequestError
from helpers.metrics import scrape
from helpers.physics.tracks import STAGES, Event, edge_quality, is_true, load_events, quality, same_tracks, stage_times
from helpers.server import Server

REFERENCE = Path(__file__).parent / "exatrk_reference.npz"
COMPOSITIONS = ("ExaTrk", "ExaTrk_bls")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    with Client(server) as one:
        yield one


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return load_events()


@pytest.fixture(scope="module")
def crowded() -> list[Event]:
    return load_events(pile_up=True)


@pytest.fixture(scope="module")
def labels(client: Client, events: list[Event], crowded: list[Event]) -> list[np.ndarray]:
    """What ExaTrk says of all shipped events, sent one after the other."""
    return [client.infer("ExaTrk", FEATURES=event.features)["LABELS"] for event in events + crowded]


def by_hand(client: Client, event: Event) -> dict[str, np.ndarray]:
    """All that the stages make of an event."""
    x = event.features
    embedding = client.infer("ExaTrk_embedding", sp_features=x)["embedding_output"]
    edges = client.infer("ExaTrk_graph", sp_features=x, embedding=embedding)["edge_index"]
    filtered = client.infer("ExaTrk_filter", sp_features=x, edge_index=edges)
    kept = filtered["kept_edges"]
    scores = client.infer("ExaTrk_gnn", sp_features=x, edge_index=kept)
    labels = client.infer("ExaTrk_tracks", sp_features=x, edge_index=kept, **scores)["labels"]
    return {"embedding": embedding, "edges": edges, **filtered, **scores, "labels": labels}


def cut_of(server: Server) -> float:
    return float(server.config("ExaTrk_tracks")["parameters"]["cut"]["string_value"])


# --- physics -----------------------------------------------------------------------------------------------------------


@pytest.mark.nightly
def test_tracks_are_found_without_pile_up(events: list[Event], labels: list[np.ndarray]):
    found = quality(events, labels[: len(events)])
    assert found.efficiency.value >= 0.975, found
    assert found.fake_rate.value <= 0.05, found
    assert found.duplicate_rate.value <= 0.15, found
    assert found.purity.value >= 0.98, found


def test_tracks_are_found_with_pile_up(crowded: list[Event], labels: list[np.ndarray], events: list[Event]):
    found = quality(crowded, labels[len(events) :])
    assert found.efficiency.value >= 0.955, found
    assert found.fake_rate.value <= 0.08, found
    assert found.duplicate_rate.value <= 0.20, found


def test_edges_above_the_cut_are_pure_and_each_stage_does_its_part(client: Client, server: Server, events: list[Event]):
    cut, good, wanted, joined = cut_of(server), [], [], []
    for event in events:
        made = by_hand(client, event)
        before, after = edge_quality(event, made["edges"]), edge_quality(event, made["kept_edges"])
        joined.append(before["efficiency"])
        assert after["efficiency"] > before["efficiency"] - 0.02 and after["purity"] > 1.5 * before["purity"]
        above = made["kept_edges"][:, made["edge_score"] >= cut]
        good.append(is_true(event, above))
        wanted.append(edge_quality(event, above)["efficiency"])
    # One event of the twenty loses an eighth of its true edges in the radius graph.
    assert np.mean(joined) >= 0.95 and min(joined) > 0.85
    assert np.concatenate(good).mean() >= 0.99
    assert np.mean(wanted) >= 0.93


# --- the same, however it is asked -------------------------------------------------------------------------------------


def test_one_label_for_each_hit_and_none_is_shared_by_strays(events: list[Event], labels: list[np.ndarray]):
    for event, of_hit in zip(events, labels, strict=False):
        assert of_hit.shape == (event.n_hits,) and of_hit.dtype == np.int64
        assert of_hit.min() == -1 and set(of_hit[of_hit >= 0]) == set(range(of_hit.max() + 1))
        assert np.bincount(of_hit[of_hit >= 0]).min() >= 3


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_the_order_of_hits_does_not_matter(client: Client, events: list[Event], crowded: list[Event], labels: list[np.ndarray], seed: int):
    rng = np.random.default_rng(seed)
    for event, expected in zip(events + crowded, labels, strict=True):
        order = rng.permutation(event.n_hits)
        shuffled = client.infer("ExaTrk", FEATURES=event.features[order])["LABELS"]
        assert same_tracks(shuffled, expected[order])


def test_both_compositions_and_the_stages_by_hand_agree(
    client: Client, events: list[Event], crowded: list[Event], labels: list[np.ndarray]
):
    for event, expected in zip(events + crowded, labels, strict=True):
        assert same_tracks(client.infer("ExaTrk_bls", FEATURES=event.features)["LABELS"], expected)
    for event, expected in zip(events[:3], labels, strict=False):
        assert np.array_equal(by_hand(client, event)["labels"], expected)


def test_requests_in_flight_do_not_disturb_each_other(client: Client, events: list[Event], crowded: list[Event], labels: list[np.ndarray]):
    requests = [{"FEATURES": event.features} for event in events + crowded]
    for model in COMPOSITIONS:
        answers = client.infer_many(model, requests, max_in_flight=8)
        for answer, expected in zip(answers, labels, strict=True):
            assert same_tracks(answer["LABELS"], expected)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("model", COMPOSITIONS)
@pytest.mark.parametrize("n", [0, 1, 2])
def test_hardly_any_hits_are_no_track(server: Server, events: list[Event], protocol: str, model: str, n: int):
    with Client(server, protocol) as client:
        answer = client.infer(model, FEATURES=events[0].features[:n])["LABELS"]
    assert answer.tolist() == [-1] * n


def test_hits_far_from_each_other_have_no_edges(client: Client):
    apart = np.array([[0.03, -0.9, -1.4], [1.0, 0.1, 1.0], [0.5, 0.6, 2.9]], np.float32)
    for model in COMPOSITIONS:
        assert client.infer(model, FEATURES=apart)["LABELS"].tolist() == [-1, -1, -1]


# --- the stages --------------------------------------------------------------------------------------------------------


def test_the_radius_graph_is_that_of_brute_force(client: Client, server: Server, events: list[Event]):
    radius = float(server.config("ExaTrk_graph")["parameters"]["radius"]["string_value"])
    for event in events[:4]:
        x = event.features
        points = client.infer("ExaTrk_embedding", sp_features=x)["embedding_output"]
        edges = client.infer("ExaTrk_graph", sp_features=x, embedding=points)["edge_index"]
        double = points.astype(np.float64)
        distance = np.sqrt(sum((column[:, None] - column[None, :]) ** 2 for column in double.T))
        expected = set(zip(*np.nonzero(np.triu(distance <= radius, k=1)), strict=True))
        assert {tuple(sorted(edge)) for edge in edges.T.tolist()} == {(int(a), int(b)) for a, b in expected}
        assert edges.shape[1] == len(expected)
        r, _, z = x.T
        way = r + np.maximum(np.abs(z) - np.float32(0.55), 0)
        assert (way[edges[0]] <= way[edges[1]]).all(), "from the inside to the outside"


def test_served_networks_give_what_pytorch_gave(client: Client, events: list[Event]):
    """Each stage on what came before it in PyTorch, written down by the training for the first shipped event."""
    x = events[0].features
    with np.load(REFERENCE) as stored:
        expected = {name: stored[name] for name in stored.files}
    edges, kept = expected["edges"].astype(np.int64), expected["kept_edges"].astype(np.int64)
    embedding = client.infer("ExaTrk_embedding", sp_features=x)["embedding_output"]
    np.testing.assert_allclose(embedding, expected["embedding"], atol=2e-5)
    graph = client.infer("ExaTrk_graph", sp_features=x, embedding=expected["embedding"])["edge_index"]
    # The same edges; in which order is nobody's business.
    assert sorted(map(tuple, graph.T.tolist())) == sorted(map(tuple, edges.T.tolist()))
    filtered = client.infer("ExaTrk_filter", sp_features=x, edge_index=edges)
    np.testing.assert_allclose(filtered["filter_score"], expected["filter_score"], atol=1e-4)
    # Edges whose score lies within rounding of the cut may go either way.
    assert len(set(map(tuple, filtered["kept_edges"].T)) ^ set(map(tuple, kept.T))) <= 2
    scores = client.infer("ExaTrk_gnn", sp_features=x, edge_index=kept)
    np.testing.assert_allclose(scores["edge_score"], expected["edge_score"], atol=1e-4)
    np.testing.assert_allclose(scores["same_score"], expected["same_score"], atol=1e-4)
    given = {name: expected[name] for name in ("edge_score", "same_score")}
    labels = client.infer("ExaTrk_tracks", sp_features=x, edge_index=kept, **given)["labels"]
    assert np.array_equal(labels, expected["labels"])


def test_the_cap_on_neighbours_keeps_the_closest(server: Server, client: Client, events: list[Event]):
    x = events[0].features
    points = client.infer("ExaTrk_embedding", sp_features=x)["embedding_output"]
    full = client.infer("ExaTrk_graph", sp_features=x, embedding=points)["edge_index"]
    config = server.config("ExaTrk_graph")
    config["parameters"]["max_neighbours"]["string_value"] = "2"
    server.reload("ExaTrk_graph", config)
    try:
        capped = client.infer("ExaTrk_graph", sp_features=x, embedding=points)["edge_index"]
    finally:
        server.reload("ExaTrk_graph")
    length = {tuple(edge): np.linalg.norm(points[edge[0]] - points[edge[1]]) for edge in full.T.tolist()}
    kept = set(map(tuple, capped.T.tolist()))
    assert kept <= set(length) and len(kept) < len(length)
    of_hit: dict[int, list[tuple[int, int]]] = {}
    for edge in sorted(length, key=lambda edge: length[edge]):
        of_hit.setdefault(edge[0], []).append(edge)
    assert sorted(length[edge] for edge in kept) == sorted(length[edge] for mine in of_hit.values() for edge in mine[:2])


def test_a_cut_of_another_config_moves_efficiency_against_purity(server: Server, client: Client, events: list[Event]):
    config = server.config("ExaTrk_tracks")
    config["parameters"]["cut"]["string_value"] = "0.99"
    config["parameters"]["mend_cut"]["string_value"] = "1.1"
    server.reload("ExaTrk_tracks", config)
    try:
        strict = quality(events, [client.infer("ExaTrk", FEATURES=event.features)["LABELS"] for event in events])
    finally:
        server.reload("ExaTrk_tracks")
    usual = quality(events, [client.infer("ExaTrk", FEATURES=event.features)["LABELS"] for event in events])
    assert strict.efficiency.value < usual.efficiency.value - 0.02
    assert strict.purity.value > usual.purity.value


def test_bad_parameters_are_refused_and_the_old_ones_stay(server: Server, client: Client, events: list[Event]):
    for model, name, value in (("ExaTrk_tracks", "cut", "1.5"), ("ExaTrk_graph", "radius", "-1"), ("ExaTrk_graph", "max_hits", "0")):
        config = server.config(model)
        config["parameters"][name]["string_value"] = value
        with pytest.raises(CourseError, match="out of range"):
            server.reload(model, config)
    assert client.infer("ExaTrk", FEATURES=events[0].features)["LABELS"].max() > 50


def test_every_stage_is_counted_once_for_each_event(server: Server, client: Client, events: list[Event]):
    before = scrape(server)
    with pytest.raises(InputError, match="No event passed a stage"):
        stage_times(scrape(server) - before)
    client.infer_many("ExaTrk", [{"FEATURES": event.features} for event in events[:5]], max_in_flight=2)
    times = stage_times(scrape(server) - before)
    assert list(times["stage"]) == list(STAGES)
    assert (times["events"] == 5).all()
    assert ((times["total_ms"] >= times["infer_ms"]) & (times["infer_ms"] > 0)).all()
    np.testing.assert_allclose(times["total_ms"], times["queue_ms"] + times["infer_ms"] + times["other_ms"])


def test_edges_of_another_event_are_refused(client: Client, events: list[Event]):
    edges, score = np.array([[0, 1], [1, 5]]), np.ones(2, np.float32)
    with pytest.raises(RequestError, match="edges join hits 0 to 5, and the event has the hits 0 to 2"):
        client.infer("ExaTrk_tracks", sp_features=events[0].features[:3], edge_index=edges, edge_score=score, same_score=score)
    with pytest.raises(RequestError, match="2 edges, but 1 and 2 scores"):
        client.infer("ExaTrk_tracks", sp_features=events[0].features, edge_index=edges, edge_score=score[:1], same_score=score)


# --- events that cannot be right ---------------------------------------------------------------------------------------


def millimetres(x: np.ndarray) -> np.ndarray:
    return x * np.array([1000, 1, 1000], np.float32)


def twins(x: np.ndarray) -> np.ndarray:
    return np.concatenate([x, x[:5]])


def with_nan(x: np.ndarray) -> np.ndarray:
    changed = x.copy()
    changed[3, 1] = np.nan
    return changed


def far_away(x: np.ndarray) -> np.ndarray:
    changed = x.copy()
    changed[3, 0] = 7
    return changed


def cartesian(x: np.ndarray) -> np.ndarray:
    r, phi, z = x.T
    return np.stack([3 * r * np.cos(np.pi * phi), 3 * r * np.sin(np.pi * phi), z], axis=1)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (millimetres, "millimetres"),
        (lambda x: x * np.array([100, np.pi, 100], np.float32), "centimetres.*radians"),
        (twins, "same point"),
        (with_nan, "hit 3 .*no finite number: each hit"),
        (far_away, r"hit 3 lies outside the detector \(r = 7, z = [^)]*\): each hit"),
        (cartesian, r"as if x, y and z had been sent, so compute r = hypot\(x, y\) and phi = arctan2\(y, x\): each hit"),
        (lambda x: np.tile(x, (200, 1)), "has .* hits, and this server takes at most 30000"),
    ],
    ids=["millimetres", "centimetres and radians", "twins", "NaN", "outside", "x, y, z", "too many"],
)
@pytest.mark.parametrize("model", COMPOSITIONS)
def test_what_cannot_be_right_is_refused_with_a_sentence(
    client: Client, events: list[Event], model: str, spoil: Callable[[np.ndarray], np.ndarray], words: str
):
    with pytest.raises(RequestError, match=words) as caught:
        client.infer(model, FEATURES=spoil(events[0].features))
    assert "Traceback" not in str(caught.value) and len(str(caught.value)) < 600
    assert client.infer(model, FEATURES=events[0].features[:100])["LABELS"].shape == (100,), "and the next event is answered"


class Peak:
    """The largest memory that each process of a server has had since this was made, beyond what it has now."""

    def __init__(self, server: Server) -> None:
        processes = [psutil.Process(server.pid)]
        self.processes = processes + processes[0].children(recursive=True)
        for process in self.processes:
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # the peak begins anew
        self.before = [self._largest_mb(process) for process in self.processes]

    def grown_mb(self) -> float:
        return sum(self._largest_mb(process) - before for process, before in zip(self.processes, self.before, strict=True))

    @staticmethod
    def _largest_mb(process: psutil.Process) -> float:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1000


@pytest.mark.parametrize("n", [100_000, 1_000_000])
def test_large_events_are_refused_before_they_fill_the_memory(server: Server, client: Client, n: int):
    rng = np.random.default_rng(4)
    many = np.stack([rng.uniform(0.03, 1, n), rng.uniform(-1, 1, n), rng.uniform(-3, 3, n)], axis=1).astype(np.float32)
    peak = Peak(server)
    for model in COMPOSITIONS:
        with pytest.raises(RequestError, match=f"has {n} hits, and this server takes at most 30000"):
            client.infer(model, FEATURES=many)
    assert peak.grown_mb() < 1000


def test_an_event_that_is_too_dense_is_refused(server: Server, client: Client):
    n = 25_000
    rng = np.random.default_rng(6)
    heap = np.stack([rng.uniform(0.5, 0.5001, n), rng.uniform(0.2, 0.2001, n), rng.uniform(1, 1.0001, n)], axis=1).astype(np.float32)
    heap = np.unique(heap, axis=0)
    peak = Peak(server)
    for model in COMPOSITIONS:
        with pytest.raises(RequestError, match=r"pairs of hits lie within the radius .* at most 600000 are allowed"):
            client.infer(model, FEATURES=heap)
    assert peak.grown_mb() < 1000
