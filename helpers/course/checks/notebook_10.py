"""Checkers of notebook 10, Scale out: against the student's own rows, and the counters of the live fleet."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from helpers.course import judge
from helpers.course.checks import measured
from helpers.course.judge import CannotTell, Outcome, checker, correct, must_be_right, not_yet
from helpers.errors import CourseError
from helpers.fleet import Fleet
from helpers.measuring.table import THROUGHPUT, is_recorded
from helpers.metrics import Snapshot, scrape
from helpers.scaling.capacity import plan
from helpers.tables import Row

_MODEL = "particlenet_AK4"
# People round a share to so much.
_SHARE = 0.005
# A server that answered less than this part of what would be its own did not really share.
_FAIR = 0.5


def _must_be_fleet(fleet: Any) -> Fleet:
    judge.must_be_made("fleet", fleet, Fleet, "the cell with `launch_fleet(...)`")
    if not fleet.is_alive():
        raise CannotTell(f"No server answers through your fleet's front at {fleet.http_url}. Type `fleet = fleet.restart()`.")
    return fleet  # type: ignore[no-any-return]


def _rows(one: Any) -> list[Row]:
    """Rows of the first fleet in the order of their concurrency, or no answer."""
    rows = measured.rows(one, ("servers", "concurrency", "queue_us"), "one", "by_concurrency")
    if any(map(is_recorded, rows)):
        raise CannotTell("A row was not measured here. Run the cell with `by_concurrency` again.")
    return sorted(rows, key=lambda row: row["concurrency"])


@checker("10.1")
def saturation_found(fleet: Any, one: Any, saturated: Any, in_queue: Any) -> Outcome:
    """The concurrency from which on the throughput stays, and the requests in the queue at the highest one."""
    rows = _rows(one)
    seen = sum(row["requests"] or 0 for row in _must_be_fleet(fleet).shares(model=_MODEL))
    if seen < (needed := sum(row.get("requests") or 0 for row in rows)):
        raise CannotTell(f"Your fleet has seen {seen} requests, and `one` is made of {needed}: it is another fleet. Run `one` again.")
    chosen, last = measured.must_be_knee("saturated", saturated, rows, "concurrency"), rows[-1]
    per_us = last[THROUGHPUT] / last["batch"] / 1e6
    waiting = per_us * last["queue_us"]
    micro = "`queue_us` is in microseconds: divide by a million"
    slips = {
        f"That counts jets: a request has {last['batch']} of them": waiting * last["batch"],
        micro: waiting * 1e6,
        f"{micro}, not by a thousand": waiting * 1e3,
        f"{micro}, and count requests, not jets": waiting * 1e6 * last["batch"],
        "That is the concurrency: all that were under way. We asked for those in the queue": last["concurrency"],
        "That takes the whole latency; take the time in the queue, `queue_us`": per_us * (last.get("latency_p50_us") or math.nan),
    }
    otherwise = f"Multiply requests per second by seconds in the queue, both from the row with concurrency {last['concurrency']}"
    must_be_right("in_queue", in_queue, waiting, slips, otherwise, first="`saturated` is right. ")
    fastest = max(row[THROUGHPUT] for row in rows)
    return correct(
        f"Saturated from {chosen['concurrency']} on, at {fastest:.0f} jets/s. With {last['concurrency']} under way, "
        f"{waiting:.1f} stood in the queue, each for {last['queue_us'] / 1e3:.0f} ms: the server works on one, and the others wait."
    )


@checker("10.2")
def servers_chosen(fleet: Any, one: Any, traffic: Any, budget_ms: Any, servers: Any) -> Outcome:
    """The smallest number of servers that keeps the budget, by the student's own throughput."""
    behind, found = len(_must_be_fleet(fleet).servers), plan(traffic, _rows(one), budget_ms)
    given, (fewest, most) = judge.must_be_number("servers", servers, "a whole number of servers"), found.servers_interval
    if given != int(given) or given < 1:
        return not_yet(f"`servers` is {judge.plain(given)}. It should be a whole number of servers.")
    can, come, taken_ms = given * found.jets_per_s, found.traffic.jets_per_s, found.latency_p95_ms(int(given))
    if given < fewest and can <= come:
        return not_yet(f"`servers` is {given:.0f}. That is {can:.0f} jets/s at most, and {come:.0f} come: the queue grows without end.")
    if given < fewest:
        seen = f"95 of 100 requests take up to {taken_ms:.0f} ms, and the budget is {found.budget_ms:.0f}"
        return not_yet(f"`servers` is {given:.0f}. They can do it, but {seen}.")
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
    again = "Run your cell again from its first line."
    if not isinstance(before, Sequence) or len(before) != len(servers) or not all(isinstance(one, Snapshot) for one in before):
        raise CannotTell(f"The check needs `before`, a reading of each of your {len(servers)} servers. {again}")
    if len(servers) < 2:
        raise CannotTell("Your fleet has one server, and one cannot share. Type `fleet.grow()`, then run your cell again.")
    time.sleep(judge.SETTLE_S)
    try:
        rose = [scrape(server) - reading for server, reading in zip(servers, before, strict=True)]
    except CourseError as error:
        raise CannotTell(f"The counters cannot be compared: {error} {again}") from error
    counts = [int(sum(row["requests"] for row in one.requests if row["model"] == _MODEL)) for one in rose]
    if not sum(counts):
        raise CannotTell(f"None of your servers has seen a request since `before`. {again}")
    return judge_shares(counts, shares)


def judge_shares(counts: Sequence[float], shares: Any) -> Outcome:
    """Compare with what each server's own counter says."""
    right = [count / sum(counts) for count in counts]
    slips = {
        "That is in percent. Expected numbers between 0 and 1": [100 * share for share in right],
        "Those are the numbers of requests. Divide each by the sum of both": counts,
        "That is the other order; the first is `fleet.servers[0]`": right[::-1],
    }
    rose = " and ".join(str(count) for count in counts)
    otherwise = f"The servers' counters rose by {rose} since `before`, and parts of a whole add up to 1"
    judge.must_all_be_right("shares", shares, right, slips, otherwise, relative=0, absolute=_SHARE)
    fair = (
        "The load was shared." if min(right) >= _FAIR / len(counts) else "Shared, but not evenly: one of them was slower, so it got fewer."
    )
    return correct(f"{' : '.join(str(count) for count in counts)} requests. {fair}")


@checker("10.4")
def nothing_lost(fleet: Any, tagged: Any, lost: Any, doubled: Any) -> Outcome:
    """Ids without scores, and ids with more than one, in the files of the analysis."""
    seen = sum(row["inferences"] or 0 for row in _must_be_fleet(fleet).shares(model=tagged.model))
    if seen < tagged.tagged:
        raise CannotTell(
            f"Your fleet has seen {seen} jets, and {tagged.tagged} were tagged by another one. Run `tag_files` with a new output."
        )
    right = tagged.check()
    slips = {"That is the number of jets that have scores": right["jets"] - right["lost"]}
    for name, given in (("lost", lost), ("doubled", doubled)):
        must_be_right(name, given, right[name], slips, f"In the files it is {right[name]}", relative=0)
    if right["lost"] or right["doubled"]:
        return correct(f"{right['lost']} of {right['jets']} jets are lost, {right['doubled']} doubled: run `tag_files` again.")
    sent = f"your fleet's counters saw {seen} jets" if tagged.tagged else "all of them were tagged before"
    return correct(f"{right['jets']} jets, each with scores, each once; {sent}.")
