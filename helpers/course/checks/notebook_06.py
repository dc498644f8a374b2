"""Checkers of notebook 06, Read the metrics: they compare with the server's own counters."""

from __future__ import annotations

import re
from typing import Any

from helpers.course import judge
from helpers.course.judge import CannotTell, Outcome, checker, correct, not_yet
from helpers.metrics import Difference

_MODEL = "particlenet_AK4"
_COUNT, _EXECUTIONS = "nv_inference_count", "nv_inference_exec_count"
_REQUESTS, _INFERENCES = 4, 40
# People round: half a per cent and the last of two digits.
_RELATIVE, _ABSOLUTE = 0.005, 0.006
# From here on requests were put together, and not by chance.
_BATCH = 1.5


def _near(given: float, true: float) -> bool:
    return abs(given - true) <= max(_RELATIVE * abs(true), _ABSOLUTE)


@checker("6.1")
def on_the_page(server: Any, page: Any, counted: Any) -> Outcome:
    """The number of successful requests that stands on the page which the student has."""
    judge.must_be_server(server)
    if not isinstance(page, str) or _MODEL not in page:
        raise CannotTell(f"The check needs the `page` with `{_MODEL}`, and got {judge.kind(page)}. Run the cell that gets it again.")

    def on_page(metric: str, model: str = _MODEL) -> float:
        return sum(float(value) for value in re.findall(rf'^{metric}{{[^}}]*model="{model}"[^}}]*}} (\S+)$', page, re.MULTILINE))

    true, given = on_page(judge.SUCCESS), judge.number(counted)
    if given is None:
        return not_yet(f"`counted` should be one number, and it is {judge.kind(counted)}.")
    if given == true:
        return correct(f"{judge.plain(true)} requests, and none was yours: the warm-up in the model's config, before it was READY.")
    wrong = {
        on_page(_COUNT): f"That is `{_COUNT}`, the jets in these requests",
        on_page(_EXECUTIONS): f"That is `{_EXECUTIONS}`, how often the model ran",
        on_page(judge.SUCCESS, "add_sub"): "That is the line of `add_sub`",
    }
    return not_yet(f"`counted` is {judge.plain(given)}. {wrong.get(given, f'Look for `{judge.SUCCESS}` with the label of `{_MODEL}`')}.")


@checker("6.2")
def moved(server: Any, before: Any, answers: Any) -> Outcome:
    """Four requests with forty inferences, by the server's count."""
    requests, inferences, executions = (judge.rise(server, before, _MODEL, name) for name in (judge.SUCCESS, _COUNT, _EXECUTIONS))
    if (requests, inferences) == (_REQUESTS, _INFERENCES):
        return correct(f"{_REQUESTS} requests with {_INFERENCES} inferences, in {judge.plain(executions)} executions.")
    seen = f"The server counted {judge.plain(requests)} requests and {judge.plain(inferences)} inferences since `before`"
    if requests == 0:
        return not_yet(f"{seen}. Nothing was sent: `answers` is {judge.kind(answers)}.")
    if (requests, inferences) == (1, _INFERENCES):
        return not_yet(f"{seen}: all jets came in one request. Send {_REQUESTS} requests with a quarter of them each.")
    if (requests, inferences) == (_INFERENCES, _INFERENCES):
        return not_yet(f"{seen}: one jet in each. Put {_INFERENCES // _REQUESTS} into each of {_REQUESTS} requests.")
    return not_yet(f"{seen}; wanted are {_REQUESTS} and {_INFERENCES}. Run the whole cell again, once: it reads `before`, too.")


@checker("6.3")
def mean_latency(server: Any, change: Any, mean_ms: Any) -> Outcome:
    """The mean time of a request between two readings, in milliseconds."""
    judge.must_be_server(server)
    if not isinstance(change, Difference):
        raise CannotTell(f"The check needs `change`, and got {judge.kind(change)}. Run the cell above again.")
    requests = change.value(judge.SUCCESS, model=_MODEL)
    if not requests:
        raise CannotTell("Between the two readings there was no request. Run the cell above again.")
    total_us = change.value("nv_inference_request_duration_us", model=_MODEL)
    true, given = total_us / requests / 1000, judge.number(mean_ms)
    if given is None:
        return not_yet(f"`mean_ms` should be one number, and it is {judge.kind(mean_ms)}.")
    if _near(given, true):
        return correct(f"{true:.2f} ms: {total_us:.0f} µs in {judge.plain(requests)} requests. What came before them plays no part.")
    wrong = [
        (true * 1000, "That is in microseconds; divide by 1000"),
        (true / 1000, "That is in seconds; we asked for milliseconds"),
        (total_us / 1000, "That is the time of all requests together; divide by their number"),
        (total_us / change.value(_COUNT, model=_MODEL) / 1000, "That is the time per jet; we asked for that of a request"),
        (change.value("nv_inference_compute_infer_duration_us", model=_MODEL) / requests / 1000, "That is `compute_infer`, a part of it"),
    ]
    why = next((words for value, words in wrong if _near(given, value)), "")
    if not why:
        why = _since_loading(server, given) or "Take duration and requests from `change`, and divide"
    return not_yet(f"`mean_ms` is {given:.4g}. {why}.")


def _since_loading(server: Any, given: float) -> str:
    """Whether it is the mean since the model was loaded, which the warm-up makes too long."""
    success = server.statistics(_MODEL)["inference_stats"]["success"]
    mean_ms = int(success["ns"]) / max(int(success["count"]), 1) / 1e6
    # More requests may have come since the student looked, but the mean does not move much by them.
    return "That is the mean since the model was loaded, with the warm-up in it; use `change`" if abs(given / mean_ms - 1) < 0.1 else ""


@checker("6.4")
def put_together(server: Any, busy: Any, mean_batch: Any) -> Outcome:
    """Requests of one jet each were executed together, and the student says how many on average."""
    judge.must_be_server(server)
    if not isinstance(busy, Difference):
        raise CannotTell(f"The check needs `busy`, and got {judge.kind(busy)}. Run the cell above again.")
    requests, inferences, executions = (busy.value(name, model=_MODEL) for name in (judge.SUCCESS, _COUNT, _EXECUTIONS))
    if not executions:
        return not_yet("The model did not run in these seconds. Is the dashboard running, with *Concurrency* above 0?")
    if inferences != requests:
        return not_yet(
            f"The server counted {judge.plain(inferences)} inferences in {judge.plain(requests)} requests. Set *Batch* back to 1, so that "
            "only the server can put jets together, and run the cell again."
        )
    true, given = inferences / executions, judge.number(mean_batch)
    if true < _BATCH:
        return not_yet(
            f"{judge.plain(requests)} requests took {judge.plain(executions)} executions, {true:.2f} requests in each. Move *Concurrency* "
            "higher, wait for *Mean batch* to follow, and run the cell again."
        )
    if given is None:
        return not_yet(f"`mean_batch` should be one number, and it is {judge.kind(mean_batch)}.")
    if _near(given, true):
        return correct(f"{judge.plain(requests)} requests of one jet in {judge.plain(executions)} executions: {true:.2f} jets at once.")
    if _near(given, executions / inferences):
        return not_yet(f"`mean_batch` is {given:.4g}. It is the other way round: inferences divided by executions.")
    return not_yet(f"`mean_batch` is {given:.4g}. Divide the inferences in `busy` by the executions in `busy`.")
