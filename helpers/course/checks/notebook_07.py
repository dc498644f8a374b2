"""Checkers of notebook 07, Measure with perf_analyzer: they look at the server's counters and at the student's own rows."""

from __future__ import annotations

import itertools
import shlex
from typing import Any

from helpers.course import judge
from helpers.course.checks import measured
from helpers.course.judge import CannotTell, NotYet, Outcome, checker, correct, must_be_right, not_yet
from helpers.measuring.statistics import CANNOT_TELL, FASTER, verdict
from helpers.measuring.table import THROUGHPUT, is_recorded, plain, shapes_of
from helpers.tables import Row

_MODEL = "particlenet_AK4"
# A share or a factor that people round is still theirs: 1 % of its value.
_ROUNDED = 0.01
_UNDER_WAY = 8
_CANDIDATES = 20


def _must_be_of_ten(name: str, row: Row) -> None:
    """A measurement of the model with ten jets, or "not yet"."""
    if row["model"] != _MODEL:
        raise NotYet(f"`{name}` is a measurement of `{row['model']}`; we asked for `{_MODEL}`.")
    if row["batch"] != 10:
        raise NotYet(f"`{name}` was measured with a batch of {row['batch']}; we asked for 10.")


@checker("7.1")
def one_jet_a_request(server: Any, before: Any, command: Any, one_jet: Any, status: Any) -> Outcome:
    """Requests of one jet, by the server's own count; nothing else of the command was changed."""
    judge.must_be("one_jet", one_jet, str, "the whole command, as text")
    old, new = (shlex.split(text) for text in (command, one_jet))
    changed = [(a, b) for a, b in itertools.zip_longest(old, new, fillvalue="nothing") if a != b]
    if others := [pair for pair in changed if pair != ("10", "1")]:
        return not_yet(f"`{others[0][0]}` became `{others[0][1]}`, too. Replace the whole of `-b 10`, so that nothing else changes.")
    judge.must_be_server(server)
    if judge.number(status) not in (0, 2):
        return not_yet(f"perf_analyzer ended with {status!r}; 0 means done. Read what it said above, and look at your command.")
    requests = judge.must_have_risen(server, before, _MODEL)
    inferences = judge.rise(server, before, _MODEL, "nv_inference_count")
    each = inferences / requests
    seen = f"The server counted {judge.plain(requests)} requests, {judge.plain(inferences)} inferences"
    if each == 1:
        unstable = " The windows did not agree (status 2), but they were sent." if judge.number(status) == 2 else ""
        return correct(f"{seen}: one jet in each.{unstable}")
    if each == 10:
        return not_yet(f"{seen}: still 10 jets in each. Change the number behind `-b`.")
    return not_yet(f"{seen}: {each:.3g} jets in each on average. Run the whole cell again, once.")


@checker("7.2")
def gain_and_price(by_batch: Any, gain: Any, price: Any) -> Outcome:
    """The factors in throughput and latency between a batch of 1 and one of 100, from the student's own rows."""
    rows = {batch: plain(row) for batch, row in by_batch.items()}
    one, ten, hundred = rows[1], rows.get(10, rows[100]), rows[100]
    columns = {"gain": THROUGHPUT, "price": "latency_p95_us"}
    factors = {name: hundred[column] / one[column] for name, column in columns.items()}
    for name, given, other in (("gain", gain, "price"), ("price", price, "gain")):
        column = columns[name]
        slips = {
            "It is the other way round: the gain is in throughput, the price is in latency": factors[other],
            "That is from 1 to 10 jets; we asked for 1 to 100": ten[column] / one[column],
            "That is the inverse: a factor is the new number over the old one": 1 / factors[name],
            "That is of the median; we asked for the 95th percentile": hundred["latency_p50_us"] / one["latency_p50_us"],
        }
        otherwise = f"Your rows say something else. The column is `{column}`"
        must_be_right(name, given, factors[name], slips, otherwise, relative=_ROUNDED)
    noisy = [batch for batch, row in rows.items() if not row.get("stable")]
    doubt = f" (The row of batch {noisy[0]} is not stable: the factors are rough.)" if noisy else ""
    return correct(f"{factors['gain']:.2f} times the jets per second, and each request takes {factors['price']:.0f} times as long.{doubt}")


@checker("7.3")
def waiting(server: Any, busy: Any, share: Any) -> Outcome:
    """The share of the queue under eight requests at once."""
    served = int(judge.must_be_server(server).statistics(_MODEL)["inference_stats"]["success"]["count"])
    row = measured.must_be_row("busy", busy, "the row that `measure(...)` returns")
    _must_be_of_ten("busy", row)
    if row["concurrency"] != _UNDER_WAY:
        return not_yet(f"`busy` was measured with {row['concurrency']} requests under way; we asked for {_UNDER_WAY}.")
    queue, infer, total = row["queue_us"], row["compute_infer_us"], row["latency_avg_us"]
    if queue is None or not total or (not is_recorded(row) and served < (row["requests"] or 0)):
        raise CannotTell("This row has no queue time, or is not of this server. Measure again.")
    slips = {
        "That is the time in the queue in µs; divide it by `latency_avg_us`": queue,
        "That is the share of the inference, `compute_infer_us`; the queue is `queue_us`": infer / total,
    }
    otherwise = "Your row says another fraction: `queue_us` over `latency_avg_us`"
    true = must_be_right("share", share, queue / total, slips, otherwise, unit="fraction", relative=_ROUNDED)
    return correct(
        f"Of {total / 1000:.1f} ms, {100 * true:.0f} % are spent in the queue and {100 * infer / total:.0f} % in "
        "inference, in batches that the server made of several requests."
    )


@checker("7.4")
def less_padding(server: Any, pair: Any) -> Outcome:
    """Jets padded to 20 candidates against jets padded to 50, in turn, with the spread of both."""
    reference, row = measured.must_be_pair(pair)
    for place, each in enumerate((reference, row)):
        _must_be_of_ten(f"pair[{place}]", each)
    if row["inputs"] in ("random", "zero"):
        return not_yet(f'The second was measured with {row["inputs"]} inputs. Hand the file over: `{{"input_data": jets_20}}`.')
    if row["inputs"] == reference["inputs"]:
        return not_yet("The second was measured with the jets of the first. Use the new file.")
    candidates = shapes_of(row).get("pf_points", (None,))[-1]
    if candidates != _CANDIDATES:
        wanted = f"`lengths={{'pf': {_CANDIDATES}, 'sv': 4}}`"
        return not_yet(f"The jets of the second are padded to {candidates} candidates; we asked for {_CANDIDATES}: {wanted}.")
    found = verdict(reference, row)
    if found.answer == CANNOT_TELL:
        raise CannotTell(f"{found.text} For more pairs, type: measure_in_turn(..., turns=12)")
    if found.answer == FASTER:
        return correct(f"{found.gain:.2f} times as many jets per second with {_CANDIDATES} candidates as with 50: padding costs time.")
    return correct(f"Measured: {found.answer}. On most machines fewer candidates are faster; yours is busy, or has idle units.")
