"""The dashboard on the real server: it shows what happens, ends with the server, is replaced when its cell runs again, leaks nothing."""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from helpers import Client, paths
from helpers.errors import ModelError
from helpers.metrics import dashboard as dashboards
from helpers.metrics import scrape
from helpers.metrics.dashboard import INTERVAL_S, WINDOW_S, Dashboard, dashboard
from helpers.server import Server, launch_server
from tests.support.processes import PATIENCE_S, alive, wait_until


@pytest.fixture
def own_server(free_base_port: Callable[[], int]) -> Iterator[Server]:
    """A server that a test may stop; inference needs its secret."""
    options = {"load": ["add_sub"], "name": "dashboard", "private": True}
    with launch_server(paths.models_dir(), base_port=free_base_port(), **options) as running:
        yield running


@pytest.fixture
def made() -> Iterator[list[Dashboard]]:
    """Dashboards to stop at the end."""
    boards: list[Dashboard] = []
    yield boards
    for board in boards:
        board.stop()


def _value(board: Dashboard, model: str, field: str) -> str:
    """A number as it is shown."""
    row = re.search(rf'<tr data-model="{model}">.*?</tr>', board.controls.table.value, re.DOTALL)
    found = row and re.search(rf'data-quantity="{field}"><b>([^<]*)</b>', row[0])
    assert found, board.controls.table.value
    return found[1]


def _state(board: Dashboard) -> str:
    return re.sub(r"<[^>]+>", "", board.controls.state.value)


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("course-")]


def _loads() -> list[int]:
    return [int(child.pid or 0) for child in multiprocessing.active_children() if child.name == "course-load"]


@pytest.mark.nightly  # each day notebook 06's sliders are moved in a browser
def test_it_shows_the_load_and_the_sliders_change_it(models_server: Server, made: list[Dashboard]) -> None:
    board = dashboard(models_server, load="double")
    made.append(board)
    wait_until(lambda: len(board.history) > 8 and float(_value(board, "double", "requests_per_s")) > 0)
    assert board.running and "Running" in _state(board)
    assert (_value(board, "double", "inferences_per_execution"), _value(board, "add_sub", "inferences_per_execution")) == ("1", "–")
    assert float(_value(board, "add_sub", "requests_per_s")) == 0
    board.controls.concurrency.value = 4
    board.controls.batch.value = 4
    wait_until(lambda: float(_value(board, "double", "inferences_per_execution")) >= 4)

    def only_batches_of_four() -> bool:
        last = board.history[-1][1]["double"]
        return last["requests_per_s"] > 0 and last["throughput_infer_per_s"] == pytest.approx(4 * last["requests_per_s"])

    wait_until(only_batches_of_four)
    assert board.controls.batch.max == 4 and "0 failed" in board.controls.load_state.value
    board.controls.concurrency.value = 0
    wait_until(lambda: float(_value(board, "double", "requests_per_s")) == 0)


def test_all_loaded_models_are_shown(models_server: Server, made: list[Dashboard]) -> None:
    board = dashboard(models_server)
    made.append(board)
    assert "application/vnd.jupyter.widget-view+json" in board._repr_mimebundle_(), "it shows itself in a cell"
    wait_until(lambda: len(board.history) > 0 and "<tr data-model" in board.controls.table.value)
    assert re.findall(r'<tr data-model="(\w+)"', board.controls.table.value) == ["add_sub", "classes", "double", "slow", "strings", "types"]


def test_numbers_are_those_of_the_server(models_server: Server, made: list[Dashboard]) -> None:
    board = dashboard(models_server)
    made.append(board)
    wait_until(lambda: len(board.history) > 5)
    before, _ = board.history[-1]
    with Client(models_server) as client:
        inputs = client.example("double", 3)
        for _ in range(60):
            client.infer("double", inputs)
    wait_until(lambda: board.history[-1][0] > before + WINDOW_S + 1)
    # Every moment is in the windows of some readings in a row, so the rates, each times the time since the last, give the number of
    # requests back; roughly, where a busy machine reads late. A rate for another time, such as one update, would be a factor of four.
    seen = [(steady_s, models["double"]) for steady_s, models in board.history if steady_s > before]
    since = np.diff([before, *(steady_s for steady_s, _ in seen)])
    requests = sum(row["requests_per_s"] * passed for (_, row), passed in zip(seen, since, strict=True))
    inferences = sum(row["throughput_infer_per_s"] * passed for (_, row), passed in zip(seen, since, strict=True))
    assert 30 < requests < 120
    assert inferences == pytest.approx(3 * requests)


def test_stop_ends_threads_and_load(models_server: Server, made: list[Dashboard], monkeypatch: pytest.MonkeyPatch) -> None:
    before = _threads()
    board = dashboard(models_server, load="double")
    made.append(board)
    assert board.load is not None
    wait_until(lambda: board.load is not None and board.load.sent > 5)
    (load,) = _loads()
    may_stop, stop_load = threading.Event(), board.load.stop
    monkeypatch.setattr(board.load, "stop", lambda: (may_stop.wait(PATIENCE_S), stop_load())[1])
    board.controls.stop.click()
    assert not may_stop.is_set() and alive(load), "a callback keeps nobody waiting"
    may_stop.set()
    wait_until(lambda: "Stopped" in _state(board))
    assert not alive(load) and board.controls.stop.disabled
    wait_until(lambda: not board.running and _threads() == before)
    said = _state(board)
    board.stop()
    assert _state(board) == said


def test_running_the_cell_again_replaces_it(models_server: Server, made: list[Dashboard]) -> None:
    threads = len(_threads())
    first = dashboard(models_server, load="double")
    second = dashboard(models_server)
    made += [first, second]
    assert (first.running, second.running) == (False, True)
    assert "Stopped" in _state(first)
    assert _loads() == [] and len(_threads()) <= threads + 1


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_it_ends_with_the_server_and_says_so(own_server: Server, made: list[Dashboard], how: str) -> None:
    board = dashboard(own_server, load="add_sub")
    made.append(board)
    wait_until(lambda: len(board.history) > 1)
    (load,) = _loads()
    if how == "stopped":
        own_server.stop()
    else:
        assert own_server.pid is not None
        os.kill(own_server.pid, 9)
    wait_until(lambda: not board.running and "Stopped" in _state(board))
    assert ("The server was stopped." if how == "stopped" else "The server died: server.log()") in _state(board)
    assert not alive(load)
    assert board.controls.table.value.count("<tr data-model") == 1, "the last numbers stay"


@pytest.mark.slow
def test_a_server_of_somebody_else_that_goes_away_and_returns(models_server: Server, own_server: Server, made: list[Dashboard]) -> None:
    stranger = Server(own_server.http, own_server.grpc, own_server.metrics)
    board, other = dashboard(stranger), dashboard(models_server)
    made += [board, other]
    wait_until(lambda: len(board.history) > 0)
    with own_server.restart():
        wait_until(lambda: _state(board) == "Running.")
        readings = len(board.history)
        wait_until(lambda: len(board.history) > readings)
        assert board.running and other.running, "two servers have two dashboards"
    wait_until(lambda: "No server answers" in _state(board))
    assert board.running, "it may return"


def test_a_fault_of_ours_ends_the_reading_with_words(models_server: Server, made: list[Dashboard], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(dashboards, "page", fail)
    board = dashboard(models_server)
    made.append(board)
    wait_until(lambda: not board.running)
    wait_until(lambda: "The dashboard failed: ZeroDivisionError: of ours" in _state(board))


def test_unknown_models(models_server: Server) -> None:
    with pytest.raises(ModelError, match="'double'"):
        dashboard(models_server, load="doubel")
    assert "course-dashboard" not in _threads()


@pytest.mark.slow
def test_many_updates_leak_nothing(models_server: Server, made: list[Dashboard]) -> None:
    board = Dashboard(models_server)
    made.append(board)
    wait_until(lambda: len(board.history) > 0)
    board.stop()
    _, rows = board.history[-1]

    def run(updates: int, start: float) -> None:
        for step in range(updates):
            board._update((start + step * INTERVAL_S, {"double": rows["double"]}))

    run(130, 0)
    gc.collect()
    objects = len(gc.get_objects())
    run(250, 100)
    tracemalloc.start()
    try:
        run(130, 400)
        before, _ = tracemalloc.get_traced_memory()
        run(130, 500)
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(board.history) == 120
    assert after - before < 50_000, f"{after - before} bytes more after the history was filled once more"
    assert len(gc.get_objects()) - objects < 500


@pytest.mark.slow
def test_many_readings_and_dashboards_leave_nothing(models_server: Server) -> None:
    dashboard(models_server, "double").stop()
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(100):
        scrape(models_server)
    for _ in range(2):
        board = dashboard(models_server, "double")
        time.sleep(0.1)
        board.stop()
    wait_until(lambda: threading.active_count() <= before[1])
    assert len(os.listdir("/proc/self/fd")) <= before[0] + 2
    assert _loads() == []
