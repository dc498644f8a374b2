"""The checkers of notebook 04 against the real server, with right, wrong and untouched answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import awkward as ak
import numpy as np
import pytest

from helpers import jets
from helpers.client import Client
from helpers.course import ____
from helpers.course.judge import Kind
from helpers.metrics import Snapshot, scrape
from helpers.physics.flavour import Scores
from helpers.server import Server
from tests.support.judging import is_judged as _is

pytestmark = pytest.mark.slow

MODEL, AK4 = "particlenet_PT", "particlenet_AK4_PT"


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    with Client(server) as one:
        yield one


@pytest.fixture(scope="module")
def tagger(client: Client) -> jets.Tagger:
    return jets.Tagger(client, MODEL)


@pytest.fixture(scope="module")
def sample() -> ak.Array:
    return jets.read("ak8")


@pytest.fixture
def before(server: Server) -> Snapshot:
    return scrape(server)


# --- 4.1, 4.4: numbers alone ------------------------------------------------------------------------------------------------


def test_weighing() -> None:
    """Two jets with places for four candidates and two vertices: 3 of 8 and 3 of 4 places are padding."""
    shapes = {"pf_points__0": 2, "pf_features__1": 20, "sv_points__3": 2, "sv_features__4": 11}
    fifty = {name: np.zeros((2, size, 4 if name.startswith("pf") else 2), np.float32) for name, size in shapes.items()}
    fifty["pf_mask__2"] = np.array([[[1, 1, 1, 1]], [[1, 0, 0, 0]]], np.float32)
    fifty["sv_mask__5"] = np.array([[[1, 0]], [[0, 0]]], np.float32)
    numbers = sum(tensor.size for tensor in fifty.values())
    megabytes = 4 * numbers / 1e6
    _is("4.1", Kind.CORRECT, "38 % of the places", fifty, megabytes, 0.375)
    _is("4.1", Kind.CORRECT, "in one message", fifty, round(megabytes, 5), np.float32(0.38))
    _is("4.1", Kind.NOT_ATTEMPTED, "2 blanks", fifty, ____, ____)
    sizes = {"in bytes": 4 * numbers, "all six": 1}
    for words, wrong in sizes.items():
        _is("4.1", Kind.NOT_YET, words, fifty, wrong, 0.375)
    for words, wrong in {"part that is filled": 0.625, "in percent": 37.5, "Take the mean": 0.75}.items():
        _is("4.1", Kind.NOT_YET, words, fifty, megabytes, wrong)
    _is("4.1", Kind.NOT_YET, "`padding` should be one number", fifty, megabytes, fifty["pf_mask__2"])
    _is("4.1", Kind.CANNOT_TELL, "needs `fifty`", None, megabytes, 0.375)


def test_uncertainty_of_a_few_jets() -> None:
    of_qcd, cut = np.linspace(0, 1, 801)[1:], 0.9901  # 8 of 800 are at or above it
    assert np.sum(of_qcd >= cut) == 8
    _is("4.4", Kind.CORRECT, "8 of 800 jets passed: (1.00 ± 0.35) %", of_qcd, cut, 8**-0.5, 10_000)
    _is("4.4", Kind.CORRECT, "about 10000 QCD jets", of_qcd, cut, np.sqrt(0.99 / 8), 9_000)
    _is("4.4", Kind.NOT_ATTEMPTED, "2 blanks", of_qcd, cut, ____, ____)
    for words, wrong in {"of the number of jets": 8**0.5, "in percent": 35.4, "What is √8 / 8": 0.1}.items():
        _is("4.4", Kind.NOT_YET, words, of_qcd, cut, wrong, 10_000)
    for words, wrong in {"must be above the cut": 100, "100 jets": 50_000}.items():
        _is("4.4", Kind.NOT_YET, words, of_qcd, cut, 0.354, wrong)
    _is("4.4", Kind.CANNOT_TELL, "Solve exercise 4.3 first", of_qcd, 2.0, 0.354, 10_000)
    _is("4.4", Kind.CANNOT_TELL, "stumbled", None, cut, 0.354, 10_000)


# --- 4.2 -------------------------------------------------------------------------------------------------------------------


def test_one_request(server: Server, before: Snapshot, client: Client, tagger: jets.Tagger, sample: ak.Array) -> None:
    _is("4.2", Kind.NOT_ATTEMPTED, "blank", server, before, ____)
    answer = client.infer(MODEL, tagger.inputs(sample[:100]))
    _is("4.2", Kind.CORRECT, "1 request and 100 inferences", server, before, answer)
    _is("4.2", Kind.CANNOT_TELL, "has seen 0 requests", server, scrape(server), answer)
    again = scrape(server)
    _is("4.2", Kind.CORRECT, "one message", server, again, tagger.tag(sample[:100], batch=100))
    _is("4.2", Kind.NOT_YET, "2 requests and 200 inferences", server, before, answer)


def test_not_one_request(server: Server, before: Snapshot, tagger: jets.Tagger, sample: ak.Array) -> None:
    _is("4.2", Kind.NOT_YET, "2 requests and 100 inferences", server, before, tagger.tag(sample[:100]))


# --- 4.3, physics alone ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def scores(sample: ak.Array) -> Scores:
    """Made-up probabilities that know the truth fairly well: the check must not care whose they are."""
    random = np.random.default_rng(3)
    probabilities = random.random((len(sample), 20))
    probabilities[np.arange(len(sample)), ak.to_numpy(sample.jet_label)] += random.exponential(2, len(sample))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return Scores(MODEL, tuple(f"prob{name}" for name in jets.LABELS["ak8"]), probabilities.astype(np.float32))


def test_working_point(scores: Scores, sample: ak.Array) -> None:
    values = scores["hbb_vs_qcd"]
    of_qcd, of_higgs = values[jets.truth(sample, "QCD")], values[jets.truth(sample, "Hbb")]
    cut = np.quantile(of_qcd, 0.99)
    efficiency = np.mean(of_higgs >= cut)
    _is("4.3", Kind.CORRECT, f"({100 * efficiency:.0f} ± ", scores, sample, cut, efficiency)
    nearby = np.sort(of_qcd)[int(0.99 * len(of_qcd))]
    _is("4.3", Kind.CORRECT, "QCD jets", scores, sample, nearby, np.mean(of_higgs >= nearby))
    _is("4.3", Kind.NOT_ATTEMPTED, "2 blanks", scores, sample, ____, ____)
    higher = (np.quantile(of_qcd, 0.01), np.quantile(of_qcd, 0.9), 0.0)
    for wrong in (*higher, np.quantile(of_higgs, 0.99), np.quantile(values, 0.99)):
        _is("4.3", Kind.NOT_YET, "Cut higher" if wrong in higher else "Cut lower", scores, sample, wrong, efficiency)
    wrong_efficiencies = {
        "in percent": 100 * efficiency,
        "fraction below the cut": 1 - efficiency,
        "fraction of all jets": np.mean(values >= cut),
        "Take the fraction of `of_higgs`": 0.05,
    }
    for words, wrong in wrong_efficiencies.items():
        _is("4.3", Kind.NOT_YET, words, scores, sample, cut, wrong)
    _is("4.3", Kind.NOT_YET, "`efficiency` should be one number", scores, sample, cut, of_higgs >= cut)
    _is("4.3", Kind.NOT_YET, "`cut` should be one number", scores, sample, None, efficiency)
    _is("4.3", Kind.CANNOT_TELL, "`scores` of all jets", scores[:9], sample, cut, efficiency)


# --- 4.5 -------------------------------------------------------------------------------------------------------------------


def test_swapping(server: Server, client: Client, tagger: jets.Tagger, sample: ak.Array) -> None:
    narrow = jets.read("ak4")[:1000]
    scores = jets.Tagger(client, AK4).tag(narrow)
    curve = scores.roc("b_vs_light", narrow)
    _is("4.5", Kind.CORRECT, f"AUC {curve.auc:.4f}", server, narrow, scores, curve)
    _is("4.5", Kind.NOT_ATTEMPTED, "2 blanks", server, narrow, ____, ____)
    _is("4.5", Kind.NOT_YET, "`particlenet_PT`, which is for wide jets", server, narrow, tagger.tag(sample[:4]), curve)
    _is("4.5", Kind.CANNOT_TELL, "100", server, narrow, scores[:100], curve)
    _is("4.5", Kind.NOT_YET, "the curve of `b_vs_c`", server, narrow, scores, scores.roc("b_vs_c", narrow))
    _is("4.5", Kind.NOT_YET, "`b_roc` is something of type `float`", server, narrow, scores, curve.auc)
    _is("4.5", Kind.NOT_YET, "`ak4_scores` is something of type `ndarray`", server, narrow, scores.probabilities, curve)
    part = scores[:500].roc("b_vs_light", narrow[:500])
    _is("4.5", Kind.NOT_YET, "Make the curve from these two", server, narrow, scores, part)


# --- 4.6 -------------------------------------------------------------------------------------------------------------------


def test_fast_but_wrong(server: Server, client: Client, sample: ak.Array) -> None:
    few = sample[jets.truth(sample, "Hbb", "QCD")][:40]
    onnx = jets.Tagger(client, "particlenet")
    right = onnx.tag(few)
    clients = {"careful": 40, "put back": 39, "ones": 22, "by length": 0}  # of 40 jets, how many have their own score
    moved = 1 - right.probabilities
    tried = {
        name: replace(right, probabilities=np.where(np.arange(40)[:, None] < own, right.probabilities, moved))
        for name, own in clients.items()
    }
    same = {name: np.mean(np.abs(each["hbb_vs_qcd"] - right["hbb_vs_qcd"]) < 0.001) for name, each in tried.items()}
    assert [round(40 * part) for part in same.values()] == list(clients.values())
    said = "careful 100 %, put back 98 %, ones 55 %, by length 0 %"
    _is("4.6", Kind.CORRECT, said, server, few, tried, same, ["by length", "ones"])
    for wrong, words in (
        (["by length"], "`ones` gives 55 % of the jets their own score. So `ones` belongs into `wrong`."),
        ("ones", "`by length` gives 0 %"),
        (["by length", "ones", "put back"], "`put back` gives 98 % of the jets their own score. So `put back` does not belong"),
        (["masks"], "`wrong` is 'masks'. Expected names among"),
        (None, "Expected a list of names"),
    ):
        _is("4.6", Kind.NOT_YET, words, server, few, tried, same, wrong)
    for given, words in (
        (same | {"ones": 55}, "in percent"),
        (same | {"ones": 0.8}, "`same['ones']` is 0.8"),
        ({"careful": 1.0}, "has no `put back`. Expected 4 numbers"),
    ):
        _is("4.6", Kind.NOT_YET, words, server, few, tried, given, ["by length", "ones"])
    _is("4.6", Kind.NOT_ATTEMPTED, "blank", server, few, tried, dict.fromkeys(tried, ____), ____)
    _is("4.6", Kind.CANNOT_TELL, "stumbled", server, few[:9], tried, same, ["by length"])
    _is("4.6", Kind.CANNOT_TELL, "needs `server`", "localhost", few, tried, same, ["by length"])
