"""The time of day jumps by hours, both ways, under a server, its lease and requests: nothing ends, hangs or counts wrongly."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import paths
from tests.support import MODELS_FOR_TESTS
from tests.support.processes import alive, session, wait_until

pytestmark = pytest.mark.slow

_HOURS = (5, -5, 0)
_GRACE_S = 1.0
# Debian's package faketime: changes the clock of the processes that it is loaded into and of no others.
_FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")

# The same for the helpers' Python. Not for gRPC, which compares what Python says with what the system says.
_CLOCK = """
import sys, time
_real = time.time
def _moved():
    if not sys._getframe(1).f_globals["__name__"].startswith(("helpers", "__main__")):
        return _real()
    with open({file!r}) as file:
        return _real() + float(file.read() or 0)
time.time = _moved
"""

# What a notebook does, and what came of it, as one line of JSON.
_NOTEBOOK = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from helpers import Client, launch_server, scrape

clock, models, base_port = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
server = launch_server(models, base_port=base_port, grace_s=%(grace)r, name="clock")
rows = []
with Client(server, "grpc", timeout_s=300) as grpc, Client(server, "http", timeout_s=300) as http:
    for hours in %(hours)r:
        of_day, steady, before = time.time(), time.monotonic(), scrape(server)
        under_way = [ThreadPoolExecutor().submit(client.infer, "slow", SECONDS=[0.6]) for client in (grpc, http)]
        time.sleep(0.2)
        clock.with_suffix(".new").write_text(f"{3600 * hours:+d}")
        clock.with_suffix(".new").replace(clock)
        answers = [future.result()["SLEPT"].tolist() for future in under_way]
        answers += [client.infer("double", X=[[1]])["Y"].tolist() for client in (grpc, http) for _ in range(10)]
        change = scrape(server) - before
        rows.append({
            "jump_h": (time.time() - of_day) / 3600, "took_s": time.monotonic() - steady, "seconds": change.seconds, "answers": answers,
            "rates": [row[f"{what}_per_s"] for row in change.requests for what in ("requests", "throughput_infer")],
            "server_h": (server.statistics("double")["last_inference"] / 1000 - of_day) / 3600,
            "state": server.state(), "ready": server.is_ready(),
        })
print(json.dumps({"pid": server.pid, "supervisor": server._lease.state()["supervisor_pid"], "rows": rows}), flush=True)
sys.stdin.read()
"""


def _command(clock: Path, folder: Path) -> list[str]:
    """The notebook's program, with a clock that the file ``clock`` moves, for it, its supervisor and its server."""
    patch, supervisor = _CLOCK.format(file=str(clock)), folder / "supervisor.py"
    real = paths.root() / "helpers" / "server" / "supervisor.py"
    supervisor.write_text(f"{patch}\nimport runpy\nrunpy.run_path({str(real)!r}, run_name='__main__')\n")
    code = _NOTEBOOK % {"grace": _GRACE_S, "hours": _HOURS}
    library = {"LD_PRELOAD": str(_FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(clock), "FAKETIME_NO_CACHE": "1"}
    library |= {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    for_server = f"import helpers.server.embedded\nhelpers.server.embedded.THREADS.update({library!r})" if _FAKETIME.is_file() else ""
    code = f"{patch}\nimport helpers.server.supervisor\nhelpers.server.supervisor.__file__ = {str(supervisor)!r}\n{for_server}\n{code}"
    return [sys.executable, "-c", code]


def test_the_clock_jumps(tmp_path: Path, free_base_port: Callable[[], int], record_property: Callable[[str, object], None]) -> None:
    clock, models = tmp_path / "clock", tmp_path / "models"
    clock.write_text("+0")
    for name in ("double", "slow"):
        source = MODELS_FOR_TESTS / name
        shutil.copytree(source, models / name, ignore=shutil.ignore_patterns("__pycache__"))
    sleeper = models / "slow" / "1" / "model.py"
    # Python's sleep fails with the library loaded, its locks do not.
    sleeper.write_text(sleeper.read_text().replace("time.sleep(", "threading.Event().wait(").replace("import time", "import threading"))
    command = [*_command(clock, tmp_path), str(clock), str(models), str(free_base_port())]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=paths.root(), **pipes) as notebook:
        try:
            assert notebook.stdout is not None
            told = json.loads(next((line for line in notebook.stdout if line.startswith("{")), "{}"))
            assert told, "the notebook ended early"
            record_property("the server's clock jumps, too", _FAKETIME.is_file())
            processes = [*session(told["pid"]), told["supervisor"]]
            for row in told["rows"]:
                assert row["answers"] == [[pytest.approx(0.6)]] * 2 + [[[2.0]]] * 20
                assert (row["state"], row["ready"]) == ("running", True)
                assert 0 < row["seconds"] <= row["took_s"] < 3600
                assert all(rate > 0 for rate in row["rates"])
            # The clock did jump, as the notebook saw it, and the server where the library is.
            assert [round(row["jump_h"]) for row in told["rows"]] == [5, -10, 5]
            if _FAKETIME.is_file():
                assert round(told["rows"][0]["server_h"]) == 5
            # The notebook is gone, and the clock hours back: the grace period is not longer for that.
            clock.write_text(f"{-5 * 3600:+d}")
            notebook.send_signal(signal.SIGKILL)
            wait_until(lambda: not any(alive(pid) for pid in processes))
        finally:
            notebook.kill()
