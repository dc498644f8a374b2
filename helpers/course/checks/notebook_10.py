"""Checkers of notebook 10, Scale out: against the student's own rows, and the counters of the live fleet."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from helpers.course import judge
from helpers.course.checks import measured
from helpers.course.judge import CannotTell, Number, Outcome, checker, correct, not_yet
from helpers.errors import InputError, ServerError
from helpers.fleet import Fleet
from helpers.measuring.table import THROUGHPUT, is_recorded
from helpers.metrics import Snapshot, scrape
from helpers.scaling.capacity import Plan, Traffic, plan
from helpers.tables import Row

_MODEL = "particlenet_AK4"
# People round a share to so much.
_SHARE = 0.005
# A server that answered less than this part of what would be its own did not really share.
_FAIR = 0.5
# A request is counted a moment after it was answered, in seconds.
_SETTLE_S = 0.3


def _must_be_fleet(fleet: Any) -> Fleet:
    if not isinstance(fleet, Fleet):
        raise CannotTell(f"The check needs your fleet, and got {judge.kind(fleet)}. Run the cell with `launch_fleet(...)` again.")
    if not fleet.is_alive():
        raise CannotTell(f"No server answers through your fleet's front at {fleet.http_url}. Type `fleet = fleet.restart()`.")
    return fleet


@checker("10.1")
def saturation_found(fleet: Any, one: Any, saturated: Any, in_queue: Any) -> Outcome:
    """The concurrency from which on the throughput stays, and the requests in the queue at the highest one."""
    rows = _rows(one)
    seen = sum(row["requests"] or 0 for row in _must_be_fleet(fleet).shares(model=_MODEL))
    if seen < (needed := sum(row.get("requests") or 0 for row in rows)):
        raise CannotTell(f"Your fleet has seen {seen} requests, and `one` is made of {needed}: it is another fleet. Run `one` again.")
    return judge_saturation(rows, saturated, in_queue)


def _rows(one: Any) -> list[Row]:
    """Rows of the first fleet in the order of their concurrency, or no answer."""
    rows = measured.rows(one, ("servers", "concurrency", "queue_us"), "one", "by_concurrency")
    if any(map(is_recorded, rows)):
        raise CannotTell("A row was not measured here. Run the cell with `by_concurrency` again.")
    return sorted(rows, key=lambda row: row["concurrency"])


def judge_saturation(rows: list[Row], saturated: Any, in_queue: Any) -> Outcome:
    """Compare with the rows."""
    chosen, last = measured.must_be_knee("saturated", saturated, rows, "concurrency"), rows[-1]
    waiting = last[THROUGHPUT] / last["batch"] * last["queue_us"] / 1e6
    micro = "`queue_us` is in microseconds: divide by a million"
    slips = {
        f"That counts jets: a request has {last['batch']} of them": waiting * last["batch"],
        micro: waiting * 1e6,
        f"{micro}, not by a thousand": waiting * 1e3,
        f"{micro}, and count requests, not jets": waiting * 1e6 * last["batch"],
        "That is the concurrency: all that were under way. We asked for those in the queue": last["concurrency"],
        "That takes the whole latency; take the time in the queue, `queue_us`": last[THROUGHPUT]
        / last["batch"]
        * (last.get("latency_p50_us") or math.nan)
        / 1e6,
    }
    otherwise = f"Multiply requests per second by seconds in the queue, both from the row with concurrency {last['concurrency']}"
    Number("in_queue", in_queue, waiting, slips, otherwise, first="`saturated` is right. ").must_be_right()
    fastest = max(row[THROUGHPUT] for row in rows)
    return correct(
        f"Saturated from {chosen['concurrency']} on, at {fastest:.0f} jets/s. With {last['concurrency']} under way, "
        f"{waiting:.1f} stood in the queue, each for {last['queue_us'] / 1e3:.0f} ms: the server works on one, and the others wait."
    )


@checker("10.2")
def servers_chosen(fleet: Any, one: Any, traffic: Any, budget_ms: Any, servers: Any) -> Outcome:
    """The smallest number of servers that keeps the budget, by the student's own throughput."""
    behind = len(_must_be_fleet(fleet).servers)
    if not isinstance(traffic, Traffic) or judge.number(budget_ms) is None:
        raise CannotTell("The check needs `traffic` and `budget_ms`. Run the cell that makes them again.")
    return judge_servers(plan(traffic, _rows(one), float(budget_ms)), behind, servers)


def judge_servers(found: Plan, behind: int, servers: Any) -> Outcome:
    """Compare with the plan; the fleet has so many servers behind its front."""
    given, (fewest, most) = judge.must_be_number("servers", servers, "a whole number of servers"), found.servers_interval
    if given != int(given) or given < 1:
        return not_yet(f"`servers` is {judge.plain(given)}. It should be a whole number of servers.")
    can, come, taken_ms = given * found.speed.jets_per_s, found.traffic.jets_per_s, found.latency_p95_ms(int(given))
    if given < fewest and can <= come:
        return not_yet(f"`servers` is {given:.0f}. That is {can:.0f} jets/s at most, and {come:.0f} come: the queue grows without end.")
    if given < fewest:
        return not_yet(
            f"`servers` is {given:.0f}. They can do it, but 95 of 100 requests take up to {taken_ms:.0f} ms, and the budget is "
            f"{found.budget_ms:.0f}."
        )
    if given > most:
        return not_yet(f"`servers` is {given:.0f}. That would do, but {most} keep the budget, too, and cost less.")
    return correct(
        f"{given:.0f} servers are busy {100 * come / can:.0f} % of the time, and 95 of 100 requests are expected within "
        f"{taken_ms:.0f} ms of {found.budget_ms:.0f}. Your fleet has {behind} now; measure it."
    )


@checker("10.3")
def load_shared(fleet: Any, before: Any, shares: Any) -> Outcome:
    """Each server's part of the requests since a reading, by its own counters."""
    servers = _must_be_fleet(fleet).servers
    if not isinstance(before, Sequence) or len(before) != len(servers) or not all(isinstance(one, Snapshot) for one in before):
        raise CannotTell(
            f"The check needs `before`, a reading of each of your {len(servers)} servers. Run your cell again from its first line."
        )
    if len(servers) < 2:
        raise CannotTell("Your fleet has one server, and one cannot share. Type `fleet.grow()`, then run your cell again.")
    time.sleep(_SETTLE_S)
    try:
        rose = [scrape(server) - reading for server, reading in zip(servers, before, strict=True)]
    except InputError as error:
        raise CannotTell(f"The counters cannot be compared: {error}") from error
    except ServerError as error:
        raise CannotTell(f"A server does not answer. {error} Run your cell again from its first line.") from error
    counts = [int(sum(row["requests"] for row in one.requests if row["model"] == _MODEL)) for one in rose]
    if not sum(counts):
        raise CannotTell("None of your servers has seen a request since `before`. Run your cell again from its first line.")
    return judge_shares(counts, shares)


def judge_shares(counts: Sequence[float], shares: Any) -> Outcome:
    """Compare with what each server's own counter says."""
    if isinstance(shares, (str, bytes, Mapping)) or not hasattr(shares, "__len__") or len(shares) != len(counts):
        return not_yet(f"`shares` is {judge.kind(shares)}. Expected a list with a number for each of the {len(counts)} servers.")
    given, right = [judge.must_be_number("shares", share, "a list of numbers") for share in shares], [n / sum(counts) for n in counts]
    if not _alike(given, right):
        slips = {
            "That is in percent. Expected numbers between 0 and 1": [100 * share for share in right],
            "Those are the numbers of requests. Divide each by the sum of both": counts,
            "That is the other order; the first is `fleet.servers[0]`": right[::-1],
        }
        rose = " and ".join(str(count) for count in counts)
        otherwise = f"The servers' counters rose by {rose} since `before`. Other requests after yours count, too"
        if not math.isclose(sum(given), 1, abs_tol=_SHARE):
            otherwise = f"Your shares add up to {sum(given):.3g}. Parts of a whole add up to 1"
        why = next((words for words, wrong in slips.items() if _alike(given, wrong)), otherwise)
        return not_yet(f"`shares` begins with {given[0]:.4g}. {why}.")
    fair = min(right) >= _FAIR / len(counts)
    words = " : ".join(str(count) for count in counts)
    return correct(
        f"{words} requests. {'The load was shared.' if fair else 'Shared, but not evenly: one of them was slower, so it got fewer.'}"
    )


def _alike(given: Sequence[float], right: Sequence[float]) -> bool:
    return all(abs(one - other) <= _SHARE for one, other in zip(given, right, strict=True))


@checker("10.4")
def nothing_lost(fleet: Any, tagged: Any, lost: Any, doubled: Any) -> Outcome:
    """Ids without scores, and ids with more than one, in the files of the analysis."""
    from helpers.scaling.analysis import Analysis  # Dask takes a second to import

    judge.must_be(tagged, Analysis, "tagged", "the cell with `tag_files`")
    seen = sum(row["inferences"] or 0 for row in _must_be_fleet(fleet).shares(model=tagged.model))
    if seen < tagged.tagged:
        raise CannotTell(
            f"Your fleet has seen {seen} jets, and {tagged.tagged} were tagged by another one. Run `tag_files` with a new output."
        )
    try:
        right = tagged.check()
    except OSError as error:
        raise CannotTell(f"A file of scores cannot be read ({error}). Run the cell with `tag_files` again.") from error
    slips = {"That is the number of jets that have scores": right["jets"] - right["lost"]}
    for name, given in (("lost", lost), ("doubled", doubled)):
        Number(name, given, right[name], slips, f"In the files it is {right[name]}", relative=0).must_be_right()
    if right["lost"] or right["doubled"]:
        return correct(f"{right['lost']} of {right['jets']} jets are lost, {right['doubled']} doubled: run `tag_files` again.")
    sent = f"your fleet's counters saw {seen} jets" if tagged.tagged else "all of them were tagged before"
    return correct(f"{right['jets']} jets, each with scores, each once; {sent}.")
