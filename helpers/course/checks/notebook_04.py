"""Checkers of notebook 04, Tag jets with ParticleNet: they look at the server's counters, and at physics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from helpers.client.client import Client
from helpers.course import judge
from helpers.course.judge import CannotTell, Outcome, checker, correct, must_be_right, not_yet
from helpers.physics.flavour import Roc, Scores, truth
from helpers.physics.jets import Tagger

_MODEL, _ONNX, _AK4 = "particlenet_PT", "particlenet", "particlenet_AK4_PT"
_HIGGS, _CAREFUL = "hbb_vs_qcd", "careful"
_BATCH = 100
# Largest difference of two areas that 32-bit numbers make.
_SAME = 1e-5
# The mistag rate that is asked for, and how far a cut may be from it: a few jets of several hundred.
_MISTAG, _MISTAG_MARGIN = 0.01, 0.003
_EFFICIENCY_MARGIN = 0.005
# Below this area the ROC curve is not that of b jets against light ones with the course's network.
_LEAST_AUC = 0.95
# A discriminant that differs by more is another one. Fewer jets than this part that keep theirs are no accident: of some hundred jets one
# may have two neighbours equally far away, and its score moves with the order of a sum.
_MOVED, _MOST_SAME, _ROUNDED = 0.001, 0.97, 0.011


@checker("4.1")
def weighed(fifty: Any, megabytes: Any, padding: Any) -> Outcome:
    """The bytes of a request, and the part of its candidates that is padding."""
    numbers, bytes_ = (float(sum(getattr(tensor, what) for tensor in fifty.values())) for what in ("size", "nbytes"))
    slips = {"That is in bytes": bytes_, "That is in kilobytes": bytes_ / 1e3, "That is how many numbers there are": numbers}
    slips |= {"That is in units of 2²⁰ bytes": bytes_ / 2**20}
    must_be_right("megabytes", megabytes, bytes_ / 1e6, slips, "Add the `.nbytes` of all six tensors")
    mask, other = (next(float(each.mean()) for name, each in fifty.items() if name.startswith(f"{kind}_mask")) for kind in ("pf", "sv"))
    slips = {"That is the part that is filled": mask, "That is for the vertices": 1 - other}
    first, otherwise = "The size is right. ", "Take the mean of the candidates' mask"
    true = must_be_right("padding", padding, 1 - mask, slips, otherwise, unit="fraction", absolute=0.005, first=first)
    return correct(f"{bytes_ / 1e6:.2f} MB in one message, and {100 * true:.0f} % of the places for candidates hold none.")


@checker("4.2")
def one_request(server: Any, before: Any, hundred: Any) -> Outcome:
    """100 jets in one request, by the server's own count."""
    if isinstance(hundred, Scores):
        hundred = {"softmax": hundred.probabilities}
    if not isinstance(hundred, dict) or len(hundred) != 1:
        return not_yet(f"`hundred` is {judge.kind(hundred)}. Expected what `client.infer(...)` or `tagger.tag(...)` returns.")
    if (answered := len(*hundred.values())) != _BATCH:
        return not_yet(f"The answer is for {answered} jets; expected {_BATCH}. Look at `sample[:100]`.")
    sent = judge.must_have_risen(server, before, _MODEL)
    tagged = judge.rise(server, before, _MODEL, "nv_inference_count")
    if sent == 1 and tagged == _BATCH:
        return correct(f"The server counted 1 request and {_BATCH} inferences: one message, {_BATCH} jets.")
    if tagged == _BATCH:
        return not_yet(f"All {_BATCH} jets were tagged, in {judge.plain(sent)} requests of {_BATCH / sent:.3g} jets. Put them into one.")
    seen = f"The server counted {judge.plain(sent)} requests and {judge.plain(tagged)} inferences since `before`"
    return not_yet(f"{seen}; expected 1 and {_BATCH}. Run the whole cell again, once.")


@checker("4.3")
def working_point(scores: Any, sample: Any, cut: Any, efficiency: Any) -> Outcome:
    """The cut for a mistag rate of 1 %, and the efficiency there, recomputed from the truth."""
    if len(scores) != len(sample):
        raise CannotTell("The check needs the `scores` of all jets of `sample`. Run the cell with `tagger.tag(sample)` again.")
    values = scores["hbb_vs_qcd"]
    of_qcd, of_higgs = values[truth(sample, "QCD")], values[truth(sample, "Hbb")]
    given = judge.must_be_number("cut", cut)
    mistag = float(np.mean(of_qcd >= given))
    if abs(mistag - _MISTAG) > _MISTAG_MARGIN:
        why = _why_not(given, of_qcd, of_higgs, values)
        return not_yet(f"At or above {given:.4g} are {100 * mistag:.2g} % of the QCD jets, not 1 %. {why}")
    truly = float(np.mean(of_higgs >= given))
    slips = {
        "That is the fraction below the cut; we asked for that at or above it": 1 - truly,
        "That is the fraction of all jets; we asked for that of the Higgs jets, `of_higgs`": float(np.mean(values >= given)),
    }
    otherwise, first = "Take the fraction of `of_higgs` at or above the cut", "The cut is right. "
    margin: dict[str, float] = {"relative": 0, "absolute": _EFFICIENCY_MARGIN}
    must_be_right("efficiency", efficiency, truly, slips, otherwise, unit="fraction", first=first, **margin)
    uncertainty = np.sqrt(truly * (1 - truly) / len(of_higgs))
    return correct(
        f"Above {given:.3f} are {100 * mistag:.2f} % of {len(of_qcd)} QCD jets, and of {len(of_higgs)} Higgs jets "
        f"({100 * truly:.0f} ± {100 * uncertainty:.0f}) %."
    )


def _why_not(cut: float, of_qcd: np.ndarray, of_higgs: np.ndarray, values: np.ndarray) -> str:
    """The usual wrong cuts by name."""
    usual = {
        "That is the cut below which 1 % of them are; turn it round": np.quantile(of_qcd, _MISTAG),
        "You took the quantile of the signal; the background sets the cut": np.quantile(of_higgs, 1 - _MISTAG),
        "That cut keeps 99 % of the signal; the background sets the cut": np.quantile(of_higgs, _MISTAG),
        "You took the quantile of all jets; only QCD jets count": np.quantile(values, 1 - _MISTAG),
        "That is 10 %": np.quantile(of_qcd, 0.9),
    }
    close = [why for why, wrong in usual.items() if np.isclose(cut, wrong, rtol=1e-3, atol=1e-9)]
    direction = "Cut lower" if np.mean(of_qcd >= cut) < _MISTAG else "Cut higher"
    return f"{close[0] if close else direction}."


@checker("4.4")
def how_sure(of_qcd: Any, cut: Any, relative: Any, needed: Any) -> Outcome:
    """The relative uncertainty of a mistag rate from a few jets, and the sample for one of 10 %."""
    passed, of = int(np.sum(of_qcd >= judge.must_be_number("cut", cut))), len(of_qcd)
    if not passed:
        raise CannotTell("No QCD jet is above your `cut`. Solve exercise 4.3 first.")
    slips = {
        "That is the uncertainty of the number of jets; divide it by that number": math.sqrt(passed),
        "That is the uncertainty of the rate itself; we asked for it as a fraction of the rate": math.sqrt(passed) / of,
        "All QCD jets do not count, only those that passed": 1 / math.sqrt(of),
        "That is without the square root": 1 / passed,
    }
    must_be_right("relative", relative, passed**-0.5, slips, f"What is √{passed} / {passed}", unit="fraction", relative=0.05)
    slips = {
        "So many must be above the cut; how many must there be in all": 100,
        "That many more; we asked for all": 100 * of / passed - of,
        "The uncertainty goes with the square root of the number": of * 10 / math.sqrt(passed),
    }
    first, otherwise = "The uncertainty is right. ", "100 jets must be above the cut; which part of all QCD jets is"
    must_be_right("needed", needed, 100 * of / passed, slips, otherwise, relative=0.15, first=first)
    return correct(
        f"{passed} of {of} jets passed: ({100 * passed / of:.2f} ± {100 * passed**0.5 / of:.2f}) %, known to {100 * passed**-0.5:.0f} %. "
        f"For 10 % it takes about {100 * of / passed:.0f} QCD jets."
    )


@checker("4.5")
def swapped(server: Any, narrow: Any, ak4_scores: Any, b_roc: Any) -> Outcome:
    """All AK4 jets were tagged with the AK4 model, and its ROC curve is good."""
    judge.must_be_server(server)
    judge.must_be("ak4_scores", ak4_scores, Scores, "what `tagger.tag(narrow)` returns")
    if ak4_scores.model not in (_AK4, _AK4.removesuffix("_PT")):
        return not_yet(f"These scores are from `{ak4_scores.model}`, which is for wide jets. Make a new tagger for `{_AK4}`.")
    if len(ak4_scores) != len(narrow):
        return not_yet(f"{len(ak4_scores)} jets were tagged; `narrow` has {len(narrow)}.")
    judge.must_be("b_roc", b_roc, Roc, "what `ak4_scores.roc(name, narrow)` returns")
    if b_roc.name != "b_vs_light":
        return not_yet(f"This is the curve of `{b_roc.name}`; we asked for `b_vs_light`.")
    own = ak4_scores.roc("b_vs_light", narrow)
    if abs(own.auc - b_roc.auc) > _SAME:
        return not_yet(f"The area is {b_roc.auc:.4f}, and that of `ak4_scores` and `narrow` {own.auc:.4f}. Make the curve from these two.")
    if own.auc < _LEAST_AUC:
        raise CannotTell(f"The area is {own.auc:.3f}, less than this model reaches. Run the notebook again from its first cell.")
    return correct(f"AUC {own.auc:.4f} ± {own.auc_uncertainty:.4f}: a b jet beats a light jet {1000 * own.auc:.0f} times in 1000.")


@checker("4.6")
def unmasked(server: Any, few: Any, tried: Any, same: Any, wrong: Any) -> Outcome:
    """The clients are compared with scores that the check asks for itself, in the plain way."""
    judge.must_be_server(server)
    with Client(server) as client:
        right = Tagger(client, _ONNX).tag(few)[_HIGGS]
    return judge_clients({name: float(np.mean(np.abs(each[_HIGGS] - right) < _MOVED)) for name, each in tried.items()}, same, wrong)


def judge_clients(truly: Mapping[str, float], same: Any, wrong: Any) -> Outcome:
    """Compare with the part of the jets to which each client gave their own score."""
    if truly[_CAREFUL] < _MOST_SAME:
        raise CannotTell(f"Only {100 * truly[_CAREFUL]:.0f} % of the careful client's scores are right. Run the cells above again.")
    given = judge.must_have(same, list(truly))
    for name, part in truly.items():
        must_be_right(f'same["{name}"]', given[name], part, unit="fraction", absolute=_ROUNDED)
    names = [wrong] if isinstance(wrong, str) else wrong
    judge.must_be("wrong", names, (list, tuple, set), "a list with names of clients")
    if unknown := [name for name in names if name not in truly]:
        return not_yet(f"`wrong` has `{unknown[0]}` in it. Expected names of clients: {', '.join(f'`{name}`' for name in truly)}.")
    for name, part in truly.items():
        seen = f"`{name}` gives {100 * part:.0f} % of the jets their own score"
        if part < _MOST_SAME and name not in names:
            return not_yet(f"{seen}. Its probabilities sum to 1, and still it belongs into `wrong`.")
        if part >= _MOST_SAME and name in names:
            return not_yet(f"{seen}. So it is right, and does not belong into `wrong`.")
    return correct(f"Jets with their own score: {', '.join(f'{name} {100 * part:.0f} %' for name, part in truly.items())}.")
