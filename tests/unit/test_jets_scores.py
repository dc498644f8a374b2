"""Probabilities, discriminants, ROC curves and working points, against sums done by hand and by brute force."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest

from helpers import jets
from helpers.errors import InputError
from helpers.physics.flavour import DISCRIMINANTS, Roc, Scores, auc_words, roc

AK4_LABELS = tuple(f"prob{name}" for name in jets.LABELS["ak4"])
AK8_LABELS = tuple(f"prob{name}" for name in jets.LABELS["ak8"])


def _scores(probabilities: list[list[float]], labels: tuple[str, ...] = AK4_LABELS) -> Scores:
    return Scores("particlenet_AK4", labels, np.array(probabilities, np.float32), 1)


@pytest.fixture
def three() -> Scores:
    #                 b    bb   c    cc   uds  g    undef pu
    return _scores([[0.5, 0.1, 0.1, 0.1, 0.1, 0.1, 0, 0], [0, 0, 0, 0, 0.2, 0.8, 0, 0], [0.1, 0.1, 0.3, 0.1, 0.2, 0.2, 0, 0]])


@pytest.fixture
def sample() -> ak.Array:
    return ak.Array({"jet_pt": [50.0, 60.0, 70.0], "jet_class": ["b", "g", "c"], "event": [0, 0, 1]})


def test_probabilities_and_discriminants_by_hand(three: Scores) -> None:
    assert three["b"].tolist() == pytest.approx([0.5, 0, 0.1])
    assert three["b_vs_light"] == pytest.approx([0.6 / 0.8, 0, 0.2 / 0.6])
    assert three["b_vs_c"] == pytest.approx([0.6 / 0.8, 0, 0.2 / 0.6])
    assert three["c_vs_light"] == pytest.approx([0.2 / 0.4, 0, 0.4 / 0.8])
    assert three.best.tolist() == ["b", "g", "c"]
    assert three.discriminants == ["b_vs_light", "b_vs_c", "c_vs_light"]


def test_discriminants_of_wide_jets() -> None:
    probabilities = np.full((1, 20), 0.01, np.float32)
    probabilities[0, [AK8_LABELS.index("probHbb"), AK8_LABELS.index("probTbqq")]] = 0.4, 0.2
    scores = Scores("particlenet", AK8_LABELS, probabilities)
    assert scores["hbb_vs_qcd"] == pytest.approx([0.4 / 0.45])
    assert scores["top_vs_qcd"] == pytest.approx([0.21 / 0.26])
    assert scores.discriminants == ["hbb_vs_qcd", "top_vs_qcd"]
    assert set(DISCRIMINANTS) == {"b_vs_light", "b_vs_c", "c_vs_light", "hbb_vs_qcd", "top_vs_qcd"}


def test_some_of_the_jets(three: Scores) -> None:
    assert three[1:]["g"] == pytest.approx([0.8, 0.2]) and len(three[1:]) == 2
    assert three[np.array([True, False, True])].best.tolist() == ["b", "c"]


def test_an_answer_shows_itself(three: Scores) -> None:
    assert str(three) == "particlenet_AK4: 3 jets in 1 request"


def test_unknown_names_are_explained(three: Scores, sample: ak.Array) -> None:
    with pytest.raises(InputError, match=r"has no class 'Hbb'.*b_vs_light"):
        three["Hbb"]
    with pytest.raises(InputError, match="Did you mean 'b_vs_light'"):
        three["b_vs_lihgt"]
    with pytest.raises(InputError, match="'b' is no discriminant"):
        three.roc("b", sample)
    with pytest.raises(InputError, match="3 jets were tagged, and 2 given"):
        three.roc("b_vs_light", sample[:2])
    with pytest.raises(InputError, match="1 signal and 1 background"):
        three.roc("b_vs_light", sample)


def test_truth_by_class_and_by_group(sample: ak.Array) -> None:
    assert jets.truth(sample, "b").tolist() == [True, False, False]
    assert jets.truth(sample, "light").tolist() == [False, True, False]
    assert jets.truth(sample, "c", "light").tolist() == [False, True, True]
    wide = ak.Array({"jet_class": ["Hbb", "QCDbb", "Tbqq", "QCDothers", "Tbel"]})
    assert jets.truth(wide, "QCD").tolist() == jets.truth(wide, "qcd").tolist() == [False, True, False, True, False]
    assert jets.truth(wide, "Hbb").tolist() == [True, False, False, False, False]
    assert jets.truth(wide, "top").tolist() == [False, False, True, False, False]
    assert not jets.truth(wide, "Hcc").any(), "a class that there is, of which these jets have none"


@pytest.mark.parametrize(
    ("name", "advice"), [("Higgs", ""), ("hBB ", "Did you mean 'hbb'?"), ("QCDb b", "QCDbb"), ("", ""), ("bottom", "")]
)
def test_a_class_that_is_none_selects_nothing_only_with_a_word(name: str, advice: str) -> None:
    wide = ak.Array({"jet_class": ["Hbb", "QCDbb", "Tbqq", "QCDothers", "Tbel"]})
    with pytest.raises(InputError, match=f"There is no class {name!r}") as said:
        jets.truth(wide, "Hbb", name)
    assert advice in str(said.value) and "'qcd'" in str(said.value)


# --- ROC curves ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def overlapping() -> tuple[np.ndarray, np.ndarray]:
    """Signal and background values with many ties."""
    random = np.random.default_rng(5)
    return np.round(random.normal(1, 1, 300), 1), np.round(random.normal(0, 1, 500), 1)


def test_area_is_the_share_of_pairs_in_the_right_order(overlapping: tuple[np.ndarray, np.ndarray]) -> None:
    signal, background = overlapping
    pairs = signal[:, None] - background
    assert roc("x", signal, background).auc == pytest.approx((pairs > 0).mean() + 0.5 * (pairs == 0).mean())


def test_area_under_the_drawn_curve_is_the_same(overlapping: tuple[np.ndarray, np.ndarray]) -> None:
    made = roc("x", *overlapping)
    efficiency, mistag = made.curve
    assert efficiency[0] == mistag[0] == 0 and efficiency[-1] == mistag[-1] == 1
    assert np.trapezoid(efficiency, mistag) == pytest.approx(made.auc)


def test_uncertainty_agrees_with_resampling(overlapping: tuple[np.ndarray, np.ndarray]) -> None:
    signal, background = overlapping
    random = np.random.default_rng(6)
    areas = [roc("x", random.choice(signal, signal.size), random.choice(background, background.size)).auc for _ in range(400)]
    assert roc("x", signal, background).auc_uncertainty == pytest.approx(np.std(areas), rel=0.15)


def test_perfect_and_useless_discriminants() -> None:
    perfect = roc("x", np.array([3.0, 2.0]), np.array([1.0, 0.0]))
    assert (perfect.auc, perfect.auc_uncertainty) == (1.0, 0.0)
    assert roc("x", np.zeros(9), np.zeros(9)).auc == 0.5


@pytest.mark.parametrize(
    ("signal", "background", "words"),
    [
        ([0.0] * 9, [0.0] * 9, "0.500 (all scores are equal)"),
        ([0.25, 0.25], [0.25, 0.25, 0.25], "0.500 (all scores are equal)"),
        ([3.0, 2.0], [1.0, 0.0], "1.000 (no overlap)"),
        ([1.0, 0.0], [3.0, 2.0], "0.000 (no overlap)"),
        ([0.5, 0.5], [0.0, 1.0], "0.500 ± 0.500"),  # all signal is equal, and its area is chance
        ([0.0, 1.0], [0.0, 1.0], "0.500 ± 0.354"),
    ],
)
def test_an_area_without_a_spread_is_not_called_certain(signal: list[float], background: list[float], words: str) -> None:
    made = roc("x", np.array(signal), np.array(background))
    assert auc_words(made.auc, made.auc_uncertainty) == words


def test_points_of_the_curve_are_cuts(overlapping: tuple[np.ndarray, np.ndarray]) -> None:
    signal, background = overlapping
    cuts = np.unique(np.concatenate(overlapping))[::-1]
    efficiency, mistag = roc("x", signal, background).curve
    assert efficiency[1:] == pytest.approx([(signal >= cut).mean() for cut in cuts])
    assert mistag[1:] == pytest.approx([(background >= cut).mean() for cut in cuts])


def test_a_curve_is_made_from_true_classes() -> None:
    sample = ak.Array({"jet_class": ["b", "bb", "uds", "g", "c", "pu"]})
    pairs = [(0, 0.9, 4), (1, 0.3, 5), (0, 0.2, 4), (0, 0.5, 5), (0, 1.0, 4), (0, 1.0, 4)]
    probabilities = np.zeros((6, 8))
    for row, (column, value, other) in zip(probabilities, pairs, strict=True):
        row[column], row[other] = value, 1 - value
    scores = _scores(probabilities.tolist())
    made = scores.roc("b_vs_light", sample)
    assert isinstance(made, Roc) and made.auc == 0.75, "of four pairs, three are in the right order"
    assert made.signal == pytest.approx([0.9, 0.3]) and made.background == pytest.approx([0.5, 0.2])
