"""A student's own stays so on a machine that many share: another Unix user tries for real, in folders that are open to pass through."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers import paths
from helpers.client import Client
from helpers.client.endpoint import ADMIN_HEADER
from helpers.course import progress
from helpers.server import Server, isolation, launch_server, lease
from tests.support.other_users import needs_root, open_folder, stranger, stranger_can


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A student's folder with ``work/`` and the servers' private folder in it; all may pass through it, as through many a home."""
    with open_folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_WORK", str(folder / "work"))
        patch.setenv("COURSE_RUN_DIR", str(folder / "run"))
        yield folder


@pytest.fixture(scope="module")
def own(home: Path, free_base_port: Callable[[], int]) -> Iterator[Server]:
    """A server with one Python model."""
    with launch_server(paths.models_dir(), base_port=free_base_port(), name="private", load=["add_sub"]) as server:
        yield server


def _regions(server: Server) -> list[Path]:
    return list(Path("/dev/shm").glob(f"{server._lease.run_dir.name}*"))


def test_what_is_made_is_closed_to_others(home: Path, own: Server) -> None:
    assert isolation.MEMORY_SEEN not in own.log(lines=0)
    regions = _regions(own)
    assert regions, "a Python model has a region of shared memory"
    closed = [*regions, own.log_path, home / "work", home / "run", *own._lease.run_dir.rglob("*.json"), own._lease.run_dir / "lease"]
    assert {path: oct(path.stat().st_mode & 0o077) for path in closed} == dict.fromkeys(closed, "0o0")


def test_the_region_of_a_model_loaded_again_is_closed_too(home: Path, own: Server) -> None:
    own.reload("add_sub")  # another process, which makes its region anew
    ones = np.ones(16, np.float32)
    with Client(own) as client:
        assert client.infer("add_sub", INPUT0=ones, INPUT1=ones)["OUTPUT0"].tolist() == [2] * 16
        assert _regions(own)
        assert all(path.stat().st_mode & 0o077 == 0 for path in _regions(own))


@needs_root
@pytest.mark.parametrize("what", ["log", "state", "environment", "memory", "shared memory", "progress", "sweep", "notebook", "folder"])
def test_a_stranger_reads_nothing(home: Path, own: Server, what: str) -> None:
    progress.record("1.1", solved=True)
    paths.append_line(home / "work" / "sweeps" / "sweep.jsonl", {"model": "add_sub", "batch": 1})
    notebook = paths.make_folder(home / "work" / "notebooks") / "mine.ipynb"
    notebook.write_text("{}")
    path = {
        "log": own.log_path,
        "state": own._lease.run_dir / "state.json",
        "environment": Path(f"/proc/{own.pid}/environ"),
        "memory": Path(f"/proc/{own.pid}/mem"),
        "shared memory": _regions(own)[0],
        "progress": progress.path(),
        "sweep": home / "work" / "sweeps" / "sweep.jsonl",
        "notebook": notebook,
        "folder": home / "work",
    }[what]
    deed = "list(pathlib.Path(sys.argv[1]).iterdir())" if path.is_dir() else "open(sys.argv[1], 'rb').close()"
    assert not stranger_can(deed, path)
    # The stranger is no straw man: what is open is read.
    assert stranger_can("open(sys.argv[1], 'rb').close()", "/etc/passwd")
    assert stranger_can("list(pathlib.Path(sys.argv[1]).iterdir())", home)


@needs_root
def test_a_stranger_neither_ends_nor_steers_the_server(home: Path, own: Server) -> None:
    supervisor = int(own._lease.state()["supervisor_pid"])

    run_dir = own._lease.run_dir
    for deed, argument in (
        ("socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect(sys.argv[1])", run_dir / "socket"),
        ("os.kill(int(sys.argv[1]), 2)", own.pid),
        ("os.kill(int(sys.argv[1]), 9)", own.pid),
        ("os.kill(int(sys.argv[1]), 15)", supervisor),
        ("os.unlink(sys.argv[1])", _regions(own)[0]),
        ("os.mkdir(sys.argv[1])", run_dir / "backends" / "add_sub"),
        ("os.unlink(sys.argv[1])", own.log_path),
    ):
        assert not stranger_can(deed, argument), deed
    assert own.is_ready() and own.state() == "running"


@needs_root
def test_a_stranger_finds_the_key_nowhere_and_loads_no_code(home: Path, own: Server) -> None:
    """All that a stranger can read of all processes, and the server's ports without the key."""
    key = own.admin_headers("http")[ADMIN_HEADER]
    script = (
        "import glob, json, os, sys, urllib.error, urllib.request\n"
        "key, url, refused, found = sys.stdin.readline().strip().encode(), sys.argv[1], [], []\n"
        "for path in glob.glob('/proc/[0-9]*/*') + glob.glob('/tmp/*') + glob.glob('/tmp/*/*'):\n"
        "    told = path.rsplit('/', 1)[1] in ('cmdline', 'environ', 'stat', 'comm', 'maps')\n"
        "    if told or path.startswith('/tmp/') and os.path.isfile(path):\n"
        "        try: found += [path] if key in open(path, 'rb').read(1 << 20) else []\n"
        "        except OSError: pass\n"
        "code = {'parameters': {'config': json.dumps({'backend': 'python'}), 'file:1/model.py': 'cHJpbnQoMSk='}}\n"
        "for path in ('models/evil/load', 'models/add_sub/load', 'models/add_sub/unload', 'index'):\n"
        "    ask = urllib.request.Request(url + path, data=json.dumps(code).encode(), headers={'Content-Type': 'application/json'})\n"
        "    try: urllib.request.urlopen(ask, timeout=20)\n"
        "    except urllib.error.HTTPError as error: refused.append(error.code)\n"
        "print(json.dumps([found, refused]))"
    )
    done = stranger(script, own.http.http("/v2/repository/"), text=f"{key}\n")
    found, refused = json.loads(done.stdout)
    assert found == []
    assert refused == [403] * 4
    assert {model.name for model in own.models() if model.state == "READY"} == {"add_sub"}


@needs_root
def test_a_server_that_a_stranger_started_is_not_taken_for_mine(home: Path, own: Server) -> None:
    """Finding a running server goes by what lies in one's own folder; a stranger cannot put anything there."""
    assert not stranger_can("os.mkdir(sys.argv[1])", lease.run_root() / "course-evil")
    assert lease.find(name="private") is not None


def test_a_scoreboard_for_a_class_lies_where_all_can_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from helpers.course import scoreboard

    monkeypatch.setenv("COURSE_SCOREBOARD", str(tmp_path))
    row = {"latency_p95_us": 1000.0, "batch": 1, "concurrency": 1, "throughput_infer_per_s": 100.0, "throughput_ci95_infer_per_s": 1.0}
    scoreboard.enter(row, {**row, "throughput_infer_per_s": 200.0}, name="Ada")
    (file,) = tmp_path.glob("*.json")
    assert file.stat().st_mode & 0o044 == 0o044
    assert scoreboard.read(file)[0]["name"] == "Ada"


# --- JupyterLab ------------------------------------------------------------------------------------------------------------


def _lab(*options: str, timeout: float = 60, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "helpers", "lab", "--no-browser", *options]
    return subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "words"),
    [
        # Each day the file of settings below has no token.
        pytest.param("--IdentityProvider.token=", "would start without its token", marks=pytest.mark.nightly),
        ("--ip=0.0.0.0", "would listen on 0.0.0.0"),
        ("--ServerApp.token=secret", "can be read by everybody"),
    ],
)
def test_no_option_opens_jupyterlab(option: str, words: str) -> None:
    done = _lab(option)
    assert done.returncode == 1
    assert words in done.stderr
    assert "is running at" not in done.stdout + done.stderr


@pytest.mark.slow
def test_no_file_of_settings_opens_jupyterlab(tmp_path: Path) -> None:
    settings_file = tmp_path / "jupyter_server_config.py"
    settings_file.write_text("c.ServerApp.token = ''\nc.IdentityProvider.token = ''\nc.ServerApp.ip = '0.0.0.0'\n")
    done = _lab(JUPYTER_CONFIG_DIR=str(tmp_path))
    assert done.returncode == 1
    assert re.search(rf"without its token.*{re.escape(str(tmp_path))}", done.stderr)
