"""Checkers of notebooks 04 and 05: they look at the server's counters and settings, and at physics."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from helpers.client.client import Client
from helpers.course import judge
from helpers.course.judge import counted, must, must_be, must_be_number, must_be_one_of, must_be_right, needs
from helpers.metrics import Snapshot
from helpers.physics.flavour import Roc, Scores, auc_words, truth
from helpers.physics.jets import Tagger
from helpers.physics.tracks import STAGES, Quality
from helpers.repository.configs import instances_of
from helpers.server import Server

_AK4, _HIGGS = "particlenet_AK4_PT", "hbb_vs_qcd"
_BATCH = 100
# The mistag rate that is asked for, and how far a cut may be from it: a few jets of several hundred.
_MISTAG, _MISTAG_MARGIN = 0.01, 0.003
# A discriminant that differs by more is another one. Fewer jets than this part that keep theirs are no accident: of some hundred jets one
# may have two neighbours equally far away, and its score moves with the order of a sum.
_MOVED, _MOST_SAME = 0.001, 0.97
# What exercise 5.1 asks for.
_EFFICIENCY, _PURITY = 0.98, 0.995


def _check_4_1(fifty: dict, megabytes: Any, padding: Any) -> str:  # type: ignore[type-arg]
    bytes_ = float(sum(tensor.nbytes for tensor in fifty.values()))
    must_be_right("megabytes", megabytes, bytes_ / 1e6, {"That is in bytes": bytes_}, "Add the `.nbytes` of all six tensors")
    filled = next(float(each.mean()) for name, each in fifty.items() if name.startswith("pf_mask"))
    slips, otherwise = {"That is the part that is filled": filled}, "Take the mean of the candidates' mask"
    true = must_be_right("padding", padding, 1 - filled, slips, otherwise, unit="fraction", absolute=0.005)
    return f"{bytes_ / 1e6:.2f} MB in one message, and {100 * true:.0f} % of the places for candidates hold none."


def _check_4_2(server: Server, before: Snapshot, hundred: Any) -> str:
    requests, jets, _ = counted(server, before, "particlenet_PT", least=1)
    seen = f"The server counted {requests} requests and {jets} inferences since `before`"
    must((requests, jets) == (1, _BATCH), f"{seen}; expected 1 and {_BATCH}. Run the whole cell again, once.")
    return f"The server counted 1 request and {_BATCH} inferences: one message, {_BATCH} jets."


def _check_4_3(scores: Any, sample: Any, cut: Any, efficiency: Any) -> str:
    needs(len(scores) == len(sample), "The check needs the `scores` of all jets of `sample`. Run the cell with `tagger.tag(sample)` again.")
    values = scores[_HIGGS]
    of_qcd, of_higgs = values[truth(sample, "QCD")], values[truth(sample, "Hbb")]
    given = must_be_number("cut", cut)
    mistag = float(np.mean(of_qcd >= given))
    near, side = abs(mistag - _MISTAG) <= _MISTAG_MARGIN, "lower" if mistag < _MISTAG else "higher"
    must(near, f"At or above {given:.4g} are {100 * mistag:.2g} % of the QCD jets, not 1 %. Cut {side}; only the QCD jets count.")
    truly = float(np.mean(of_higgs >= given))
    slips = {
        "That is the fraction below the cut; we asked for that at or above it": 1 - truly,
        "That is the fraction of all jets; we asked for that of the Higgs jets, `of_higgs`": float(np.mean(values >= given)),
    }
    otherwise = "Take the fraction of `of_higgs` at or above the cut"
    must_be_right("efficiency", efficiency, truly, slips, otherwise, unit="fraction", relative=0, absolute=0.005)
    passed = f"({100 * truly:.0f} ± {100 * np.sqrt(truly * (1 - truly) / len(of_higgs)):.0f}) %"
    return f"Above {given:.3f} are {100 * mistag:.2f} % of {len(of_qcd)} QCD jets, and of {len(of_higgs)} Higgs jets {passed}."


def _check_4_4(of_qcd: Any, cut: Any, relative: Any, needed: Any) -> str:
    passed, of = int(np.sum(of_qcd >= must_be_number("cut", cut))), len(of_qcd)
    needs(passed, "No QCD jet is above your `cut`. Solve exercise 4.3 first.")
    slips = {"That is the uncertainty of the number of jets; divide it by that number": passed**0.5}
    must_be_right("relative", relative, passed**-0.5, slips, f"What is √{passed} / {passed}", unit="fraction", relative=0.05)
    slips = {"So many must be above the cut; how many must there be in all": 100}
    otherwise = "100 jets must be above the cut; which part of all QCD jets is"
    must_be_right("needed", needed, 100 * of / passed, slips, otherwise, relative=0.15)
    rate = f"({100 * passed / of:.2f} ± {100 * passed**0.5 / of:.2f}) %, known to {100 * passed**-0.5:.0f} %"
    return f"{passed} of {of} jets passed: {rate}. For 10 % it takes about {100 * of / passed:.0f} QCD jets."


def _check_4_5(server: Server, narrow: Any, ak4_scores: Any, b_roc: Any) -> str:
    must_be("ak4_scores", ak4_scores, Scores, "what `tagger.tag(narrow)` returns")
    wide = f"These scores are from `{ak4_scores.model}`, which is for wide jets. Make a new tagger for `{_AK4}`."
    must(ak4_scores.model in (_AK4, _AK4.removesuffix("_PT")), wide)
    must_be("b_roc", b_roc, Roc, "what `ak4_scores.roc(name, narrow)` returns")
    must(b_roc.name == "b_vs_light", f"This is the curve of `{b_roc.name}`; we asked for `b_vs_light`.")
    own = ak4_scores.roc("b_vs_light", narrow)
    areas = f"The area is {b_roc.auc:.4f}, and that of `ak4_scores` and `narrow` {own.auc:.4f}."
    must(abs(own.auc - b_roc.auc) <= 1e-5, f"{areas} Make the curve from these two.")
    return f"AUC {auc_words(own.auc, own.auc_uncertainty, 4)}: a b jet beats a light jet {1000 * own.auc:.0f} times in 1000."


def _check_4_6(server: Server, few: Any, tried: Any, same: Any, wrong: Any) -> str:
    with Client(server) as client:
        right = Tagger(client, "particlenet").tag(few)[_HIGGS]
    truly = {name: float(np.mean(np.abs(each[_HIGGS] - right) < _MOVED)) for name, each in tried.items()}
    judge.must_all_be_right("same", same, truly, {}, "That is another part", unit="fraction", absolute=0.011)
    seen = {name: f"`{name}` gives {100 * part:.0f} % of the jets their own score" for name, part in truly.items()}
    judge.must_choose("wrong", wrong, {name: part < _MOST_SAME for name, part in truly.items()}, seen)
    return f"Jets with their own score: {', '.join(f'{name} {100 * part:.0f} %' for name, part in truly.items())}."


def _check_5_1(server: Server, chosen: Any, best: Any) -> str:
    now = float(server.config("ExaTrk_tracks")["parameters"]["cut"]["string_value"])
    cut = must_be_number("chosen", chosen)
    must_be("best", best, Quality, "what `with_cut(chosen)` returns")
    must(now == cut, f"The server's cut is {now:g} now, and yours is {cut:g}. Run `best = with_cut(chosen)`.")
    seen = f"With the cut {cut:g} the efficiency is {best.efficiency.value:.4f} and the hit purity {best.purity.value:.4f}."
    must(best.purity.value >= _PURITY, f"{seen} Too many wrong hits: cut higher.")
    must(best.efficiency.value >= _EFFICIENCY, f"{seen} Too many tracks are lost: cut lower.")
    return f"{seen} Every client of this server has your cut now."


def _check_5_2(server: Any, times: Any, slowest: Any, part: Any) -> str:
    total = dict(zip(times["stage"], times["total_ms"], strict=True))
    right, whole = max(total, key=lambda stage: total[stage]), sum(total.values())
    must(slowest in STAGES, f"`slowest` is `{slowest!r}`. Expected the name of a stage, such as `{STAGES[0]}`.")
    must(slowest == right, f"`{slowest}` takes {total[slowest]:.1f} ms for an event, and another stage takes {total[right]:.1f} ms.")
    slips = {"That is the time in milliseconds; divide it by the sum of all stages": total[right]}
    otherwise = f"Divide {total[right]:.1f} ms by {whole:.1f} ms"
    share = must_be_right("part", part, total[right] / whole, slips, otherwise, unit="fraction", absolute=0.02)
    return f"`{right}` takes {total[right]:.1f} ms of {whole:.1f} ms, {share:.0%} of the time in all stages."


def _check_5_3(server: Server, slowest: Any, one: list, two: list, verdict: Any) -> str:  # type: ignore[type-arg]
    count = instances_of(server.config(slowest))
    must(count == 2, f"The server reports {count} instance(s) of `{slowest}`; expected 2. Set `count`, then reload it.")
    needs(min(len(one), len(two)) > 1, "The check needs several rates in `one` and in `two`. Run your cell again from its first line.")
    low, high = np.exp(stats.ttest_ind(np.log(two), np.log(one), equal_var=False).confidence_interval())
    right = "faster" if low > 1 else "slower" if high < 1 else "cannot tell"
    word = must_be_one_of("verdict", verdict, ("faster", "slower", "cannot tell"))
    gain = f"The interval of the gain goes from {low:.2f} to {high:.2f}"
    must(word == right, f"{gain}, so that is not `{word}`.")
    return f"{np.mean(one):.1f} events/s with one instance and {np.mean(two):.1f} with two. {gain}. On other cores, measure again."
