"""A table of experiments and its figure, and the scoreboard of a class."""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import Any

import pytest

from helpers import repository
from helpers.__main__ import main
from helpers.course import ____, scoreboard
from helpers.errors import InputError
from helpers.measuring.experiments import Experiments
from helpers.measuring.measure import TURNS
from helpers.server import Server
from tests.support.measured_rows import row

MODEL = "particlenet_AK4"


def table_of(**figures: tuple[float, float, float, float]) -> Experiments:
    """A table with rows that were measured elsewhere in time: throughput, its half width, p95 and its half width."""
    table = Experiments(None, MODEL, batch=4, concurrency=1, budget=1.5)
    for name, each in figures.items():
        table._add(name.replace("_", " "), row(each), executed_batch=1.0)
    return table


@pytest.mark.nightly
def test_experiments_on_a_server_become_rows_and_one_of_a_name_takes_the_place_of_the_other(
    workbench: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    table = Experiments(workbench, "add_sub", concurrency=2, precision=0.3)
    table.measure("baseline")
    repository.change_config(workbench.repository / "add_sub", instance_group=[{"count": 2, "kind": "KIND_CPU"}])
    workbench.reload("add_sub")
    assert table.measure("2 instances", over="baseline") is table
    again = table["2 instances"]["time"], table["2 instances"]["throughput_infer_per_s"]
    table.measure("2 instances")
    assert [each["experiment"] for each in table.rows] == ["baseline", "2 instances"]
    assert (table["2 instances"]["time"], table["2 instances"]["throughput_infer_per_s"]) != again
    assert table["baseline"]["executed_batch"] == 1
    seen = table.judged("2 instances")
    assert seen.pairs == TURNS, "measured in turn with what was changed"
    assert [group["count"] for group in workbench.config("add_sub")["instance_group"]] == [2], "and the server keeps what it had"
    assert table["baseline"]["concurrency"] == 2
    assert [line["instances"] for line in table._table()] == [1, 2], "as the server reports them, whatever the experiment is called"
    with pytest.raises(InputError, match=r"no experiment '3 instances'.*'baseline' and '2 instances'"):
        table["3 instances"]
    for some in (table, Experiments(workbench, "add_sub")):
        with pytest.raises(InputError, match="no experiment '1 thread'"):
            some.measure("2 threads", over="1 thread")
    assert len(table.rows) == 2, "nothing was measured for a reference that is not there"
    table.measure("again", over="2 instances")
    assert table["again"]["over"] == "2 instances"


def test_a_change_is_compared_with_what_was_changed() -> None:
    """A stanza that does nothing, put on top of two instances, gains nothing, however much faster than the first they are."""
    table = table_of(baseline=(200, 5, 19000, 900), two_instances=(390, 5, 9000, 300), stanza=(392, 5, 9000, 300))
    table._rows["stanza"]["over"] = "two instances"
    for name, rate in (("two instances", 388.5), ("stanza", 390.5)):
        table._rows[name]["turns"] = {f"turn {turn}": rate + turn for turn in range(4)}
    lines = table._table()
    assert [line["over"] for line in lines] == ["", "baseline", "two instances"]
    assert [line["verdict"] for line in lines] == ["the first", "faster", "the same"]
    assert lines[2]["gain"].startswith("×1.01 (")


def test_the_table_compares_with_the_first() -> None:
    table = table_of(baseline=(200, 5, 19000, 900), batching=(400, 8, 9000, 300), broken=(201, 40, 18000, 900))
    lines = table._table()
    assert [line["verdict"] for line in lines] == ["the first", "faster", "cannot tell"]
    assert lines[1]["gain"].startswith("×2.00 (")
    assert "budget p95 ≤ 28.5 ms" in table._repr_html_()


# --- the scoreboard --------------------------------------------------------------------------------------------------------


def best_of(throughput: float, **changes: Any) -> dict[str, Any]:
    return row((throughput, 5, 12000, 300), **changes)


def board_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The scoreboard of this account in a class's folder."""
    monkeypatch.setenv("COURSE_SCOREBOARD", str(folder))
    return folder / f"{getpass.getuser()}.json"


def test_the_best_of_each_name_stays_and_a_class_is_one_board(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    baseline = row((200, 5, 9000, 300))
    mine = board_in(tmp_path / "a", monkeypatch)
    scoreboard.enter(baseline, best_of(300, instances=2), "Ada")
    board = scoreboard.enter(baseline, best_of(250), " Ada  ")
    assert [(entry["name"], round(entry["gain"], 6)) for entry in board] == [("Ada", 1.5)]
    assert board[0]["how"].startswith("instances 2, batch")
    theirs = board_in(tmp_path / "b", monkeypatch)
    scoreboard.enter(baseline, best_of(420), "Emmy")
    scoreboard.enter(baseline, best_of(250), "Ada")
    both = scoreboard.read(mine, theirs)
    assert [(entry["name"], round(entry["gain"], 6)) for entry in both] == [("Emmy", 2.1), ("Ada", 1.5)], "of each name the best"
    assert json.loads(mine.read_text())[0]["p95 (ms)"] == 12.0
    assert json.loads(mine.read_text())[0]["p95 / baseline"] == round(12 / 9, 3)
    assert main(["scoreboard", str(mine), str(theirs)]) == 0
    printed = capsys.readouterr().out
    assert printed.index("Emmy") < printed.index("Ada")


def test_an_entry_over_the_budget_is_marked_and_stands_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    baseline = row((200, 5, 9000, 300))
    board_in(tmp_path, monkeypatch)
    scoreboard.enter(baseline, row((900, 5, 20000, 300), batch=16), name="Fast")
    board = scoreboard.enter(baseline, best_of(300, batch=4, concurrency=2))
    assert [entry["name"] for entry in board] == [getpass.getuser(), "Fast"]
    assert "batch 4, concurrency 2" in board[0]["how"] and [entry["in the budget"] for entry in board] == ["yes", "no"]


@pytest.mark.parametrize("text", ["{", '{"name": "Ada"}', '[{"name": "Ada"}]', '[{"name": 1, "gain": 2}]'])
def test_what_is_no_scoreboard_is_said_so(tmp_path: Path, text: str) -> None:
    file = tmp_path / "board.json"
    file.write_text(text)
    with pytest.raises(InputError, match="scoreboard"):
        scoreboard.read(file)


def test_no_entry_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = board_in(tmp_path, monkeypatch)
    assert scoreboard.enter(row(), ____) == [] and not file.exists()
    with pytest.raises(InputError, match="cannot be read"):
        scoreboard.read(tmp_path / "nowhere.json")
