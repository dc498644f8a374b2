"""The four ParticleNet models on a real server: CMS's contract, one network in two formats, and physics on jets never trained on."""

from __future__ import annotations

from collections.abc import Iterator

import awkward as ak
import numpy as np
import pytest

from helpers import jets, paths
from helpers.__main__ import main
from helpers.client import Client
from helpers.client.endpoint import Address
from helpers.client.tensors import Signature
from helpers.errors import InputError, RequestError
from helpers.metrics import scrape
from helpers.physics.flavour import Scores
from helpers.server import Server
from tests.support.processes import memory_mb

pytestmark = pytest.mark.slow

ONNX, TORCHSCRIPT = ("particlenet", "particlenet_AK4"), ("particlenet_PT", "particlenet_AK4_PT")
MODELS = ONNX + TORCHSCRIPT
# Candidate features, classes and largest batch, as CMS's own models have them.
CONTRACT = {"ak8": (25, 20, 160), "ak4": (20, 8, 500)}
# Largest size in bytes that a file of weights may have.
LARGEST = 3e6
# Two runtimes add 32-bit numbers in different order.
SAME = 1e-5
# Once in some hundred jets two neighbours are equally far to the last digit, and the order of sums decides which one is taken: so many
# jets may differ, and by no more than this.
TIES, TIE_SIZE = 0.05, 0.01
# Areas that the shipped weights must reach on the shipped jets: what was measured, less about two standard deviations.
LEAST_AUC = {
    "ak4": {"b_vs_light": 0.967, "b_vs_c": 0.895, "c_vs_light": 0.815},
    "ak8": {"hbb_vs_qcd": 0.979, "top_vs_qcd": 0.966},
}


def _sample(model: str) -> str:
    return "ak4" if "AK4" in model else "ak8"


def _same(first: np.ndarray, second: np.ndarray) -> bool:
    apart = np.abs(first - second).max(axis=1)
    return bool(np.sum(apart > SAME) <= TIES * len(apart) and apart.max() <= TIE_SIZE)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    with Client(server) as one:
        yield one


@pytest.fixture(scope="module")
def samples() -> dict[str, ak.Array]:
    return {name: jets.read(name) for name in ("ak4", "ak8")}


@pytest.fixture(scope="module")
def all_scores(client: Client, samples: dict[str, ak.Array]) -> dict[str, Scores]:
    """Every shipped jet through the ONNX model for it."""
    return {_sample(model): jets.Tagger(client, model).tag(samples[_sample(model)]) for model in ONNX}


@pytest.mark.parametrize("model", MODELS)
def test_contract_of_cms(server: Server, model: str) -> None:
    features, classes, largest_batch = CONTRACT[_sample(model)]
    metadata, config = server.metadata(model), server.config(model)
    shapes = {"pf_points": 2, "pf_features": features, "pf_mask": 1, "sv_points": 2, "sv_features": 11, "sv_mask": 1}
    torchscript = model in TORCHSCRIPT
    assert [(entry["name"], entry["datatype"], entry["shape"]) for entry in metadata["inputs"]] == [
        (f"{name}__{i}" if torchscript else name, "FP32", [-1, rows, -1]) for i, (name, rows) in enumerate(shapes.items())
    ]
    assert [(entry["name"], entry["shape"]) for entry in metadata["outputs"]] == [
        ("softmax__0" if torchscript else "softmax", [-1, classes])
    ]
    assert config["max_batch_size"] == largest_batch and "dynamic_batching" in config
    assert config["platform"] == ("pytorch_libtorch" if torchscript else "onnxruntime_onnx")
    assert len(config["model_warmup"]) >= 1
    weights = paths.models_dir() / model / "1" / ("model.pt" if torchscript else "model.onnx")
    assert weights.stat().st_size <= LARGEST


@pytest.mark.parametrize("model", MODELS)
def test_labels_are_those_of_the_truth(client: Client, model: str) -> None:
    labels = [f"prob{name}" for name in jets.LABELS[_sample(model)]]
    (output,) = client.config(model)["output"]
    assert (paths.models_dir() / model / output["label_filename"]).read_text().split() == labels
    tagger = jets.Tagger(client, model)
    assert list(tagger.labels) == labels and jets.sample_for(tagger) == _sample(model)


@pytest.mark.parametrize(("onnx", "torchscript"), list(zip(ONNX, TORCHSCRIPT, strict=True)))
@pytest.mark.parametrize("n_jets", [1, 3, 100])
def test_both_formats_agree_on_real_jets(client: Client, samples: dict[str, ak.Array], onnx: str, torchscript: str, n_jets: int) -> None:
    some = samples[_sample(onnx)][:n_jets]
    first, second = (jets.Tagger(client, model).tag(some, batch=n_jets) for model in (onnx, torchscript))
    assert first.requests == second.requests == 1
    assert _same(first.probabilities, second.probabilities)
    assert np.abs(first.probabilities.sum(axis=1) - 1).max() <= SAME


@pytest.mark.nightly  # thousands of jets; each day notebook 04 draws the curves of some
@pytest.mark.parametrize("name", ["ak4", "ak8"])
def test_jets_are_told_apart(all_scores: dict[str, Scores], samples: dict[str, ak.Array], name: str) -> None:
    scores = all_scores[name]
    assert len(scores) == len(samples[name])
    for discriminant, least in LEAST_AUC[name].items():
        curve = scores.roc(discriminant, samples[name])
        print(curve)
        assert curve.auc >= least, curve
        assert 0 < curve.auc_uncertainty < 0.02
    assert set(scores.discriminants) == set(LEAST_AUC[name])


@pytest.mark.nightly
def test_truth_is_no_input(all_scores: dict[str, Scores], samples: dict[str, ak.Array]) -> None:
    """Jets with the wrong truth beside them are not told apart: what separates them comes from the candidates."""
    mixed = samples["ak4"][np.random.default_rng(1).permutation(len(samples["ak4"]))]
    assert abs(all_scores["ak4"].roc("b_vs_light", mixed).auc - 0.5) < 0.05


@pytest.mark.parametrize("model", MODELS)
def test_answers_do_not_depend_on_how_they_were_asked(client: Client, samples: dict[str, ak.Array], model: str) -> None:
    tagger, some = jets.Tagger(client, model), samples[_sample(model)][:40]
    expected = tagger.tag(some).probabilities
    one_by_one = tagger.tag(some, batch=1)
    assert one_by_one.requests == 40 and _same(one_by_one.probabilities, expected)
    per_event = tagger.tag(some, per_event=True)
    assert per_event.requests == len(np.unique(ak.to_numpy(some.event))) and _same(per_event.probabilities, expected)
    padded = tagger.inputs(some, candidates=tagger.table.lengths["pf"][1], vertices=tagger.table.lengths["sv"][1])
    assert _same(tagger.scores(client.infer(model, padded)).probabilities, expected), "padding"
    turned = {name: array[:, :, ::-1].copy() for name, array in padded.items()}
    assert _same(tagger.scores(client.infer(model, turned)).probabilities, expected), "order of candidates"


def test_over_http(server: Server, client: Client, samples: dict[str, ak.Array]) -> None:
    some = samples["ak4"][:5]
    with Client(server, protocol="http") as by_http:
        over_http = jets.Tagger(by_http, "particlenet_AK4").tag(some)
    assert np.array_equal(over_http.probabilities, jets.Tagger(client, "particlenet_AK4").tag(some).probabilities)


def test_more_jets_than_a_request_may_hold_are_split(client: Client, samples: dict[str, ak.Array]) -> None:
    tagger, many = jets.Tagger(client, "particlenet_AK4"), samples["ak4"][:501]
    scores = tagger.tag(many, batch=501)
    assert scores.requests == 2 and _same(scores.probabilities, tagger.tag(many).probabilities)


def test_the_server_counts_what_was_asked(server: Server, client: Client, samples: dict[str, ak.Array]) -> None:
    before = scrape(server)
    jets.Tagger(client, "particlenet_AK4").tag(samples["ak4"][:33], batch=10)
    (row,) = (each for each in (scrape(server) - before).requests if each["requests"])
    assert (row["model"], row["requests"], row["inferences"], row["failures"]) == ("particlenet_AK4", 4, 33, 0)


def test_random_masks_ruin_the_physics_without_an_error(client: Client, samples: dict[str, ak.Array]) -> None:
    tagger, some = jets.Tagger(client, "particlenet_AK4"), samples["ak4"][:400]
    tensors = tagger.inputs(some)
    random = np.random.default_rng(4)
    noise = tensors | {name: random.normal(size=array.shape).astype(np.float32) for name, array in tensors.items() if "mask" in name}
    broken = tagger.scores(client.infer("particlenet_AK4", noise))
    assert np.abs(broken.probabilities.sum(axis=1) - 1).max() <= SAME
    assert broken.roc("b_vs_light", some).auc < tagger.tag(some).roc("b_vs_light", some).auc - 0.1


def test_what_is_no_tagger_is_refused(client: Client) -> None:
    with pytest.raises(InputError, match=r"takes 'INPUT0' and 'INPUT1', so it is no jet tagger"):
        jets.Tagger(client, "add_sub")


@pytest.mark.parametrize("model", MODELS)
def test_more_candidates_than_a_jet_has_are_refused_before_memory_grows(server: Server, client: Client, model: str) -> None:
    """The search for neighbours would take 400 MB and more for each of these jets."""
    signature = Signature.from_server(client.metadata(model), client.config(model))
    assert client.infer(model, signature.example(1, any_length=256))
    before = memory_mb(server)
    with pytest.raises(RequestError, match=r"is 10000 long, and this server takes at most 256 \(parameter max_length\)"):
        client.infer(model, signature.example(1, any_length=10_000))
    assert memory_mb(server) < before + 50


@pytest.mark.parametrize(("model", "protocol"), [("particlenet_PT", "grpc"), ("particlenet_AK4", "http"), ("ExaTrk", "grpc")])
def test_infer_in_a_terminal_prints_inputs_and_outputs(
    server: Server, capsys: pytest.CaptureFixture[str], model: str, protocol: str
) -> None:
    url = server.grpc_url if protocol == "grpc" else server.http_url
    assert main(["infer", "-m", model, "-u", url, "-p", protocol]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith(f"Model {model} at {url} over ")
    assert {line.split()[0] for line in lines[2:] if not line.startswith(" ")} == {"input", "output"}


def test_one_request_waits_beside_those_in_work(client: Client, samples: dict[str, ak.Array], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a server's own machine more only take time from the network; elsewhere one more is on its way."""
    asked: list[int] = []
    send = client.infer_many
    monkeypatch.setattr(
        client, "infer_many", lambda *given, **options: (asked.append(options["max_in_flight"]), send(*given, **options))[1]
    )
    tagger, some = jets.Tagger(client, "particlenet_AK4"), samples["ak4"][:40]
    by_default = tagger.tag(some, batch=10)
    instances = sum(group["count"] for group in client.config("particlenet_AK4")["instance_group"])
    assert asked == [instances + 1]
    monkeypatch.setattr(client, "address", Address("gpu-node", 9001))
    tagger.tag(some, batch=10)
    assert asked[1:] == [instances + 2]
    assert by_default.requests == 4
