"""Sweeps on a real server: every measured point is kept, whatever happens."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from helpers import paths
from helpers.errors import CourseError, InputError, ModelError, RequestError
from helpers.measuring import measure as measuring
from helpers.measuring.measure import sweep
from helpers.measuring.statistics import verdict
from helpers.measuring.table import COLUMNS, Row, Rows, append_row, folder_of, rows_of
from helpers.paths import read_lines
from helpers.server import Server, launch_server
from tests.support.processes import PATIENCE_S, wait_until


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short windows, and one warm-up at each point."""
    monkeypatch.setenv("COURSE_QUICK", "1")


@pytest.fixture
def small(free_base_port: Callable[[], int], tmp_path: Path) -> Iterator[Server]:
    """A server of its own with add_sub, so that a test may kill it."""
    repository = tmp_path / "models"
    shutil.copytree(paths.models_dir() / "add_sub", repository / "add_sub", ignore=shutil.ignore_patterns("__pycache__"))
    with launch_server(repository, base_port=free_base_port(), name="sweeps") as running:
        yield running


def lines(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_points_files_and_going_on(models_server: Server, tmp_path: Path) -> None:
    first = sweep(models_server, "double", (1, 4), lengths={"X": 8}, output=tmp_path)
    assert first[["batch", "concurrency"]].values.tolist() == [[1, 1], [4, 1]]
    assert first.attrs["path"] == str(tmp_path / "sweep.jsonl") and first.attrs["before"] == 0
    assert first["shapes"].tolist() == ["X:8", "X:8"]
    # More of it: what is there is not measured again.
    more = sweep(models_server.grpc_url, "double", (4,), (1, 2), lengths={"X": 8}, output=tmp_path)
    assert more.attrs["before"] == 1 and rows_of(more)[0]["time"] == rows_of(first)[1]["time"] and len(more) == 2
    assert lines(tmp_path / "sweep.jsonl") == 3
    # Other shapes are other points.
    other = sweep(models_server, "double", (4,), lengths={"X": 9}, output=tmp_path)
    assert other.attrs["before"] == 0
    stored = Rows.of(read_lines(tmp_path / "sweep.jsonl"))
    assert stored["time"].tolist() == [*first["time"], more["time"][1], *other["time"]]
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
        ({"models": "double", "batches": ()}, InputError, "nothing to measure"),
        ({"models": [], "batches": (1,)}, InputError, "nothing to measure"),
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
    with small.restart() as again:
        whole = sweep(again, "add_sub", (1,), (1, 2, 3, 4, 5, 6)[: len(kept) + 1], output=tmp_path / "out")
    assert whole.attrs["before"] == len(kept) and whole["time"].tolist()[:-1] == kept["time"].tolist()


def start(server: Server, output: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "helpers", "sweep", "-m", "add_sub", "-u", server.grpc_url, "-c", "1", "2", "3", "4"]
    return subprocess.Popen(
        [*command, "--output", str(output)],
        cwd=paths.root(),
        env={**os.environ, "COURSE_QUICK": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.nightly
def test_killed_and_interrupted_and_typed_again(models_server: Server, tmp_path: Path) -> None:
    table = tmp_path / "sweep.jsonl"
    killed = start(models_server, tmp_path)
    wait_until(lambda: lines(table) >= 1)
    killed.kill()
    killed.communicate()
    after_kill = read_lines(table)
    interrupted = start(models_server, tmp_path)
    wait_until(lambda: lines(table) >= len(after_kill) + 1)
    interrupted.send_signal(signal.SIGINT)
    out, errors = interrupted.communicate(timeout=PATIENCE_S)
    assert interrupted.returncode == 130 and "Traceback" not in errors, errors
    after_interrupt = read_lines(table)
    assert after_interrupt[: len(after_kill)] == after_kill and len(after_kill) < len(after_interrupt) < 4
    last = start(models_server, tmp_path)
    out, errors = last.communicate(timeout=PATIENCE_S)
    assert last.returncode == 0, errors
    assert read_lines(table)[: len(after_interrupt)] == after_interrupt and len(read_lines(table)) == 4
    assert f"{len(after_interrupt)} of 4 points were measured before" in out
    out, errors = start(models_server, tmp_path).communicate(timeout=PATIENCE_S)
    assert "4 of 4 points were measured before" in out.partition("add_sub ")[0], errors
    assert len(read_lines(table)) == 4
    assert (tmp_path / "add_sub.png").stat().st_size > 10_000


# --- without a server ------------------------------------------------------------------------------------------------------


def row(**values: object) -> dict:
    return dict.fromkeys(COLUMNS) | {"model": "m", "batch": 1, "throughput_infer_per_s": 10.5, "stable": True, "note": "", **values}


def test_rows_survive_the_file(tmp_path: Path) -> None:
    rows = [row(concurrency=4, queue_us=0.0, note="±3 %, so so"), row(stable=False, latency_p95_us=1e6, cpu='A "B", 2 cores')]
    for each in (rows[0], Row.of(rows[1])):
        append_row(tmp_path / "a" / "sweep.jsonl", each)
    back = read_lines(tmp_path / "a" / "sweep.jsonl")
    assert back == rows
    assert back[0]["queue_us"] == 0.0 and back[1]["queue_us"] is None and isinstance(back[0]["batch"], int)
    # And through pandas, where a number that is missing is not a number.
    assert rows_of(Rows.of(rows)) == rows
    assert read_lines(tmp_path / "none.jsonl") == []


def test_half_a_row_takes_no_other_along(tmp_path: Path) -> None:
    """A disk that is full, or a process that is killed, may leave half a line."""
    table = tmp_path / "sweep.jsonl"
    append_row(table, row())
    with table.open("a") as file:
        file.write('{"model": "m", "ba')
    append_row(table, row(batch=3))
    assert [each["batch"] for each in read_lines(table)] == [1, 3]


def test_two_notebooks_add_rows_at_once(tmp_path: Path) -> None:
    def add(batch: int) -> None:
        for _ in range(50):
            append_row(tmp_path / "sweep.jsonl", row(batch=batch))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(4)))
    assert sorted(each["batch"] for each in read_lines(tmp_path / "sweep.jsonl")) == [batch for batch in range(4) for _ in range(50)]


def test_folders(work: Path) -> None:
    assert folder_of("work/mine") == work / "mine"
    assert folder_of("/a/b") == Path("/a/b")


def test_a_row_of_another_load_or_machine_is_no_row_of_this_one() -> None:
    """Of a server elsewhere the processor is not known: its address tells it apart. Of one here it does not."""
    same = {"device": "CPU", "cpu": "a processor", "config": "c", "shapes": "X:8", "concurrency": 1, "url": "localhost:9001"}
    same |= {"time": "2026-01-01T00:00:00+00:00"}

    class Point:
        server, model = None, "m"

        def __init__(self, **changes: object) -> None:
            self.changes = changes

        def row(self) -> dict:
            return row(**{**same, **self.changes})

    def known(**changes: object) -> bool:
        return measuring._measured_before([row(**same), row(**{**same, "cpu": None})], Point(**changes)) is not None  # type: ignore[arg-type]

    assert known() and known(url="localhost:9004") and known(cpu=None)
    assert not known(cpu="another one") and not known(cpu=None, url="localhost:9004")
    for changes in ({"batch": 2}, {"concurrency": 2}, {"percentile": 99}, {"protocol": "http"}, {"shapes": "X:9"}, {"inputs_digest": "d"}):
        assert not known(**changes), changes
    for changes in ({"config": "d"}, {"device": "GPU"}, {"server_version": "3"}, {"perf_analyzer_version": "3"}):
        assert not known(**changes), changes


@pytest.mark.nightly
def test_what_was_measured_before_a_file_changed_is_measured_again(
    workbench: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"max_seconds": 0.1, "output": tmp_path / "sweeps"}
    assert sweep(workbench, "add_sub", **options).attrs["before"] == 0
    again = sweep(workbench, "add_sub", **options)
    assert again.attrs["before"] == 1 and "1 of 1 points were measured before (again=True measures all)" in capsys.readouterr().out
    later = time.time() + 5
    os.utime(workbench.repository / "add_sub" / "1" / "model.py", (later, later))
    assert sweep(workbench, "add_sub", **options).attrs["before"] == 0
