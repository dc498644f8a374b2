"""Checkers of notebook 10, Scale out: against the student's own rows, and the counters of the live fleet."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from helpers.course import judge
from helpers.course.judge import CannotTell, Outcome, checker, correct, not_yet
from helpers.errors import InputError, ServerError
from helpers.fleet import Fleet
from helpers.measuring.statistics import ratio
from helpers.measuring.table import THROUGHPUT, is_recorded, rows_of
from helpers.metrics import Snapshot, scrape
from helpers.scaling.capacity import Plan, Traffic, plan
from helpers.tables import Row

_MODEL = "particlenet_AK4"
# A fleet is saturated where this fraction of its highest throughput is reached.
_SATURATED = 0.9
# People round: a number counts as right within this fraction; a share within so much.
_ROUNDING, _SHARE = 0.02, 0.005
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


def _rows(one: Any) -> list[Row]:
    """Rows of the first fleet in the order of their concurrency, or no answer."""
    try:
        rows = rows_of(one, ("servers", "concurrency", THROUGHPUT, "queue_us"), "the check")
    except InputError as error:
        raise CannotTell(f"The check needs your rows in `one`. {error.happened} Run the cell with `by_concurrency` again.") from error
    if any(row.get(THROUGHPUT) is None or row.get("queue_us") is None or is_recorded(row) for row in rows):
        raise CannotTell("A row has no throughput or no queue, or was not measured here. Run the cell with `by_concurrency` again.")
    return sorted(rows, key=lambda row: row["concurrency"])


def _close(given: float, right: float) -> bool:
    return math.isclose(given, right, rel_tol=_ROUNDING)


@checker("10.1")
def saturation_found(fleet: Any, one: Any, saturated: Any, in_queue: Any) -> Outcome:
    """The concurrency from which on the throughput stays, and the requests in the queue at the highest one."""
    rows = _rows(one)
    seen = sum(row["requests"] or 0 for row in _must_be_fleet(fleet).shares(model=_MODEL))
    if seen < (needed := sum(row.get("requests") or 0 for row in rows)):
        raise CannotTell(f"Your fleet has seen {seen} requests, and `one` is made of {needed}: it is another fleet. Run `one` again.")
    best = max(rows, key=lambda row: row[THROUGHPUT])
    right = next(row for row in rows if row[THROUGHPUT] >= _SATURATED * best[THROUGHPUT])
    chosen = next((row for row in rows if row["concurrency"] == judge.number(saturated)), None)
    if chosen is None:
        return not_yet(f"`saturated` should be one of your concurrencies: {', '.join(str(row['concurrency']) for row in rows)}.")
    # A row within the spread of the 90 % could be on either side.
    share, half = ratio(chosen, best)
    if chosen is not right and (chosen is best or abs(share - _SATURATED) >= (half or 0.0)):
        if chosen["concurrency"] > right["concurrency"]:
            return not_yet(
                f"`saturated` is {chosen['concurrency']}, but {right['concurrency']} reaches 90 % of the highest throughput already."
            )
        return not_yet(
            f"`saturated` is {chosen['concurrency']}, which reaches {100 * share:.0f} % of the highest throughput; 90 % was asked."
        )
    last = rows[-1]
    waiting = last[THROUGHPUT] / last["batch"] * last["queue_us"] / 1e6
    given = judge.number(in_queue)
    if given is None:
        return not_yet(f"`saturated` is right. `in_queue` should be a number, and it is {judge.kind(in_queue)}.")
    if not _close(given, waiting):
        return not_yet(f"`saturated` is right. `in_queue` is {given:.4g}. {_why_queue(given, waiting, last)}")
    return correct(
        f"Saturated from {chosen['concurrency']} on, at {best[THROUGHPUT]:.0f} jets/s. With {last['concurrency']} under way, "
        f"{waiting:.1f} stood in the queue, each for {last['queue_us'] / 1e3:.0f} ms: the server works on one, and the others wait."
    )


def _why_queue(given: float, right: float, row: Row) -> str:
    """The usual wrong numbers by name."""
    if _close(given, right * row["batch"]):
        return f"That counts jets: a request has {row['batch']} of them."
    if any(_close(given, right * factor) for factor in (1e6, 1e3, 1e6 * row["batch"])):
        return "`queue_us` is in microseconds: divide by a million."
    if _close(given, row["concurrency"]):
        return "That is the concurrency: all that were under way. We asked for those in the queue."
    if row.get("latency_p50_us") and _close(given, right * row["latency_p50_us"] / row["queue_us"]):
        return "That takes the whole latency; take the time in the queue, `queue_us`."
    return f"Multiply requests per second by seconds in the queue, both from the row with concurrency {row['concurrency']}."


@checker("10.2")
def servers_chosen(fleet: Any, one: Any, traffic: Any, budget_ms: Any, servers: Any) -> Outcome:
    """The smallest number of servers that keeps the budget, by the student's own throughput."""
    behind = len(_must_be_fleet(fleet).servers)
    if not isinstance(traffic, Traffic) or judge.number(budget_ms) is None:
        raise CannotTell("The check needs `traffic` and `budget_ms`. Run the cell that makes them again.")
    found = plan(traffic, _rows(one), float(budget_ms))
    given, (fewest, most) = judge.number(servers), found.servers_interval
    if given is None or given != int(given) or given < 1:
        what = judge.plain(given) if given is not None else judge.kind(servers)
        return not_yet(f"`servers` is {what}. Expected a whole number of servers.")
    if given < fewest:
        return not_yet(f"`servers` is {int(given)}. {_too_few(found, int(given))}")
    if given > most:
        return not_yet(f"`servers` is {int(given)}. That would do, but {most} keep the budget, too, and cost less.")
    busy = 100 * found.traffic.jets_per_s / given / found.speed.jets_per_s
    return correct(
        f"{int(given)} servers are busy {busy:.0f} % of the time, and 95 of 100 requests are expected within "
        f"{found.latency_p95_ms(int(given)):.0f} ms of {found.budget_ms:.0f}. Your fleet has {behind} now; measure it."
    )


def _too_few(found: Plan, servers: int) -> str:
    can = servers * found.speed.jets_per_s
    if can <= found.traffic.jets_per_s:
        return f"That is {can:.0f} jets/s at most, and {found.traffic.jets_per_s:.0f} come: the queue grows without end."
    taken_ms = found.latency_p95_ms(servers)
    return f"They can do it, but 95 of 100 requests take up to {taken_ms:.0f} ms, and the budget is {found.budget_ms:.0f}."


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
    if isinstance(shares, (str, bytes, Mapping)) or not hasattr(shares, "__len__") or len(shares) != len(servers):
        return not_yet(f"`shares` is {judge.kind(shares)}. Expected a list with a number for each of the {len(servers)} servers.")
    given, right = [judge.number(share) for share in shares], [count / sum(counts) for count in counts]
    if None in given:
        return not_yet("Not every entry of `shares` is a number.")
    numbers = [value for value in given if value is not None]
    if not _alike(numbers, right):
        return not_yet(f"`shares` begins with {numbers[0]:.4g}. {_why_shares(numbers, right, counts)}")
    fair = min(right) >= _FAIR / len(servers)
    words = " : ".join(str(count) for count in counts)
    return correct(
        f"{words} requests. {'The load was shared.' if fair else 'Shared, but not evenly: one of them was slower, so it got fewer.'}"
    )


def _alike(given: Sequence[float], right: Sequence[float]) -> bool:
    return all(abs(one - other) <= _SHARE for one, other in zip(given, right, strict=True))


def _why_shares(given: Sequence[float], right: Sequence[float], counts: Sequence[float]) -> str:
    if _alike([value / 100 for value in given], right):
        return "That is in per cent. Expected numbers between 0 and 1."
    if _alike([value / sum(counts) for value in given], right):
        return "Those are the numbers of requests. Divide each by the sum of both."
    if _alike(given[::-1], right):
        return "That is the other order; the first is `fleet.servers[0]`."
    if sum(given) and not math.isclose(sum(given), 1, abs_tol=_SHARE):
        return f"Your shares add up to {sum(given):.3g}. Parts of a whole add up to 1."
    rose = " and ".join(str(count) for count in counts)
    return f"The servers' counters rose by {rose} since `before`. Other requests after yours count, too."


@checker("10.4")
def nothing_lost(fleet: Any, tagged: Any, lost: Any, doubled: Any) -> Outcome:
    """Ids without scores, and ids with more than one, in the files of the analysis."""
    from helpers.scaling.analysis import Analysis  # Dask takes a second to import

    if not isinstance(tagged, Analysis):
        raise CannotTell(f"The check needs `tagged`, and got {judge.kind(tagged)}. Run the cell with `tag_files` again.")
    seen = sum(row["inferences"] or 0 for row in _must_be_fleet(fleet).shares(model=tagged.model))
    if seen < tagged.tagged:
        raise CannotTell(
            f"Your fleet has seen {seen} jets, and {tagged.tagged} were tagged by another one. Run `tag_files` with a new output."
        )
    try:
        right = tagged.check()
    except OSError as error:
        raise CannotTell(f"A file of scores cannot be read ({error}). Run the cell with `tag_files` again.") from error
    given = [judge.number(lost), judge.number(doubled)]
    for name, number, key in zip(("lost", "doubled"), given, ("lost", "doubled"), strict=True):
        if number is None:
            return not_yet(f"`{name}` should be a number, and it is {judge.kind(lost if key == 'lost' else doubled)}.")
        if number != right[key]:
            hint = " That is the number of jets that have scores." if number == right["jets"] - right["lost"] else ""
            return not_yet(f"`{name}` is {judge.plain(number)}, and in the files it is {right[key]}.{hint}")
    if right["lost"] or right["doubled"]:
        return correct(f"{right['lost']} of {right['jets']} jets are lost, {right['doubled']} doubled: run `tag_files` again.")
    sent = f"your fleet's counters saw {seen} jets" if tagged.tagged else "all of them were tagged before"
    return correct(f"{right['jets']} jets, each with scores, each once; {sent}.")
