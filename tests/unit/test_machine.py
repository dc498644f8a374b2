"""What the course knows of the machine that it runs on."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from helpers import machine
from helpers.errors import SetupError


@pytest.fixture(autouse=True)
def fresh() -> None:
    """No answer of an earlier test."""
    machine.device.cache_clear()


def smi(folder: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """An nvidia-smi that runs this Python code, and no other program on PATH."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!{sys.executable}\n{code}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_fields_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(tmp_path, monkeypatch, "print('Tesla T4, 45\\nTesla T4, [N/A]')")
    rows = machine.nvidia_smi("name", "utilization.gpu")
    assert [row["utilization.gpu"] for row in rows] == ["45", "[N/A]"]
    smi(tmp_path, monkeypatch, "print('Tesla T4')")
    assert machine.device() == "Tesla T4"


def test_an_error_that_it_prints_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(tmp_path, monkeypatch, "print('NVIDIA-SMI has failed'); raise SystemExit(9)")
    with pytest.raises(SetupError, match="NVIDIA-SMI has failed"):
        machine.nvidia_smi("name")
    assert machine.gpus() == ()
    assert "Tesla" not in machine.device()


def test_one_that_hangs_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken driver holds it for ever; every card and every measurement asks for the device, which is looked for once."""
    monkeypatch.setattr(machine, "_SMI_TIMEOUT_S", 0.5)
    smi(tmp_path, monkeypatch, f"open({str(tmp_path / 'calls')!r}, 'a').write('x'); import time; time.sleep(60)")
    assert machine.device() == machine.device() and not machine.device().startswith("Tesla")
    assert (tmp_path / "calls").read_text() in ("", "x"), "it was started once"
    assert machine.gpus() == ()
    with pytest.raises(SetupError, match="did not answer within"):
        machine.nvidia_smi("name")


def test_who_listens_on_a_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        # A port of this machine, but not a Triton server: perhaps the end of a tunnel.
        assert not machine.serves_here("localhost", port)
    assert not machine.serves_here("gpu-node", port)


@pytest.mark.parametrize(
    ("host", "here"), [("localhost", True), ("127.0.0.1", True), ("127.8.0.1", True), ("::1", True), ("10.0.0.1", False), ("node", False)]
)
def test_what_means_this_machine(host: str, here: bool) -> None:
    assert machine.is_loopback(host) is here


def test_the_line_that_names_it() -> None:
    assert f"{len(os.sched_getaffinity(0))} core" in machine.description()
