"""The parts of the search that need no server: combinations and configurations, the strategy on known answers, the finals, the files."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from helpers.errors import ModelError, RequestError
from helpers.measuring.table import COLUMNS
from helpers.repository.syntax import parse
from helpers.tuning.search import (
    FAILED,
    OFF,
    OK,
    ON,
    OVER_BUDGET,
    UNSURE,
    Candidate,
    Found,
    Goal,
    Row,
    Search,
    confirm,
    judged,
    winner_of,
)

GOAL = Goal(8, 4)
ONNX: dict[str, Any] = {
    "name": "net",
    "backend": "onnxruntime",
    "max_batch_size": 64,
    "instance_group": [{"name": "net", "kind": "KIND_CPU", "count": 2}],
    "dynamic_batching": {"preferred_batch_size": [50], "max_queue_delay_microseconds": 0, "preserve_ordering": True},
    "parameters": {"inter_op_thread_count": {"string_value": "1"}},
    "optimization": {"input_pinned_memory": {"enable": True}},
}


def found(config: dict[str, Any] | None = None, goal: Goal = GOAL, cores: int = 4, *, embedded: bool = True) -> Found:
    return Found.of(ONNX if config is None else config, goal, cores, embedded=embedded)


def model(instances: tuple[int, ...] = (1, 2, 4), cores: int | None = 4, *, batches: bool = False) -> Found:
    """One whose values to choose from are given."""
    return Found({"backend": "onnxruntime", "max_batch_size": 64}, Candidate(1, cores and 1), instances, cores, batches)


def row(rate: float, p95_ms: float = 10.0, *, outcome: str = OK, waits: float = 0.5, spread: float = 0.02, **others: Any) -> Row:
    """A row as the server would give it: three windows of 60 requests, with a relative half width of both figures."""
    latency = {f"latency_p{each}_us": 1000 * p95_ms for each in (50, 90, 95, 99)}
    latency |= {"latency_low_us": 1000 * p95_ms * (1 - spread), "latency_high_us": 1000 * p95_ms * (1 + spread)}
    seen = {"queue_share": waits, "stable": True}
    numbers = {"throughput_infer_per_s": rate, "throughput_spread_infer_per_s": rate * spread, "windows": 3, "requests": 180}
    about = {"reason": "why", "stage": "search", "candidate": "it", "as_found": False}
    return {**dict.fromkeys(COLUMNS), "model": "net", "outcome": outcome, **numbers, **latency, **seen, **about, **others}


# --- combinations and configurations ------------------------------------------------------------------------------------


def test_a_configuration_is_a_place_among_the_combinations() -> None:
    assert found().place == Candidate(2, 2, ON)
    # A container's ONNX Runtime gives every instance all cores.
    assert found(embedded=False).place.threads == 4
    two = {"intra_op_thread_count": {"string_value": "2"}}
    assert found({**ONNX, "parameters": two}, embedded=False).place.threads == 2
    assert found({"backend": "python", "instance_group": [{"count": 3}]}).place == Candidate(3, None, OFF)
    gpu = {**ONNX, "instance_group": [{"kind": "KIND_GPU", "count": 1, "gpus": [0, 1]}]}
    assert found(gpu, embedded=False).place == Candidate(2, None, ON)
    waits = {**ONNX, "dynamic_batching": {"max_queue_delay_microseconds": 1500}}
    assert found(waits).place == Candidate(2, 2, "on, waits 1.5 ms")


@pytest.mark.parametrize("candidate", [Candidate(1, 4, OFF), Candidate(4, 1, ON), Candidate(2, 1, ON)])
def test_the_configuration_of_a_combination_is_that_place(candidate: Candidate) -> None:
    config = found().config_for(candidate)
    assert found(config).place == candidate
    # What is not searched stays as it was.
    assert config["max_batch_size"] == 64
    assert config["parameters"]["inter_op_thread_count"] == {"string_value": "1"}
    assert config["optimization"]["input_pinned_memory"] == {"enable": True}
    assert config.get("dynamic_batching", {"preserve_ordering": True})["preserve_ordering"] is True


def test_a_wait_is_kept_or_taken_away() -> None:
    waiting = found({**ONNX, "dynamic_batching": {"max_queue_delay_microseconds": 1500, "preserve_ordering": True}})
    kept = waiting.config_for(replace(waiting.place, instances=4))["dynamic_batching"]
    assert kept == {"max_queue_delay_microseconds": 1500, "preserve_ordering": True}
    for batching in (OFF, ON):
        config = waiting.config_for(replace(waiting.place, batching=batching))
        assert "max_queue_delay_microseconds" not in config.get("dynamic_batching", {})
        assert ("dynamic_batching" in config) == (batching != OFF)


def test_what_was_found_is_loaded_as_it_was() -> None:
    assert found().config_for(found().place) == ONNX


def test_only_values_that_have_an_effect() -> None:
    def values(one: Found) -> tuple[Any, ...]:
        return one.instances, one.cores, one.batches

    assert values(found()) == ((1, 2, 4), 4, True)
    # One request at a time: a second instance and a batch of several have nothing to do.
    assert values(found(goal=Goal(8, 1))) == ((1,), 4, False)
    assert not found(goal=Goal(40, 4)).batches
    assert values(found(cores=3)) == ((1, 2, 3), 3, True)
    python = found({"backend": "python", "max_batch_size": 0, "instance_group": [{"count": 1}]})
    assert values(python) == ((1, 2, 4), None, False)


def test_the_cores_are_shared_out() -> None:
    one = model((1, 2, 4, 8))
    assert [one.shared_out(Candidate(number, 3)).threads for number in one.instances] == [4, 2, 1, 1]
    assert one.beside(Candidate(2, 2), 1) == Candidate(4, 1)
    assert one.beside(Candidate(3, 1), -1) == Candidate(2, 2)
    assert one.beside(Candidate(8, 1), 1) is None
    assert model(cores=None).beside(Candidate(2, None), 1) == Candidate(4, None)


# --- the strategy -------------------------------------------------------------------------------------------------------


def search(answer: Callable[[Candidate], Row], one: Found | None = None, goal: Goal = GOAL) -> Search:
    return Search(one or model(batches=True), goal, answer)


def test_instances_are_added_while_requests_wait() -> None:
    start = Candidate(1, 4)
    run = search(lambda each: row(100 * each.instances))
    assert run.run(start)[0].instances == 4
    assert Candidate(2, 2) in run.rows


def test_nobody_adds_instances_when_nobody_waits() -> None:
    start = Candidate(2, 2)
    run = search(lambda each: row(100 / each.instances, waits=0.01))
    assert run.run(start)[0] == Candidate(1, 4)
    assert all(each.instances <= 2 and each.batching == OFF for each in run.rows)
    assert any("hardly any request waits" in step for step in run.steps)


def test_threads_where_instances_may_not_be_added() -> None:
    start = Candidate(1, 1)
    run = search(lambda each: row(100 * (each.threads or 0)), model((1,)))
    assert run.run(start)[0] == Candidate(1, 4)
    crowded = search(lambda each: row(100 / (each.threads or 1)), model((4,)))
    assert crowded.run(Candidate(4, 4))[0] == Candidate(4, 1)


def test_within_the_budget_comes_first() -> None:
    """More instances are faster, but only one at a time answers in time."""
    goal = Goal(8, 4, budget_ms=15)
    run = search(lambda each: row(100 * each.instances, 10.0 * each.instances, outcome=OK), goal=goal)
    assert run.run(Candidate(4, 1))[0].instances == 1
    assert goal.rank(row(10, 14)) > goal.rank(row(100, 16)) > goal.rank(row(1000, 17)) > goal.rank(row(9, 1, outcome=FAILED))


def test_a_model_that_cannot_be_measured_at_all() -> None:
    with pytest.raises(ModelError, match="cannot be measured: why"):
        search(lambda each: row(0, outcome=FAILED)).run(Candidate(1, 1))


def test_few_of_many_combinations_are_measured() -> None:
    """Against a full grid whose answers are known: the best of it, in a quarter of its measurements and less."""
    one = model((1, 2, 4, 8), 8, batches=True)

    def answer(each: Candidate) -> Row:
        share = min(1.0, 8 / (each.instances * (each.threads or 1)))
        rate = 100 * each.instances * (each.threads or 1) ** 0.7 * share
        return row(rate * {OFF: 1.0, ON: 1.2}[each.batching])

    run = search(answer, one)
    best = run.run(Candidate(1, 8))[0]
    every = itertools.product(one.instances, (1, 2, 4, 8), (OFF, ON))
    grid = {each: answer(each)["throughput_infer_per_s"] for each in (Candidate(*values) for values in every)}
    assert grid[best] == max(grid.values())
    assert len(run.rows) <= len(grid) / 4


def test_finalists_are_those_that_the_spread_does_not_rule_out() -> None:
    rates = {1: 100.0, 2: 150.0, 4: 149.0}
    run = search(lambda each: row(rates[each.instances]), model(cores=None))
    assert run.run(Candidate(1, None)) == [Candidate(2, None), Candidate(4, None), Candidate(1, None)]


def test_finalists_over_the_budget_do_not_crowd_out_those_inside() -> None:
    late = {1: 10.0, 2: 12.0, 4: 14.0, 8: 40.0}
    goal = Goal(8, 4, budget_ms=15)

    def answer(each: Candidate) -> Row:
        return row(50.0 + 50 * each.instances, late[each.instances], outcome=OVER_BUDGET if each.instances == 8 else OK)

    run = search(answer, model((1, 2, 4, 8), None), goal)
    start = Candidate(1, None)
    assert run.run(start) == [Candidate(4, None), start]
    assert Candidate(8, None) in run.rows


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
    return [Candidate(number, None) for number in numbers]


def test_the_finals_are_measured_in_turn() -> None:
    rounds = Rounds({1: 100.0, 2: 200.0, 4: 199.0})
    rows = confirm(nets(2, 4, 1), rounds)
    assert rounds.order == [2, 4, 1, 1, 4, 2] * 2
    assert [len(rows[each]["turns"]) for each in nets(2, 4, 1)] == [4, 4, 4]


def test_a_finalist_that_fails_is_not_measured_again() -> None:
    rounds = Rounds({1: 100.0, 2: 200.0})

    def measure(each: Candidate, turn: str) -> Row:
        return rounds(each, turn) | ({"outcome": FAILED} if each.instances == 2 else {})

    rows = confirm(nets(2, 1), measure)
    assert rounds.order == [2, 1, 1, 1, 1] and rows[nets(2)[0]]["outcome"] == FAILED


def test_a_finalist_that_is_over_the_budget_for_certain_cannot_win() -> None:
    """In the search 8 instances looked fast enough; measured well they break the budget."""
    goal, (eight, two, one) = Goal(8, 4, budget_ms=15), nets(8, 2, 1)
    rounds = Rounds({number: 100.0 * number for number in (8, 2, 1)}, {8: 25.0, 2: 10.0, 1: 5.0})
    rows = confirm([eight, two, one], rounds)
    assert winner_of(rows, one, goal) == (two, two) and goal.kept(rows[two]) is True
    with pytest.raises(RequestError, match="No finalist could be measured"):
        winner_of({two: row(0, outcome=FAILED)}, one, goal)


def test_how_sure_the_budget_is_met() -> None:
    goal = Goal(8, 4, budget_ms=15.0)
    assert goal.kept(row(100)) is True and goal.kept(row(100, 20)) is False
    unsure = row(100, 14.5, spread=0.2)
    assert goal.kept(unsure) is None and goal.kept(row(100) | {"latency_high_us": None}) is None, "an end that is not known"
    assert goal.kept(row(100, 30) | {"latency_high_us": None}) is False, "the other end says enough"
    assert "It meets the budget of 15 ms on average, but its spread reaches over the budget: cannot tell." in judged(
        unsure, goal, row(0, outcome=FAILED), unsure
    )
    late = row(100, 16, spread=0.2)
    said = " ".join(judged(late, goal, late, late))
    assert "No finalist meets the goal" in said and "p95 ≤ 15 ms" in said and "cannot tell" in said


def test_of_those_that_cannot_be_told_apart_the_simplest_wins_and_it_is_said() -> None:
    start = Candidate(2, 1)
    plain, fancy = Candidate(4, 1, OFF), Candidate(4, 1, ON)

    def in_rounds(each: Candidate, rates: list[float], p95_ms: float = 10.0) -> Row:
        turns = {f"round {number}": rate for number, rate in enumerate(rates)}
        return row(sum(rates) / 4, p95_ms, turns=turns, candidate=str(each), as_found=each == start)

    chance = {fancy: in_rounds(fancy, [203, 197, 204, 200]), plain: in_rounds(plain, [200, 199, 201, 198])}
    chance[start] = in_rounds(start, [100, 101, 99, 100])
    assert winner_of(chance, start, GOAL) == (plain, fancy)
    said = " ".join(judged(chance[plain], GOAL, chance[start], chance[fancy]))
    assert f"It cannot be told from {fancy}, so the simpler one was taken." in said
    assert "Seen from the configuration as found: Faster" in said
    assert winner_of(chance | {fancy: in_rounds(fancy, [260, 255, 262, 258])}, start, GOAL) == (fancy, fancy)
    # What is there already is the simplest of all, but for a budget that it does not keep.
    alike = {plain: in_rounds(plain, [102, 99, 103, 101]), start: in_rounds(start, [100, 101, 99, 100])}
    assert winner_of(alike, start, GOAL)[0] == start
    goal = Goal(8, 4, budget_ms=15)
    assert winner_of(alike | {start: in_rounds(start, [100, 101, 99, 100], 20.0)}, start, goal)[0] == plain


def test_ok_never_stands_beside_a_latency_over_the_budget() -> None:
    goal = Goal(8, 4, budget_ms=20)

    def outcome(each: Row) -> str:
        return goal.outcome(each)[0]

    perhaps = row(100, 23.3, spread=0.3)
    assert goal.outcome(perhaps) == (UNSURE, "23.3 ms")
    assert outcome(row(100, 23.3, spread=0.01)) == OVER_BUDGET
    assert outcome(row(100, 19.9, spread=0.3)) == OK
    # A short look of few requests knows no interval.
    assert outcome(row(100, 40.0) | {"latency_low_us": None, "latency_high_us": None}) == UNSURE


# --- the files ----------------------------------------------------------------------------------------------------------


def test_the_winners_file_is_what_was_found_with_what_varies_changed() -> None:
    new = parse(found().written(Candidate(4, 1, OFF)))
    assert (new.name, new.backend, new.max_batch_size) == ("net", "onnxruntime", 64)
    assert [(group.count, group.name) for group in new.instance_group] == [(4, "")]
    assert {name: each.string_value for name, each in new.parameters.items()} == {
        "inter_op_thread_count": "1", "intra_op_thread_count": "1"
    }  # fmt: skip
    assert not new.HasField("dynamic_batching")
    assert parse(found().written(Candidate(1, 1, ON))).dynamic_batching.preserve_ordering
