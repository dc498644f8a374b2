"""Checkers of notebook 01, Launch a server."""

from __future__ import annotations

import contextlib
import io
import os
import re
from datetime import datetime, timedelta
from typing import Any

from helpers import paths
from helpers.client import http
from helpers.course import judge
from helpers.course.judge import CannotTell, NotYet, Number, Outcome, checker, correct, not_yet
from helpers.errors import CourseError, RequestError
from helpers.metrics import scrape
from helpers.server import Server, launch_server

_QUESTIONS = {"live": "/v2/health/live", "ready": "/v2/health/ready", "add_sub": "/v2/models/add_sub/ready"}
_WHY_WRONG = {
    "live": "the process answers, whatever its models do",
    "ready": "nothing is broken or still loading; a model that was taken out of service does not count",
    "add_sub": "this very model is out of service",
}
# People read the log to a tenth of a second; either clock may be rounded.
_READING_S = 0.06
_GRPC_WANTED = 9301


@checker("1.1")
def health_codes(server: Any, codes: Any) -> Outcome:
    """The three status codes while ``add_sub`` is out of service."""
    judge.must_be_server(server)
    seen = {name: 200 if _says_yes(server, path) else 400 for name, path in _QUESTIONS.items()}
    if seen["add_sub"] == 200:
        raise CannotTell("`add_sub` is in service at the moment. Run the cell with `server.unload` again, then this one.")
    judge.must_have(codes, tuple(seen))
    for name, code in seen.items():
        given = judge.must_be_number(name, codes[name], "a status code such as 200")
        if given != code:
            return not_yet(f"For `{name}` you have {judge.plain(given)}, and the server says {code}: {_WHY_WRONG[name]}.")
    return correct(
        "live 200, ready 200, and 400 for `add_sub`. A server can be alive and ready, and still not have the model that you need."
    )


def _says_yes(server: Server, path: str) -> bool:
    try:
        http.ask(server.http, path, access=server.access)
    except RequestError:
        return False
    return True


@checker("1.2")
def log_read(server: Any, report: Any) -> Outcome:
    """Loading time, instances and metrics port, as the log says."""
    judge.must_be_server(server)
    judge.must_have(report, ("loading_s", "instances", "metrics_port"))
    return judge_log(server.log(0), report, {"HTTP": server.http.port, "gRPC": server.grpc.port, "metrics": server.metrics.port})


def judge_log(log: str, report: dict[str, Any], ports: dict[str, int]) -> Outcome:
    """Compare a report with the log and the ports that it is about."""
    seconds, instances = _first_loading(log)
    for name in report:
        judge.must_be_number(name, _port(report[name]) if name == "metrics_port" else report[name])
    lines = "Compare the lines `loading: add_sub` and `successfully loaded`, to a tenth of a second"
    Number("loading_s", report["loading_s"], seconds, otherwise=lines, unit="s", absolute=_READING_S).must_be_right()
    count = "Count only the lines `ModelInstanceInitialize` before the first `successfully loaded`"
    Number("instances", report["instances"], instances, otherwise=count, relative=0).must_be_right()
    others = {f"That is the port for {name} requests": port for name, port in ports.items() if name != "metrics"}
    service = "That is not a port of this server. Look for `Started Metrics Service`"
    Number("metrics_port", _port(report["metrics_port"]), ports["metrics"], others, service, relative=0).must_be_right()
    return correct(
        f"{seconds:.1f} s, {instances} instance, metrics on port {ports['metrics']}. The expert thanks you and goes back to sleep."
    )


def _port(given: Any) -> Any:
    return given.rsplit(":", 1)[-1].strip("/") if isinstance(given, str) else given


def _first_loading(log: str) -> tuple[float, int]:
    """Seconds from the first "loading" to the first "successfully loaded", and the instances made between."""
    begin = re.search(r"^I\d{4} (\S+) .*loading: add_sub", log, re.MULTILINE)
    end = re.search(r"^I\d{4} (\S+) .*successfully loaded 'add_sub'", log, re.MULTILINE)
    if not begin or not end:
        raise CannotTell(
            "The log of this server does not show how `add_sub` was loaded. "
            "Restart it with `server = server.restart()` and read its log again."
        )
    times = [datetime.strptime(match[1], "%H:%M:%S.%f") for match in (begin, end)]
    # The log has no year and no zone; a loading over midnight would look negative.
    seconds = ((times[1] - times[0]) % timedelta(days=1)).total_seconds()
    return seconds, log[begin.start() : end.start()].count("ModelInstanceInitialize: add_sub")


@checker("1.3")
def docker_command(options: Any) -> Outcome:
    """Options whose dry run is a Docker command with gRPC on port 9301."""
    judge.must_have(options, ("runtime", "base_port"))
    if (runtime := options["runtime"]) != "docker":
        other = {"apptainer": "This node has Docker, not Apptainer.", "podman": "Podman is much like Docker, but this node has Docker."}
        small = "Expected the name of the program that starts containers there, in small letters."
        return not_yet(f"The runtime is `{runtime!r}`. {other.get(runtime, small)}")
    port = judge.must_be_number("base_port", options["base_port"], "a whole number")
    command = _dry_run(int(port)) if port == _GRPC_WANTED - 1 else ""
    if f"--grpc-port={_GRPC_WANTED}" in command:
        image = next(word for word in command.split() if "tritonserver:" in word)
        return correct(
            f"The command starts the image `{image}` with `--http-port={_GRPC_WANTED - 1}` "
            f"and `--grpc-port={_GRPC_WANTED}`. Both colleagues can work."
        )
    return not_yet(f"With base port {port:g}, HTTP gets {port:g} and gRPC {port + 1:g}. We asked for gRPC on {_GRPC_WANTED}.")


def _dry_run(port: int) -> str:
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            launch_server(paths.models_dir(), runtime="docker", base_port=port, dry_run=True)
    except CourseError as error:
        raise CannotTell(f"The dry run says: {error}") from error
    return printed.getvalue()


@checker("1.4")
def brought_back(revived: Any, dead_pid: Any) -> Outcome:
    """Another process than the killed one serves, with counters that begin at zero."""
    if not isinstance(revived, Server):
        raise NotYet(f"`revived` is {judge.kind(revived)}. Expected the new server, which `restart()` returns.")
    if revived.pid == dead_pid or not revived.is_alive():
        return not_yet(f"`revived` is the server with pid {revived.pid}, and it is dead. Its card says what to type.")
    if _runs(int(dead_pid)):
        return not_yet(f"The old process {dead_pid} still runs: run the cell with `os.kill` first.")
    if not revived.is_ready():
        return not_yet("The new server answers, but it is not ready. Look at its card.")
    counted = scrape(revived).value(judge.SUCCESS, model="add_sub")
    return correct(f"Process {dead_pid} is gone, process {revived.pid} serves, and its counter stands at {judge.plain(counted)}.")


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
