"""The parts of the search that need no server: combinations and configurations, the strategy on known answers, the finals, the files."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from helpers.errors import ModelError, RequestError
from helpers.measuring.table import COLUMNS
from helpers.repository.syntax import parse
from helpers.terminal import Progress
from helpers.tuning.search import Bench, Search, confirm, praise, regret, rejected, winner_of
from helpers.tuning.space import (
    DELAYS_MS,
    FAILED,
    OK,
    OVER_BUDGET,
    REFUSED,
    UNSURE,
    Axes,
    Candidate,
    Found,
    Goal,
    Row,
    Traffic,
    axes_for,
    limited,
)

TRAFFIC = Traffic(8, 4)
ONNX: dict[str, Any] = {
    "name": "net",
    "backend": "onnxruntime",
    "max_batch_size": 64,
    "instance_group": [{"name": "net", "kind": "KIND_CPU", "count": 2}],
    "dynamic_batching": {"preferred_batch_size": [50], "max_queue_delay_microseconds": 0, "preserve_ordering": True},
    "parameters": {"inter_op_thread_count": {"string_value": "1"}},
    "optimization": {"input_pinned_memory": {"enable": True}},
}


def found(config: dict[str, Any] | None = None, cores: int = 4, *, embedded: bool = True, max_batch: int | None = None) -> Found:
    return Found.of("net", ONNX if config is None else config, cores, embedded, max_batch)


def row(rate: float, p95_ms: float = 10.0, *, outcome: str = OK, waits: float = 0.5, spread: float = 0.02, **others: Any) -> Row:
    """A row as the server would give it: three windows of 60 requests, with a relative half width of both figures."""
    latency = {f"latency_p{each}_us": 1000 * p95_ms for each in (50, 90, 95, 99)}
    latency |= {"latency_low_us": 1000 * p95_ms * (1 - spread), "latency_high_us": 1000 * p95_ms * (1 + spread)}
    seen = {"queue_share": waits, "cpu_cores": 1.0, "executed_batch": 8, "reachable_batch": 16, "stable": True}
    numbers = {"throughput_infer_per_s": rate, "throughput_spread_infer_per_s": rate * spread, "windows": 3, "requests": 180}
    about = {"percentile": 95, "reason": "why", "stage": "search", "candidate": "it", "as_found": False}
    return {**dict.fromkeys(COLUMNS), "model": "net", "outcome": outcome, **numbers, **latency, **seen, **about, **others}


# --- combinations and configurations ------------------------------------------------------------------------------------


def test_a_configuration_is_a_place_among_the_combinations() -> None:
    assert found().place == Candidate("net", 2, 2, 0.0)
    # A container's ONNX Runtime gives every instance all cores.
    assert found(embedded=False).place.threads == 4
    two = {"intra_op_thread_count": {"string_value": "2"}}
    assert found({**ONNX, "parameters": two}, embedded=False).place.threads == 2
    assert found({"backend": "python", "instance_group": [{"count": 3}]}).place == Candidate("net", 3, None, None)
    gpu = {**ONNX, "instance_group": [{"kind": "KIND_GPU", "count": 1, "gpus": [0, 1]}], "optimization": _tensorrt("FP16")}
    assert found(gpu, embedded=False).place == Candidate("net", 2, None, 0.0, "tensorrt FP16")


def _tensorrt(precision: str) -> dict[str, Any]:
    entry = {"name": "tensorrt", "parameters": {"precision_mode": precision}}
    return {"execution_accelerators": {"gpu_execution_accelerator": [entry]}}


@pytest.mark.parametrize(
    "candidate",
    [
        Candidate("net", 1, 4, None),
        Candidate("net", 4, 1, 2.0),
        Candidate("net", 2, 1, 0.0),
        Candidate("net", 2, 2, 0.5, "tensorrt"),
        Candidate("net", 1, 2, None, "tensorrt FP16"),
    ],
)
def test_the_configuration_of_a_combination_is_that_place(candidate: Candidate) -> None:
    config = found().config_for(candidate, TRAFFIC)
    assert found(config).place == candidate
    # What is not searched stays as it was.
    assert config["max_batch_size"] == 64
    assert config["parameters"]["inter_op_thread_count"] == {"string_value": "1"}
    assert config["optimization"]["input_pinned_memory"] == {"enable": True}
    assert config.get("dynamic_batching", {"preserve_ordering": True})["preserve_ordering"] is True


def test_a_limit_on_batches_counts_everywhere() -> None:
    few = found(max_batch=16)
    for candidate in (few.place, Candidate("net", 2, 1, 2.0)):
        config = few.config_for(candidate, TRAFFIC)
        assert config["max_batch_size"] == 16
        assert max(config["dynamic_batching"].get("preferred_batch_size", [0])) <= 16, "the server refuses larger ones"
    assert axes(found(max_batch=8)).delays_ms == (0.0,)
    assert limited(ONNX, 64) == limited(ONNX, None) == ONNX, "no limit of ours"


def test_what_was_found_is_loaded_as_it_was() -> None:
    assert found().config_for(found().place, TRAFFIC) == ONNX


def test_waiting_ends_when_the_batch_is_as_large_as_the_traffic_allows() -> None:
    config = found().config_for(Candidate("net", 2, 2, 1.0), TRAFFIC)
    assert config["dynamic_batching"]["preferred_batch_size"] == [16]
    assert config["dynamic_batching"]["max_queue_delay_microseconds"] == 1000
    assert found().reachable(Candidate("net", 1, 4, 0.0), TRAFFIC) == 32
    assert found().reachable(Candidate("net", 1, 4, 0.0), Traffic(20, 9)) == 60
    assert found().reachable(Candidate("net", 1, 4, None), TRAFFIC) == 8


def test_half_batches_are_half_of_what_an_instance_has() -> None:
    crowd = Traffic(1, 16)
    for instances, most, half in ((1, 16, 8), (2, 8, 4), (4, 4, 2), (16, 1, 1)):
        each = Candidate("net", instances, 1, 0.0, halves=True)
        assert found().config_for(each, crowd)["dynamic_batching"] == {"preferred_batch_size": [half], "preserve_ordering": True}
        assert (found().reachable(replace(each, halves=False), crowd), found().reachable(each, crowd)) == (most, half)
    assert found().reachable(Candidate("net", 1, 1, 0.0, halves=True), Traffic(5, 7)) == 15, "whole requests"
    assert str(Candidate("net", 1, 1, 0.0, halves=True)) == "net, 1 instance × 1 thread, batching on, half batches"


def axes(model: Found, traffic: Traffic = TRAFFIC, limit: int | None = None, budget_ms: float = math.inf, *, embedded: bool = True) -> Axes:
    return axes_for(model, Goal(traffic, budget_ms), 4, limit, embedded)


def test_only_values_that_have_an_effect() -> None:
    assert axes(found()) == Axes((1, 2, 4), (1, 2, 4), (None, 0.0, *DELAYS_MS), ("",), halves=True)
    # One request at a time: a second instance and a batch of several have nothing to do.
    assert axes(found(), Traffic(8, 1)) == Axes((1,), (1, 2, 4), (0.0,))
    assert axes(found(), Traffic(40, 4)).delays_ms == (0.0,)
    assert axes(found(), limit=3, budget_ms=1.0) == Axes((1, 2, 3), (1, 2, 4), (None, 0.0, 0.5), halves=True)
    python = found({"backend": "python", "max_batch_size": 0, "instance_group": [{"count": 1}]})
    assert axes(python) == Axes((1, 2, 4), (None,), (None,))
    assert axes(python).combinations == 3 and axes(found()).combinations == 36
    gpu = found({**ONNX, "instance_group": [{"kind": "KIND_GPU", "count": 1}]}, embedded=False)
    assert axes(gpu, embedded=False).accelerators == ("", "tensorrt", "tensorrt FP16")
    assert axes(gpu).accelerators == axes(found(), embedded=False).accelerators == ("",), "without a GPU or its own ONNX Runtime"


def test_the_cores_are_shared_out() -> None:
    axes = Axes((1, 2, 4, 8), (1, 2, 4), (None,))
    assert [axes.threads_for(number, 4) for number in axes.instances] == [4, 2, 1, 1]
    assert axes.beside(Candidate("net", 2, 2, None), 4, 1) == Candidate("net", 4, 1, None)
    assert axes.beside(Candidate("net", 3, 1, None), 4, -1) == Candidate("net", 2, 2, None)
    assert axes.beside(Candidate("net", 8, 1, None), 4, 1) is None


# --- the strategy -------------------------------------------------------------------------------------------------------


def search(answer: Callable[[Candidate], Row], axes: dict[str, Axes] | None = None, goal: Goal | None = None, cores: int = 4) -> Search:
    return Search(axes or {"net": Axes((1, 2, 4), (1, 2, 4), (None, 0.0, 0.5, 2.0))}, goal or Goal(TRAFFIC), cores, answer)


def test_instances_are_added_while_requests_wait() -> None:
    start = Candidate("net", 1, 4, None)
    run = search(lambda each: row(100 * each.instances, executed_batch=16))
    assert run.run(start).instances == 4
    assert Candidate("net", 2, 2, None) in run.rows


def test_nobody_adds_instances_when_nobody_waits() -> None:
    start = Candidate("net", 2, 2, None)
    run = search(lambda each: row(100 / each.instances, waits=0.01))
    assert run.run(start) == Candidate("net", 1, 4, None)
    assert all(each.instances <= 2 and each.delay_ms is None for each in run.rows)
    assert any("hardly any request waits" in step for step in run.steps)


def test_no_more_instances_than_cores_when_those_are_busy() -> None:
    start = Candidate("net", 2, 1, None)
    axes = {"net": Axes((1, 2, 4), (1, 2), (None,))}
    busy = search(lambda each: row(100 * each.instances, cpu_cores=1.9), axes, cores=2)
    assert busy.run(start).instances == 2
    assert any("uses 1.9 of 2 cores" in step for step in busy.steps)
    idle = search(lambda each: row(100 * each.instances, cpu_cores=0.1), axes, cores=2)
    assert idle.run(start).instances == 4


def test_threads_where_instances_may_not_be_added() -> None:
    start = Candidate("net", 1, 1, None)
    run = search(lambda each: row(100 * (each.threads or 0)), {"net": Axes((1,), (1, 2, 4), (None,))})
    assert run.run(start) == Candidate("net", 1, 4, None)
    crowded = search(lambda each: row(100 / (each.threads or 1)), {"net": Axes((4,), (1, 2, 4), (None,))})
    assert crowded.run(Candidate("net", 4, 4, None)) == Candidate("net", 4, 1, None)


def test_waits_are_tried_while_batches_are_not_full() -> None:
    start = Candidate("net", 4, 1, 0.0)
    gain = {None: 80, 0.0: 100, 0.5: 120, 2.0: 110}
    run = search(lambda each: row(gain[each.delay_ms] * each.instances))
    assert run.run(start) == Candidate("net", 4, 1, 0.5)
    full = search(lambda each: row(gain[each.delay_ms] * each.instances, executed_batch=15))
    assert full.run(start) == Candidate("net", 4, 1, 0.0)
    assert not any(each.delay_ms for each in full.rows)
    assert any("15 of 16 possible" in step for step in full.steps)


@pytest.mark.parametrize(("reachable_batch", "measured"), [(32, True), (31, False)])
def test_half_batches_where_two_requests_fit_into_one(reachable_batch: int, measured: bool) -> None:
    axes = Axes((1, 2), (1,), (None, 0.0, 0.5), halves=True)

    def answer(each: Candidate) -> Row:
        rate = 130 if each.halves else {None: 80, 0.0: 100, 0.5: 120}[each.delay_ms]
        return row(rate * each.instances, reachable_batch=reachable_batch)

    run = search(answer, {"net": axes})
    assert run.run(Candidate("net", 2, 1, 0.0)) == Candidate("net", 2, 1, *((0.0, "", True) if measured else (0.5,)))
    assert any(each.halves for each in run.rows) == measured
    none = search(lambda each: row(100 if each.delay_ms is None else 50), {"net": axes})
    assert none.run(Candidate("net", 1, 1, None)).delay_ms is None
    assert not any(each.halves for each in none.rows), "where batching is no gain"


def test_another_model_with_the_same_tensors() -> None:
    axes = {"net": Axes((1, 2), (1, 2), (None,)), "net_int8": Axes((1, 2), (None,), (None,))}
    run = search(lambda each: row((300 if each.model == "net_int8" else 100) * each.instances), axes)
    assert run.run(Candidate("net", 1, 2, None)) == Candidate("net_int8", 2, None, None)


def test_within_the_budget_comes_first() -> None:
    """More instances are faster, but only one at a time answers in time."""
    goal = Goal(TRAFFIC, budget_ms=15)
    run = search(lambda each: row(100 * each.instances, 10.0 * each.instances, outcome=OK), goal=goal)
    assert run.run(Candidate("net", 4, 1, None)).instances == 1
    late = row(100, 20)
    assert goal.over(late)
    assert not goal.over(row(100, 15.1))
    assert goal.rank(row(10, 14)) > goal.rank(row(100, 16)) > goal.rank(row(1000, 17)) > goal.rank(row(9, 1, outcome=REFUSED))


def test_a_model_that_cannot_be_measured_at_all() -> None:
    with pytest.raises(ModelError, match="cannot be measured: why"):
        search(lambda each: row(0, outcome=FAILED)).run(Candidate("net", 1, 1, None))


def test_few_of_many_combinations_are_measured() -> None:
    """Against a full grid whose answers are known: the best of it, in a fifth of its measurements and less."""
    axes = Axes((1, 2, 4, 8), (1, 2, 4, 8), (None, 0.0, 0.5, 2.0))

    def answer(each: Candidate) -> Row:
        share = min(1.0, 8 / (each.instances * (each.threads or 1)))
        rate = 100 * each.instances * (each.threads or 1) ** 0.7 * share
        return row(rate * {None: 1.0, 0.0: 1.2, 0.5: 1.25, 2.0: 1.1}[each.delay_ms], cpu_cores=7.9)

    run = search(answer, {"net": axes}, cores=8)
    best = run.run(Candidate("net", 1, 8, None))
    every = itertools.product(["net"], axes.instances, axes.threads, axes.delays_ms)
    grid = {each: answer(each)["throughput_infer_per_s"] for each in (Candidate(*values) for values in every)}
    assert grid[best] == max(grid.values())
    assert len(run.rows) <= len(grid) / 5


def test_finalists_are_those_that_the_spread_does_not_rule_out() -> None:
    rates = {1: 100.0, 2: 150.0, 4: 149.0}
    run = search(lambda each: row(rates[each.instances]), {"net": Axes((1, 2, 4), (None,), (None,))})
    start = Candidate("net", 1, None, None)
    best = run.run(start)
    assert run.finalists(best, start) == ([best, Candidate("net", 4, None, None), start], [])


# --- the finals ---------------------------------------------------------------------------------------------------------


class Rounds:
    """Measures finalists again: each row is of all rounds so far, as the server's are."""

    def __init__(self, rates: dict[int, float], late_ms: dict[int, float] | None = None) -> None:
        self.rates, self.late_ms, self.order, self.turns = rates, late_ms or {}, [], {}

    def __call__(self, each: Candidate, turn: str) -> Row:
        self.order.append(each.instances)
        turns = self.turns.setdefault(each, {})
        turns[turn] = self.rates[each.instances] + len(turns)
        late = self.late_ms.get(each.instances, 10.0)
        marks = {"candidate": str(each), "as_found": each.instances == 1, "stage": "final", "turns": dict(turns)}
        return row(self.rates[each.instances], late, outcome=OVER_BUDGET if late > 15 else OK, **marks)


def nets(*numbers: int) -> list[Candidate]:
    return [Candidate("net", number, None, None) for number in numbers]


def test_the_finals_are_measured_in_turn_and_losers_drop_out() -> None:
    rounds = Rounds({1: 100.0, 2: 200.0, 4: 199.0})
    rows, why = confirm(nets(2, 4, 1), [], Goal(TRAFFIC), rounds)
    assert rounds.order == [2, 4, 1, 1, 4, 2, 2, 4, 4, 2], "two rounds show that one instance is slower"
    assert [len(rows[each]["turns"]) for each in nets(2, 4, 1)] == [4, 4, 2]
    assert why == "4 rounds of the finals were measured"
    clear = Rounds({1: 100.0, 2: 200.0})
    rows, why = confirm(nets(1, 2), [], Goal(TRAFFIC), clear)
    assert len(clear.order) < 8 and "clearly behind" in why


def test_a_finalist_that_is_over_the_budget_for_certain_cannot_win() -> None:
    """In the search 4 and 8 instances looked fast enough; measured well they break the budget, and the next in line is asked."""
    goal, (eight, four, two, one) = Goal(TRAFFIC, budget_ms=15), nets(8, 4, 2, 1)
    rounds = Rounds({number: 100.0 * number for number in (8, 4, 2, 1)}, {8: 25.0, 4: 20.0, 2: 10.0, 1: 5.0})
    rows, _ = confirm([eight, four, one], [two, *nets(3)], goal, rounds)
    assert set(rounds.order) == {8, 4, 2, 1}, "one of the reserve is enough"
    winner, ranked = winner_of(rows, one, goal)
    assert winner == ranked[0] == two and goal.kept(rows[two]) is True
    said = rejected(list(rows.values()), goal)[0]
    assert "over the budget of 15 ms for certain: net, 8 instances, batching off (p95 25.00 (24.50–25.50) ms); net, 4 instances" in said
    assert "2 instances" not in said
    _, why = confirm([eight, four], [], goal, rounds)
    assert "after 2 rounds of the finals all were over the budget for certain" in why
    assert rejected(list(confirm([two], [], goal, rounds)[0].values()), goal) == []
    with pytest.raises(RequestError, match="No finalist could be measured"):
        winner_of({two: row(0, outcome=FAILED)}, one, goal)


def test_the_reserve_is_what_the_search_found_inside_the_budget() -> None:
    rates = {1: 100.0, 2: 150.0, 4: 200.0, 8: 300.0}
    late = {1: 10.0, 2: 12.0, 4: 14.0, 8: 40.0}
    goal = Goal(TRAFFIC, budget_ms=15)
    run = search(lambda each: row(rates[each.instances], late[each.instances]), {"net": Axes((1, 2, 4, 8), (None,), (None,))}, goal, 8)
    (start,) = nets(1)
    best = run.run(start)
    assert best.instances == 4
    assert run.finalists(best, start) == ([best, start], nets(2))
    assert run.finalists(best, best)[1] == []


def test_how_sure_the_budget_is_met() -> None:
    goal = Goal(TRAFFIC, budget_ms=15.0)
    assert goal.kept(row(100)) is True and goal.kept(row(100, 20)) is False
    unsure = row(100, 14.5, spread=0.2)
    assert goal.kept(unsure) is None and goal.kept(row(100) | {"latency_high_us": None}) is None, "an end that is not known"
    assert goal.kept(row(100, 30) | {"latency_high_us": None}) is False, "the other end says enough"
    assert "cannot tell" in " ".join(praise(unsure, goal, None, None, True))
    said = " ".join(regret(row(100, 16, spread=0.2), goal))
    assert "p95 ≤ 15 ms" in said and "cannot tell" in said


def test_of_those_that_cannot_be_told_apart_the_simplest_wins_and_it_is_said() -> None:
    start = Candidate("net", 2, 1, None)
    plain, fancy = Candidate("net", 4, 1, None), Candidate("net", 4, 1, 2.0, "tensorrt")

    def in_rounds(each: Candidate, rates: list[float], p95_ms: float = 10.0) -> Row:
        turns = {f"round {number}": rate for number, rate in enumerate(rates)}
        return row(sum(rates) / 4, p95_ms, turns=turns, candidate=str(each), as_found=each == start)

    chance = {fancy: in_rounds(fancy, [203, 197, 204, 200]), plain: in_rounds(plain, [200, 199, 201, 198])}
    chance[start] = in_rounds(start, [100, 101, 99, 100])
    winner, ranked = winner_of(chance, start, Goal(TRAFFIC))
    assert winner == plain and ranked == [fancy, plain, start]
    said = " ".join(praise(chance[plain], Goal(TRAFFIC), chance[start], chance[fancy], told_apart=False))
    assert (
        f"It cannot be told from {fancy}, so the simpler one was taken." in said and "Seen from the configuration as found: Faster" in said
    )
    assert winner_of(chance | {fancy: in_rounds(fancy, [260, 255, 262, 258])}, start, Goal(TRAFFIC))[0] == fancy
    # What is there already is the simplest of all, but for a budget that it does not keep.
    alike = {plain: in_rounds(plain, [102, 99, 103, 101]), start: in_rounds(start, [100, 101, 99, 100])}
    assert winner_of(alike, start, Goal(TRAFFIC))[0] == start
    goal = Goal(TRAFFIC, budget_ms=15)
    assert winner_of(alike | {start: in_rounds(start, [100, 101, 99, 100], 20.0)}, start, goal)[0] == plain


def test_ok_never_stands_beside_a_latency_over_the_budget() -> None:
    bench = Bench(None, Goal(TRAFFIC, budget_ms=20), {}, {}, Progress(""))  # type: ignore[arg-type]

    def outcome(each: Row) -> str:
        return bench._judged(each)[0]

    perhaps = row(100, 23.3, spread=0.3)
    assert bench._judged(perhaps) == (UNSURE, "23.3 ms")
    assert outcome(row(100, 23.3, spread=0.01)) == OVER_BUDGET
    assert outcome(row(100, 19.9, spread=0.3)) == OK
    # A short look of few requests knows no interval.
    unknown = {"latency_low_us": None, "latency_high_us": None}
    assert outcome(perhaps | unknown) == UNSURE and outcome(row(100, 40.0) | unknown) == OVER_BUDGET


# --- the files ----------------------------------------------------------------------------------------------------------


def test_the_winners_file_keeps_what_was_written(tmp_path: Path) -> None:
    text = '# mine\nname: "net"\nbackend: "onnxruntime"\nmax_batch_size: 64  # enough\ndynamic_batching { }\n'
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "config.pbtxt").write_text(text)
    best = Candidate("net", 4, 1, 2.0, "tensorrt")
    written = found().written(best, TRAFFIC, tmp_path, "found by a test")
    assert written.startswith('# found by a test\nname: "net"\n')
    assert "pinned" not in written
    new = parse(written)
    assert (new.backend, new.max_batch_size) == ("onnxruntime", 64)
    assert [(group.count, group.name) for group in new.instance_group] == [(4, "")]
    assert new.parameters["intra_op_thread_count"].string_value == "1"
    assert new.dynamic_batching.max_queue_delay_microseconds == 2000
    assert new.optimization.execution_accelerators.gpu_execution_accelerator[0].name == "tensorrt"
    off = parse(found().written(Candidate("net", 1, 1, None), TRAFFIC, tmp_path, ""))
    assert not off.HasField("dynamic_batching")
    assert not off.HasField("optimization")
    alone = parse(found().written(best, TRAFFIC, None, ""))
    assert alone.max_batch_size == 64
