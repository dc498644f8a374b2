"""A full disk, and a ``work/`` that somebody deletes, while a server runs that keeps its log and its models there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from helpers import repository
from helpers.client import Client
from helpers.course import progress
from helpers.errors import ModelError, SetupError
from helpers.measuring.measure import measure
from helpers.measuring.table import plain
from helpers.paths import append_line, read_lines
from helpers.server import Server, connect, launch_server
from helpers.setup import notebook_copies

pytestmark = pytest.mark.slow

_X = np.arange(16, dtype=np.float32)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A disk of 2 MB where that can be had, else a folder; ``work`` on it is the working folder of these tests."""
    place = tmp_path_factory.mktemp("disk")
    small = os.geteuid() == 0 and not subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], check=False).returncode
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("COURSE_WORK", str(place / "work"))
            patch.setenv("COURSE_QUICK", "1")
            yield place
    finally:
        if small:
            # Lazily, since a server that failed to end would still have its log open there.
            subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(scope="module")
def own(disk: Path, free_base_port: Callable[[], int]) -> Iterator[Server]:
    """A server whose models and whose log lie in ``work``."""
    repository.checkout("add_sub")
    with launch_server("work/models", base_port=free_base_port(), name="disk") as server:
        yield server


@contextmanager
def _full(folder: Path) -> Iterator[None]:
    """The disk is full meanwhile."""
    filler = folder / "filler"
    try:
        with pytest.raises(OSError, match="No space"), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        yield
    finally:
        filler.unlink()


def _serves(server: Server) -> None:
    for protocol in ("grpc", "http"):
        with Client(server, protocol) as client:
            np.testing.assert_array_equal(client.infer("add_sub", INPUT0=_X, INPUT1=_X)["OUTPUT0"], 2 * _X)


def test_the_disk_fills_up_under_a_server(disk: Path, own: Server) -> None:
    if not disk.is_mount():
        pytest.skip("a small disk to fill is mounted by root alone, and not in every container")
    table, rows = disk / "work" / "sweeps" / "sweep.jsonl", disk / "work" / "tune" / "rows.jsonl"
    row = plain(measure(own, "add_sub"))
    append_line(table, row)
    append_line(rows, {"model": "add_sub"})
    progress.record("1.1", solved=True)
    before = [path.read_bytes() for path in (table, rows)]
    writers: dict[str, Callable[[], object]] = {
        "checkout": lambda: repository.checkout("particlenet_AK4"),
        "config": lambda: repository.change_config("add_sub", instance_group=[{"count": 2, "kind": "KIND_CPU"}]),
        "notebooks": notebook_copies.hand_out,
        "reset": lambda: notebook_copies.reset("01"),
        "sweep": lambda: [append_line(table, row) for _ in range(100)],
        "tune": lambda: [append_line(rows, {"model": "add_sub" * 100}) for _ in range(100)],
    }
    with _full(disk):
        for name, write in writers.items():
            with pytest.raises(SetupError, match="No space left") as told:
                pytest.fail(f"{name} wrote {write()!r}")
            assert "df -h" in str(told.value), name
            # Paths are as long as the place where the tests run makes them.
            assert len(re.sub(r"/\S+", "/…", str(told.value))) < 300, name
            _serves(own)
        # The page on which the file ends takes some more lines; that no others can be kept is said.
        said = [progress.record("1.2", solved=True) for _ in range(100)]
        kept = sum(each.startswith("Attempt") for each in said)
        assert kept < 100 and all("cannot be saved" in each and "No space left" in each for each in said[kept:])
        assert progress.read() == {"1.1": [True], **({"1.2": [True] * kept} if kept else {})}
        # What the server has to say is lost; what it is told, it does.
        own.reload("add_sub")
        _serves(own)
        assert own.is_ready()
        assert "add_sub" in repr(own)
    progress.record("1.2", solved=True)
    assert progress.read() == {"1.1": [True], "1.2": [True] * (kept + 1)}, "half a line does not take the next one along"
    # Half lines are gone, and what was there is still.
    append_line(table, row)
    append_line(rows, {"model": "double"})
    assert all(path.read_bytes().startswith(old) for path, old in zip((table, rows), before))
    assert read_lines(rows)[-1] == {"model": "double"}
    repository.change_config("add_sub", instance_group=[{"count": 2, "kind": "KIND_CPU"}])
    own.reload("add_sub")
    assert own.config("add_sub")["instance_group"][0]["count"] == 2
    _serves(own)


def test_work_is_deleted_under_a_server(disk: Path, own: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    work = disk / "work"
    notebook_copies.hand_out()
    # As a notebook's kernel, whose own folder goes with the rest.
    monkeypatch.chdir(work / "notebooks")
    shutil.rmtree(work)
    _serves(own)
    assert own.is_ready()
    assert [(model.name, model.state) for model in own.models()] == [("add_sub", "READY")]
    assert "READY" in repr(own)
    assert "is not there any more" in own.log(lines=0)
    assert connect(own.http_url).is_ready()
    with pytest.raises(ModelError, match=r"refused to load 'add_sub'.*keeps serving"):
        own.reload("add_sub")
    with pytest.raises(SetupError, match="no model repository"):
        own.restart()
    _serves(own)
    # What is written next makes the folder again.
    append_line(work / "tune" / "rows.jsonl", {"model": "add_sub"})
    progress.record("1.1", solved=True)
    notebook_copies.hand_out()
    repository.checkout("add_sub")
    own.reload("add_sub")
    _serves(own)
