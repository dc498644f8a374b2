"""The commands infer, metrics and serve, as people type them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import paths
from helpers.__main__ import main
from helpers.server import Server
from tests.support import MODELS_FOR_TESTS, processes
from tests.support.processes import PATIENCE_S


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_infer_add_sub(models_server: Server, capsys: pytest.CaptureFixture[str], protocol: str) -> None:
    url = models_server.grpc_url if protocol == "grpc" else models_server.http_url
    assert main(["infer", "-m", "add_sub", "-u", url, "-p", protocol]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"Model add_sub at {url} over ")
    x, y, total, difference = ([float(number) for number in re.findall(r"(-?\d+)(?:, )", line.split(")")[1])] for line in lines[3:])
    assert (total, difference) == ([a + b for a, b in zip(x, y, strict=True)], [a - b for a, b in zip(x, y, strict=True)]) and len(x) == 6


def test_infer_any_model_with_made_up_inputs(
    models_server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # a row is a line
    for model in ("double", "types", "strings", "slow", "classes"):
        assert main(["infer", "-m", model, "-u", models_server.grpc_url, "-b", "2"]) == 0
    capsys.readouterr()
    assert main(["infer", "-m", "double", "-u", models_server.http.http()]) == 0
    out = capsys.readouterr().out
    assert "over HTTP" in out
    sent, got = (line.replace(",", " ").replace("…", "").split() for line in out.splitlines()[3:])
    assert sent[:3] == ["input", "X", "float32"] and got[:3] == ["output", "Y", "float32"]
    assert [2 * float(number) for number in sent[5:]] == pytest.approx(list(map(float, got[5:])), rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["infer", "-m", "ad_sub", "-u", "GRPC"], "'ad_sub' is not loaded. .*Did you mean 'add_sub'"),
        (["infer", "-m", "add_sub", "-u", "localhost:9"], "No Triton server answers at localhost:9"),
        (["infer", "-m", "add_sub", "-u", "ftp://x:1"], "ftp"),
        (["metrics", "-u", "HTTP"], "no metrics page"),
        (["serve", "--models", "nowhere"], "no model repository 'nowhere'"),
        (["serve", "--runtime", "magic", "--dry-run"], "magic"),
    ],
)
def test_errors_are_one_paragraph_and_status_1(
    models_server: Server, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    places = {"GRPC": models_server.grpc_url, "HTTP": models_server.http_url, "METRICS": models_server.metrics_url}
    assert main([places.get(word, word) for word in arguments]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert re.search(words, captured.err)
    assert models_server.is_ready()


def test_metrics_as_a_table(models_server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    main(["infer", "-m", "double", "-u", models_server.grpc_url])
    capsys.readouterr()
    assert main(["metrics", "-u", f"localhost:{models_server.metrics.port}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["model", "version", "metric", "value", "labels", "kind"]
    count = next(line.split() for line in lines if line.startswith("double ") and "nv_inference_count" in line)
    assert float(count[3]) >= 1


class Serving:
    """``serve`` in a process of its own, up to its last line before it waits."""

    def __init__(self, port: int, models: Path, *words: str, before: str = "") -> None:
        command = [sys.executable, "-m", "helpers", "serve", "--models", str(models), "--base-port", str(port), *words]
        command = ["sh", "-c", f'{before}; exec "$@"', "sh", *command] if before else command
        self.process = subprocess.Popen(
            command, cwd=paths.root(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        )
        assert self.process.stdout is not None
        self.said = ""
        while "Ctrl-C" not in self.said:
            line = self.process.stdout.readline()
            assert line, self.said
            self.said += line
        self.pid = int(next(line.split()[1] for line in self.said.splitlines() if line.startswith("  pid")))

    def __enter__(self) -> Serving:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.communicate(timeout=PATIENCE_S)


@pytest.fixture
def one_model(tmp_path: Path) -> Path:
    repository = tmp_path / "models"
    repository.mkdir()
    (repository / "double").symlink_to(MODELS_FOR_TESTS / "double")
    return repository


@pytest.mark.slow
def test_serve_under_nohup_outlives_the_terminal_and_says_by_which_signal_its_server_ended(
    free_base_port: Callable[[], int], one_model: Path
) -> None:
    """nohup ignores the signal of a closed terminal, and so does what it starts."""
    with Serving(free_base_port(), one_model, before="trap '' HUP") as serving:
        serving.process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            serving.process.wait(3)
        assert processes.alive(serving.pid)
        os.kill(serving.pid, signal.SIGFPE)
        rest, _ = serving.process.communicate(timeout=PATIENCE_S)
        assert serving.process.returncode == 1
        assert "by signal 8 (" in rest and "Traceback" not in rest
    assert not processes.alive(serving.pid)


def test_serve_ends_with_its_terminal(free_base_port: Callable[[], int], one_model: Path) -> None:
    with Serving(free_base_port(), one_model) as serving:
        serving.process.send_signal(signal.SIGHUP)
        rest, _ = serving.process.communicate(timeout=PATIENCE_S)
        assert rest.endswith("Stopped.\n")
    assert not processes.alive(serving.pid)


def test_the_embedded_dry_run_says_that_it_is_no_command_to_paste(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--dry-run"]) == 0
    *_, first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("# To be read, not to be pasted") and "LD_LIBRARY_PATH" in first
    assert second == "# In a terminal type: python -m helpers serve"


def test_serve_dry_run_starts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--dry-run", "--base-port", "12000"]) == 0
    out = capsys.readouterr().out
    assert "tritonserver" in out
    assert "12000" in out


@pytest.mark.slow
def test_what_serve_says_to_try_works_until_the_system_ends_it(
    free_base_port: Callable[[], int], one_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a terminal that is not UTF-8; what other encodings lack is in the tests of the terminal."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    with Serving(free_base_port(), one_model) as serving:
        lines = serving.said.splitlines()
        tries = [line.split()[-1] for line in lines if line.startswith("  curl")]
        assert len(tries) == 3
        for url in tries:
            with urllib.request.urlopen(url) as answer:
                assert answer.status == 200
        (infer,) = [line.split() for line in lines if "helpers infer" in line]
        assert main(infer[3:]) == 0
        assert processes.alive(serving.pid)
        serving.process.send_signal(signal.SIGTERM)
        out, _ = serving.process.communicate(timeout=PATIENCE_S)
        assert serving.process.returncode == 0 and out.endswith("Stopped.\n") and "Traceback" not in serving.said + out
    assert not processes.alive(serving.pid)
    assert processes.session(serving.pid) == []
