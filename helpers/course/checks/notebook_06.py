"""Checkers of notebook 06, Read the metrics: they compare with the server's own counters."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from helpers.course import judge
from helpers.course.judge import SUCCESS, CannotTell, Outcome, checker, correct, must_be_right, not_yet, plain
from helpers.metrics import Difference, scrape

_MODEL = "particlenet_AK4"
_COUNT, _EXECUTIONS = "nv_inference_count", "nv_inference_exec_count"
_REQUESTS, _INFERENCES = 4, 40
# People round: half a per cent and the last of two digits.
_ROUNDED: dict[str, Any] = {"relative": 0.005, "absolute": 0.006}
# Requests that the notebook traces, and part by which trace and counters may differ.
_TRACED, _PICTURE = 8, 0.05
# From here on requests were put together, and not by chance.
_BATCH = 1.5


@checker("6.1")
def on_the_page(server: Any, page: Any, counted: Any) -> Outcome:
    """The number of successful requests that stands on the page which the student has."""
    if not isinstance(page, str) or _MODEL not in page:
        raise CannotTell(f"The check needs the `page` with `{_MODEL}`, and got {judge.kind(page)}. Run the cell that gets it again.")

    def on_page(metric: str, model: str = _MODEL) -> float:
        return sum(float(value) for value in re.findall(rf'^{metric}{{[^}}]*model="{model}"[^}}]*}} (\S+)$', page, re.MULTILINE))

    slips = {
        f"That is `{_COUNT}`, the jets in these requests": on_page(_COUNT),
        f"That is `{_EXECUTIONS}`, how often the model ran": on_page(_EXECUTIONS),
        "That is the line of `add_sub`": on_page(SUCCESS, "add_sub"),
    }
    otherwise = f"Look for `{SUCCESS}` with the label of `{_MODEL}`"
    true = must_be_right("counted", counted, on_page(SUCCESS), slips, otherwise, relative=0)
    return correct(f"{plain(true)} requests, and none was yours: the warm-up in the model's config, before it was READY.")


@checker("6.2")
def moved(server: Any, before: Any, answers: Any) -> Outcome:
    """Four requests with forty inferences, by the server's count."""
    requests, inferences, executions = (judge.rise(server, before, _MODEL, name) for name in (SUCCESS, _COUNT, _EXECUTIONS))
    if (requests, inferences) == (_REQUESTS, _INFERENCES):
        return correct(f"{_REQUESTS} requests with {_INFERENCES} inferences, in {plain(executions)} executions.")
    why = {
        (0, 0): f". Nothing was sent: `answers` is {judge.kind(answers)}.",
        (1, _INFERENCES): f": all jets came in one request. Send {_REQUESTS} requests with a quarter of them each.",
        (_INFERENCES, _INFERENCES): f": one jet in each. Put {_INFERENCES // _REQUESTS} into each of {_REQUESTS} requests.",
    }
    otherwise = f"; wanted are {_REQUESTS} and {_INFERENCES}. Run the whole cell again, once: it reads `before`, too."
    seen = f"The server counted {plain(requests)} requests and {plain(inferences)} inferences since `before`"
    return not_yet(seen + why.get((int(requests), int(inferences)), otherwise))


@checker("6.3")
def mean_latency(server: Any, change: Any, mean_ms: Any) -> Outcome:
    """The mean time of a request between two readings, in milliseconds, by the student's own readings."""
    judge.must_be_made("change", change, Difference, "the cell above")
    requests, total_us = (change.value(name, model=_MODEL) for name in (SUCCESS, "nv_inference_request_duration_us"))
    if not requests:
        raise CannotTell("Between the two readings there was no request. Run the cell above again.")
    success = judge.must_be_server(server).statistics(_MODEL)["inference_stats"]["success"]
    since_loading_ms, given = int(success["ns"]) / max(int(success["count"]), 1) / 1e6, judge.number(mean_ms)
    # More requests may have come since the student looked, but the mean does not move much by them.
    if given is not None and math.isclose(given, since_loading_ms, rel_tol=0.1):
        since_loading_ms = given
    slips = {
        "That is the time of all requests together; divide by their number": total_us / 1000,
        "That is the time per jet; we asked for that of a request": total_us / change.value(_COUNT, model=_MODEL) / 1000,
        "That is `compute_infer`, a part of it": change.value("nv_inference_compute_infer_duration_us", model=_MODEL) / requests / 1000,
        "That is the mean since the model was loaded, with the warm-up in it; use `change`": since_loading_ms,
    }
    otherwise = "Take duration and requests from `change`, and divide"
    true = must_be_right("mean_ms", mean_ms, total_us / requests / 1000, slips, otherwise, unit="ms", **_ROUNDED)
    return correct(f"{true:.2f} ms: {total_us:.0f} µs in {plain(requests)} requests. What came before them plays no part.")


@checker("6.4")
def picture_proved(server: Any, before: Any, share: Any) -> Outcome:
    """The part of the time in the queue, of the requests that were traced, by the server's counters."""
    requests = judge.rise(server, before, _MODEL)
    change, names = scrape(server) - before, ("queue", "request", "compute_infer", "compute_input", "compute_output")
    return judge_share(requests, {name: change.value(f"nv_inference_{name}_duration_us", model=_MODEL) for name in names}, share)


def judge_share(requests: float, us: Mapping[str, float], share: Any) -> Outcome:
    """Compare with the counters' durations, in µs, of so many requests."""
    if requests != _TRACED:
        raise CannotTell(f"The server counted {plain(requests)} requests since `before`, and {_TRACED} were traced. Run it again.")
    computed = us["compute_infer"] + us["compute_input"] + us["compute_output"]
    slips = {
        "That is the part of the network itself": us["compute_infer"] / us["request"],
        "That is the part of all computing": computed / us["request"],
        "That is waiting over computing; divide by the whole time": us["queue"] / computed if computed else None,
        "That is the time in the queue in ms; divide it by the time of all requests": us["queue"] / 1000,
    }
    otherwise = f"The counters say {us['queue'] / us['request']:.3f}. Take the queue of all requests over the time of all"
    rounded: dict[str, Any] = {"unit": "fraction", "relative": _PICTURE, "absolute": 0.01}
    true = must_be_right("share", share, us["queue"] / us["request"], slips, otherwise, **rounded)
    return correct(f"{100 * true:.0f} %: of {us['request'] / 1000:.1f} ms in {_TRACED} requests, {us['queue'] / 1000:.1f} ms were waiting.")


@checker("6.5")
def put_together(server: Any, busy: Any, mean_batch: Any) -> Outcome:
    """Requests of one jet each were executed together, and the student says how many on average."""
    judge.must_be_made("busy", busy, Difference, "the cell above")
    requests, inferences, executions = (busy.value(name, model=_MODEL) for name in (SUCCESS, _COUNT, _EXECUTIONS))
    if not executions:
        return not_yet("The model did not run in these seconds. Is the dashboard running, with *Concurrency* above 0?")
    # Requests that were under way at a reading may be in one counter and not yet in the other.
    if inferences > 1.5 * requests:
        seen = f"The server counted {plain(inferences)} inferences in {plain(requests)} requests."
        return not_yet(f"{seen} Set *Batch* back to 1, so that only the server can put jets together, and run the cell again.")
    if inferences / executions < _BATCH:
        seen = f"{plain(requests)} requests took {plain(executions)} executions, {inferences / executions:.2f} requests in each."
        return not_yet(f"{seen} Move *Concurrency* higher, wait for *Mean batch* to follow, and run the cell again.")
    otherwise = "Divide the inferences in `busy` by the executions in `busy`"
    true = must_be_right("mean_batch", mean_batch, (inferences, executions), otherwise=otherwise, **_ROUNDED)
    return correct(f"{plain(requests)} requests of one jet in {plain(executions)} executions: {true:.2f} jets at once.")
