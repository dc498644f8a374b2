"""Which perf_analyzer is found, and what is said when none runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers import cli, paths
from helpers.errors import SetupError
from helpers.measuring import perf_analyzer as perf_program
from helpers.setup import bootstrap

pytestmark = pytest.mark.skipif(bool(bootstrap.embedded_obstacle()), reason="perf_analyzer cannot run here")


def a_program(folder: Path, body: str) -> Path:
    """A program named perf_analyzer, for PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / perf_program.NAME
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Nothing on PATH but a shell's programs, and a server's environment that has none."""
    monkeypatch.setenv("COURSE_SERVER_ENV", str(tmp_path / "server"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    return tmp_path


def test_the_one_in_the_servers_environment_runs() -> None:
    assert perf_program.find_perf_analyzer().version == "2.51.0"


def test_path_comes_first_and_what_does_not_run_is_passed_over(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = a_program(bare / "bin", "echo 'Perf Analyzer Version 9.99.0 (commit unknown)'")
    found = perf_program.find_perf_analyzer()
    assert (found.file, found.version) == (str(ours), "9.99.0")
    monkeypatch.delenv("COURSE_SERVER_ENV")
    a_program(bare / "bin", "echo 'version GLIBC_2.38 not found' >&2; exit 1")
    assert perf_program.find_perf_analyzer().version == "2.51.0"


def test_where_none_runs_it_is_said_why_and_that_there_are_recorded_results(bare: Path) -> None:
    a_program(bare / "bin", "echo 'version GLIBC_2.38 not found' >&2; exit 1")
    with pytest.raises(SetupError, match=r"perf_analyzer: version GLIBC_2.38 not found.*notebooks/solutions.*install-server"):
        perf_program.find_perf_analyzer()


def test_what_was_not_there_is_found_once_it_is(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The set-up may bring it while a notebook is open: a failure is not kept."""
    assert perf_program.perf_analyzer("-m add_sub") == 99 and "install-server" in capsys.readouterr().out
    a_program(paths.server_env() / "bin", "echo 'Perf Analyzer Version 2.51.0 (commit unknown)'")
    assert perf_program.perf_analyzer("-m add_sub") == 0


def test_on_a_mac_nothing_is_to_be_installed(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perf_program.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(perf_program.platform, "machine", lambda: "arm64")
    with pytest.raises(SetupError) as caught:
        perf_program.find_perf_analyzer()
    assert "Darwin, arm64" in str(caught.value) and "notebooks/solutions" in str(caught.value)
    assert "install-server" not in str(caught.value)


def test_the_command_hands_every_argument_on(bare: Path, capfd: pytest.CaptureFixture[str]) -> None:
    a_program(bare / "bin", 'if [ "$1" = --version ]; then echo "Perf Analyzer Version 9.9"; else printf "[%s]" "$@"; exit 7; fi')
    protocol = ["-i", "grpc"]  # looked at, for it decides what the options of TLS are called: it goes last
    arguments = ["-m", "add_sub", "--percentile=95", "--async", "-p", "9000", "--shape", "x:2,50", "-H", "a: b", "-b", "10"]
    assert "perf_analyzer" in cli.PASS_ON
    assert cli.main(["perf_analyzer", *protocol, *arguments]) == 7
    assert capfd.readouterr().out == "".join(f"[{word}]" for word in [*arguments, "-u", "127.0.0.1:8000", *protocol])
