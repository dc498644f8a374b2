"""Sweeps on a real server: every measured point is kept, whatever happens."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from helpers import paths
from helpers.errors import CourseError, InputError, ModelError, RequestError
from helpers.measuring import measure as measuring
from helpers.measuring.measure import sweep
from helpers.measuring.statistics import verdict
from helpers.measuring.table import COLUMNS, Row, Rows, plain, rows_of
from helpers.paths import append_line, read_lines
from helpers.server import Server, launch_server
from tests.support.processes import PATIENCE_S, wait_until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short windows, and one warm-up at each point."""
    monkeypatch.setenv("COURSE_QUICK", "1")
    monkeypatch.setattr(measuring, "WARM_UP_MS", 50)
    monkeypatch.setattr(measuring, "QUICK_WINDOW_S", (0.05, 2.0))


@pytest.fixture
def small(free_base_port: Callable[[], int], tmp_path: Path) -> Iterator[Server]:
    """A server of its own with add_sub, so that a test may kill it."""
    repository = tmp_path / "models"
    shutil.copytree(paths.models_dir() / "add_sub", repository / "add_sub", ignore=shutil.ignore_patterns("__pycache__"))
    with launch_server(repository, base_port=free_base_port(), name="sweeps") as running:
        yield running


def lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_points_and_their_file(models_server: Server, tmp_path: Path) -> None:
    rows = sweep(models_server, "double", (1, 4), lengths={"X": 8}, output=tmp_path)
    assert rows[["batch", "concurrency"]].values.tolist() == [[1, 1], [4, 1]] and rows["shapes"].tolist() == ["X:8", "X:8"]
    assert rows.attrs["path"] == str(tmp_path / "sweep.jsonl")
    # What others measured before is kept.
    more = sweep(models_server.grpc_url, "double", (4,), lengths={"X": 8}, output=tmp_path)
    stored = Rows.of(read_lines(tmp_path / "sweep.jsonl"))
    assert stored["time"].tolist() == [*rows["time"], *more["time"]]
    assert "double" in repr(stored) and "<table>" in stored._repr_html_()
    assert pd.read_json(tmp_path / "sweep.jsonl", lines=True)["throughput_infer_per_s"].tolist() == pytest.approx(
        stored["throughput_infer_per_s"].tolist()
    )


def test_models_are_measured_in_turn_at_each_load(models_server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COURSE_QUICK")
    both = sweep(models_server, ["double", "classes"], (1,), lengths={"X": 8}, output=tmp_path)
    assert both["model"].tolist() == ["double", "classes"]
    seen = verdict(both.iloc[0], both.iloc[1])
    assert seen.pairs == measuring.TURNS, "pair by pair"


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ({"models": "double", "batches": (1, 8, 16)}, InputError, r"batch=8 was given for 'double'.*from 1 to 4"),
        ({"models": "double", "batches": (5,)}, InputError, "batch=5 was given"),
        ({"models": ["double", "add_sub"], "batches": (1, 2)}, InputError, "batch=2 was given for 'add_sub'"),
        ({"models": "double", "batches": (0,)}, InputError, "batch=0 was given"),
        ({"models": ["double", "nosuch"], "batches": (1,)}, ModelError, "'nosuch' is not loaded"),
        ({"models": "double", "batches": (1,), "lengths": None}, InputError, "axis of any length"),
    ],
)
def test_refused_before_anything_runs(models_server: Server, tmp_path: Path, arguments: dict, kind: type[CourseError], words: str) -> None:
    with pytest.raises(kind, match=words):
        sweep(models_server, output=tmp_path / "out", **{"lengths": {"X": 8}, **arguments})
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_server_that_dies_loses_no_measured_point(small: Server, tmp_path: Path) -> None:
    table = tmp_path / "out" / "sweep.jsonl"
    pid = small.pid
    assert pid is not None

    def kill_after_the_first_point() -> None:
        wait_until(lambda: lines(table) >= 1)
        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill_after_the_first_point)
    killer.start()
    with pytest.raises(RequestError):
        sweep(small, "add_sub", (1,), (1, 2, 3, 4, 5, 6), output=tmp_path / "out")
    killer.join()
    kept = Rows.of(read_lines(table))
    assert 1 <= len(kept) < 6 and (kept["throughput_infer_per_s"] > 0).all()


@pytest.mark.nightly
def test_the_command_interrupted_and_to_its_end(models_server: Server, tmp_path: Path) -> None:
    table = tmp_path / "sweep.jsonl"
    words = ["sweep", "-m", "add_sub", "-u", models_server.grpc_url, "-c", "1", "2", "3", "4", "--output", str(tmp_path)]
    whole: dict[str, Any] = {"cwd": paths.root(), "env": {**os.environ, "COURSE_QUICK": "1"}, "text": True, "start_new_session": True}
    with subprocess.Popen([sys.executable, "-m", "helpers", *words], stderr=subprocess.PIPE, **whole) as interrupted:
        wait_until(lambda: lines(table) >= 1)
        interrupted.send_signal(signal.SIGINT)
        _, errors = interrupted.communicate(timeout=PATIENCE_S)
    assert interrupted.returncode == 130 and "Traceback" not in errors, errors
    kept = read_lines(table)
    assert 1 <= len(kept) < 4
    assert subprocess.run([sys.executable, "-m", "helpers", *words], check=True, **whole).returncode == 0
    assert read_lines(table)[: len(kept)] == kept and lines(table) == len(kept) + 4
    assert (tmp_path / "add_sub.png").stat().st_size > 10_000


# --- without a server ------------------------------------------------------------------------------------------------------


def row(**values: object) -> dict:
    return dict.fromkeys(COLUMNS) | {"model": "m", "batch": 1, "throughput_infer_per_s": 10.5, "stable": True, "note": "", **values}


def test_rows_survive_the_file(tmp_path: Path) -> None:
    rows = [row(concurrency=4, queue_us=0.0, note="±3 %, so so"), row(stable=False, latency_p95_us=1e6, cpu='A "B", 2 cores')]
    for each in (rows[0], plain(Row.of(rows[1]))):
        append_line(tmp_path / "a" / "sweep.jsonl", each)
    back = read_lines(tmp_path / "a" / "sweep.jsonl")
    assert back == rows
    assert back[0]["queue_us"] == 0.0 and back[1]["queue_us"] is None and isinstance(back[0]["batch"], int)
    # And through pandas, where a number that is missing is not a number.
    assert rows_of(Rows.of(rows)) == rows
    assert read_lines(tmp_path / "none.jsonl") == []


def test_half_a_row_takes_no_other_along(tmp_path: Path) -> None:
    """A disk that is full, or a process that is killed, may leave half a line."""
    table = tmp_path / "sweep.jsonl"
    append_line(table, row())
    with table.open("a") as file:
        file.write('{"model": "m", "ba')
    append_line(table, row(batch=3))
    assert [each["batch"] for each in read_lines(table)] == [1, 3]


def test_two_notebooks_add_rows_at_once(tmp_path: Path) -> None:
    def add(batch: int) -> None:
        for _ in range(50):
            append_line(tmp_path / "sweep.jsonl", row(batch=batch))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4)))
    assert sorted(each["batch"] for each in read_lines(tmp_path / "sweep.jsonl")) == [batch for batch in range(4) for _ in range(50)]
