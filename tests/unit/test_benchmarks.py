"""What the benchmarks say follows from their figures, and their report from their table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import compare, report, run
from benchmarks.compare import Result, figure, in_turn, ratio
from helpers.errors import SetupError


def test_ways_take_turns_and_change_their_order() -> None:
    order: list[str] = []
    found = in_turn(3, lambda: order.append("a") or 1.0, lambda: order.append("b") or 2.0)
    assert order == ["a", "b", "b", "a", "a", "b"] and found == [[1.0] * 3, [2.0] * 3]


def test_a_ratio_is_of_pairs_and_the_same_seen_from_the_other_side() -> None:
    # The machine became half as fast meanwhile: pairs do not mind.
    there = ratio("case", "what", [200.0, 100.0, 50.0], [100.0, 50.0, 25.0], "≥ 2")
    assert there.value == pytest.approx(2) and there.spread == pytest.approx(0, abs=1e-9) and there.verdict() == "kept"
    ours, theirs = [110.0, 90.0, 100.0], [50.0, 50.0, 50.0]
    one, other = ratio("case", "what", ours, theirs), ratio("case", "what", theirs, ours)
    assert one.value * other.value == pytest.approx(1)
    assert one.spread and other.spread and one.spread / one.value == pytest.approx(other.spread / other.value)


@pytest.mark.parametrize(
    ("value", "spread", "goal", "expected"),
    [
        (0.98, 0.005, "≥ 0.97", "kept"),
        (0.9, 0.005, "≥ 0.97", "missed by 0.07"),
        (0.96, 0.02, "≥ 0.97", "cannot tell"),
        (1.2, None, "≤ 1.15", "missed by 0.05"),
        (1.2, None, "", ""),
    ],
)
def test_a_goal_is_missed_only_where_the_interval_says_so(value: float, spread: float | None, goal: str, expected: str) -> None:
    assert Result("case", "what", value, spread, goal=goal).verdict() == expected


def test_results_come_back_from_the_table_as_they_were(tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    table.write_text(compare.TABLE.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    kept = [figure("start", "add_sub READY", [1.5, 1.7], "s", "≤ 3"), Result("embedded", 'a "name", with a comma', 0.5)]
    compare.append(kept, table)
    first, second = compare.read(table)
    assert (first.value, first.unit, second) == (1.6, "s", kept[1])
    assert first.spread == pytest.approx(kept[0].spread, rel=1e-4)


def test_the_report_is_made_from_the_table_and_shows_the_newest() -> None:
    assert report.README.read_text(encoding="utf-8") == report.document(compare.read()), "type: python -m benchmarks.report"
    newer = Result("start", "add_sub READY", 1.2, 0.1, "s", "≤ 3", date="2099-01-01", commit="abcdef0", machine="a new machine")
    text = report.document([*compare.read(), newer])
    assert "| add_sub READY | 1.2 ± 0.1 s | ≤ 3 | kept |" in text and "1.6 s" not in text.split("## Start")[1].split("##")[0]


def test_every_kept_result_names_its_machine_its_date_and_a_commit() -> None:
    for result in compare.read():
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", result.date) and re.fullmatch(r"[0-9a-f]{7}", result.commit)
        assert re.search(r"\d+ cores", result.machine) and "ONNX Runtime" in result.machine


def test_a_program_ends_with_the_paragraph_of_an_error_and_no_traceback() -> None:
    def fails() -> None:
        raise SetupError("There is no GPU.", "Expected one.")

    for program, status in ((fails, "There is no GPU. Expected one."), (lambda: 3, 3), (lambda: None, None)):
        with pytest.raises(SystemExit) as ended:
            run(program)
        assert ended.value.code == status
