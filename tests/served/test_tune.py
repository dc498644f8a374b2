"""The search on a real server: what it finds, what it leaves behind, what becomes of it when something stops it."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from helpers.cli import main
from helpers.errors import InputError, ModelError
from helpers.measuring import measure as measuring
from helpers.server import Server, connect, launch_server
from helpers.tuning import search as tuning
from helpers.tuning.search import Tuned, tune
from tests.support import tune_models
from tests.support.processes import wait_until

TRAFFIC = {"concurrency": 4}


@pytest.fixture(scope="module", autouse=True)
def short_windows() -> Iterator[None]:
    """Short measurements: what these tests look at is twice as fast or as slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "WARM_UPS", 2)
        patch.setattr(measuring, "TURN_WINDOW_S", (0.15, 0.5))
        patch.setattr(measuring, "WINDOW_REQUESTS", 8)
        patch.setattr(tuning, "ROUNDS", 3)
        # On any machine up to four instances are tried.
        patch.setattr(os, "sched_getaffinity", lambda _: range(4))
        yield


@pytest.fixture
def one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """One round of finals: for tests of what is tried, and not of who wins."""
    monkeypatch.setenv("COURSE_QUICK", "1")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository."""
    return tune_models.repository(tmp_path_factory.mktemp("tune") / "models")


@pytest.fixture(scope="module")
def server(models: Path, free_base_port: Callable[[], int]) -> Iterator[Server]:
    """Serves it; only ``nap`` is loaded. Inference needs the server's secret, as where other people use the machine."""
    with launch_server(models, load=["nap"], base_port=free_base_port(), name="tune", private=True) as running:
        yield running


@pytest.fixture(scope="module")
def before(server: Server) -> dict[str, Any]:
    """The configuration before any search."""
    return server.config("nap")


@pytest.fixture(scope="module")
def result(server: Server, before: dict[str, Any]) -> Tuned:
    """One whole search, from one instance; four are refused by the model itself."""
    # On a busy machine a short look may see two instances as slow as one, and four are not tried then: a later search sees it.
    for _ in range(5):
        found = tune(server, "nap", budget_ms=10_000, **TRAFFIC)
        if any(row["outcome"] == "failed" for row in found.rows):
            break
    return found


def _words(row: Mapping[str, Any]) -> str:
    return f"{row['instances']:.0f} instance{'s' * (row['instances'] > 1)}"


@pytest.mark.nightly
def test_a_model_that_sleeps_gets_two_instances(result: Tuned) -> None:
    assert result.best is not None
    assert result.best["instances"] == 2
    assert result.best["rounds"] >= 2
    first = next(row for row in result.rows if row["as_found"])
    assert result.best["throughput_infer_per_s"] > first["throughput_infer_per_s"]
    assert "Seen from the configuration as found:" in str(result)


@pytest.mark.slow
def test_a_refused_configuration_is_named_and_the_search_goes_on(result: Tuned) -> None:
    refused = [row for row in result.rows if row["outcome"] == "failed"]
    assert [row["instances"] for row in refused] == [4]
    assert refused[0]["throughput_infer_per_s"] is None
    assert "beds for two" in refused[0]["reason"]
    assert "4 instances, batching off (failed: " in str(result)


def test_what_it_says(result: Tuned) -> None:
    # Two instances sleep at once; a busy machine may not show it, and then the simpler one is the best.
    assert result.best is not None
    assert f"Best: {_words(result.best)}, batching off" in str(result)
    assert "It meets the budget of 10000 ms for certain." in str(result)
    assert "Tried 3 combinations of nap, in " in str(result)
    assert "<table>" in result._repr_html_()
    assert {row["stage"] for row in result.rows} == {"search", "final"}


def test_the_server_is_left_as_found(result: Tuned, server: Server, before: dict[str, Any]) -> None:
    assert server.config("nap") == before
    assert [state.state for state in server.models() if state.name == "nap"] == ["READY"]
    assert server.statistics("nap")["inference_count"] == 0 or server.statistics("nap")["inference_stats"]["fail"]["count"] == 0


def test_the_winners_file_loads(result: Tuned, server: Server, before: dict[str, Any]) -> None:
    assert result.best is not None and result.config_path is not None
    text = result.config_path.read_text()
    assert text.startswith(f"# Found by a search for requests of batch 1, 4 under way, p95 ≤ 10000 ms:\n# {_words(result.best)}")
    try:
        server.load("nap", config=text)
        assert [group["count"] for group in server.config("nap")["instance_group"]] == [result.best["instances"]]
    finally:
        server.load("nap", config=before)


@pytest.mark.nightly
def test_a_budget_that_nothing_meets(result: Tuned, server: Server, before: dict[str, Any]) -> None:
    # Nothing is faster than its own sleep.
    hopeless = tune(server, "nap", budget_ms=1000 * tune_models.NAP_S / 2, **TRAFFIC)
    assert hopeless.best is None and hopeless.config_path is None
    assert "No finalist meets the goal: requests of batch 1, 4 under way, p95 ≤ 10 ms." in str(hopeless)
    assert re.search(r"The closest is [12] instances?", str(hopeless))
    # Whether four instances are tried, which the model refuses, depends on what the two before them showed.
    assert {row["outcome"] for row in hopeless.rows} - {"failed"} == {"over the budget"}
    assert server.config("nap") == before


# An interrupt just after a file was opened leaves it to the garbage collector, which complains.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_puts_the_server_back(server: Server, before: dict[str, Any], tmp_path: Path) -> None:
    def interrupt() -> None:
        wait_until(lambda: server.config("nap") != before)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        tune(server, "nap", output=tmp_path, **TRAFFIC)
    thread.join()
    assert server.config("nap") == before


@pytest.mark.parametrize(("options", "words"), [({"batch": 2}, "batch=2 was given")])
def test_what_makes_no_sense_is_refused(server: Server, before: dict[str, Any], options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        tune(server, "nap", **{"concurrency": 4, **options})
    assert server.config("nap") == before


def test_a_model_that_is_not_loaded(server: Server) -> None:
    with pytest.raises(ModelError, match="nap_int8"):
        tune(server, "nap_int8", concurrency=4)


def test_only_the_owner_may(server: Server) -> None:
    with pytest.raises(ModelError, match="Only the owner"):
        tune(connect(server.http_url), "nap", concurrency=1)


@pytest.mark.nightly
def test_threads_and_batches(server: Server, tmp_path: Path, one_round: None) -> None:
    server.load("affine")
    try:
        before = server.config("affine")
        found = tune(server, "affine", 2, concurrency=4, output=tmp_path)
        assert {row["candidate"].rpartition("batching ")[2] for row in found.rows} == {"off", "on"}
        assert {row["outcome"] for row in found.rows} == {"ok"}
        assert server.config("affine") == before
    finally:
        server.unload("affine")


@pytest.mark.slow
def test_the_command(models: Path, tmp_path: Path, one_round: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "-m", "nap", "-c", "4", "--budget", "1", "--models", str(models), "-o", str(tmp_path)]) == 3
    assert "No finalist meets the goal" in capsys.readouterr().out
