"""Many requests, a bounded number of them under way at once, answers in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from helpers.errors import CourseError, InputError


def send_many(send: Callable[[Any], Any], many: Iterable[Any], max_in_flight: int, errors: str) -> list[Any]:
    """Call ``send`` for each item.

    Args:
        send: sends one request and waits for its answer.
        many: the items; the next one is taken only when there is room for it.
        max_in_flight: how many calls may be under way at once.
        errors: ``raise`` or ``return``.

    Returns:
        The answers in the order of the items; with ``errors="return"`` an error stands in the place of its answer.

    Raises:
        CourseError: the first error; its attribute ``results`` holds what came back by then, with errors in their places.
    """
    _check(max_in_flight, errors)
    results: list[Any] = []
    failed: int | None = None
    under_way: deque[Future[Any]] = deque()

    def collect() -> None:
        nonlocal failed
        answer = under_way.popleft()
        error = answer.exception()
        if error is not None and not isinstance(error, CourseError):
            raise error
        failed = len(results) if error is not None and failed is None else failed
        results.append(error if error is not None else answer.result())

    pool = ThreadPoolExecutor(max_in_flight, thread_name_prefix="course-many")
    try:
        for item in many:
            under_way.append(pool.submit(send, item))
            while len(under_way) >= max_in_flight or (under_way and under_way[0].done()):
                collect()
            if errors == "raise" and failed is not None:
                break
        while under_way:
            collect()
    finally:
        # After "interrupt kernel" nobody waits for the requests that are still under way.
        pool.shutdown(wait=False, cancel_futures=True)
    if errors == "raise" and failed is not None:
        raise _numbered(results[failed], failed, results)
    return results


def _check(max_in_flight: int, errors: str) -> None:
    if not isinstance(max_in_flight, int) or max_in_flight < 1:
        raise InputError(f"max_in_flight={max_in_flight!r} was given.", "Expected a number of requests, 1 or more.")
    if errors not in ("raise", "return"):
        raise InputError(f"errors={errors!r} was given.", "Expected 'raise' or 'return'.")


def _numbered(error: CourseError, number: int, results: list[Any]) -> CourseError:
    others = sum(isinstance(result, CourseError) for result in results) - 1
    also = f" So did {others} of those under way with it." if others else ""
    numbered = type(error)(f"Request number {number} (counted from 0) failed.{also} {error.happened}", error.expected, error.todo)
    numbered.results = results
    numbered.__cause__ = error.__cause__
    return numbered
