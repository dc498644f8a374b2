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
from helpers.course.judge import CannotTell, Outcome, checker, correct, not_yet
from helpers.errors import CourseError, RequestError
from helpers.metrics import scrape
from helpers.server import Server, launch_server

_QUESTIONS = {"live": "/v2/health/live", "ready": "/v2/health/ready", "add_sub": "/v2/models/add_sub/ready"}
_WHY_WRONG = {
    "live": "the process answers, whatever its models do",
    "ready": "nothing is broken or still loading; a model that was taken out of service does not count",
    "add_sub": "this very model is out of service",
}
# Seconds by which a loading time read from the log may be off: people round.
_READING_S = 0.6
_GRPC_WANTED = 9301


@checker("1.1")
def health_codes(server: Any, codes: Any) -> Outcome:
    """The three status codes while ``add_sub`` is out of service."""
    judge.must_be_server(server)
    seen = {name: 200 if _says_yes(server, path) else 400 for name, path in _QUESTIONS.items()}
    if seen["add_sub"] == 200:
        raise CannotTell("`add_sub` is in service at the moment. Run the cell with `server.unload` again, then this one.")
    if not isinstance(codes, dict) or not set(seen) <= set(codes):
        return not_yet(f"Expected a dictionary with the keys {', '.join(f'`{name}`' for name in seen)}.")
    for name, code in seen.items():
        given = judge.number(codes[name])
        if given is None:
            return not_yet(f"`{name}` should be a status code such as 200, and it is `{codes[name]!r}`.")
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
    wanted = ("loading_s", "instances", "metrics_port")
    if not isinstance(report, dict) or not set(wanted) <= set(report):
        return not_yet(f"Expected a dictionary with the keys {', '.join(f'`{name}`' for name in wanted)}.")
    values = {name: judge.number(_port(report[name]) if name == "metrics_port" else report[name]) for name in wanted}
    for name, value in values.items():
        if value is None:
            return not_yet(f"`{name}` should be a number, and it is `{report[name]!r}`.")
    truth_s, instances = _first_loading(server.log(0))
    for problem in (
        _wrong_time(values["loading_s"], truth_s),
        _wrong_instances(values["instances"], instances),
        _wrong_port(values["metrics_port"], server),
    ):
        if problem:
            return not_yet(problem)
    return correct(
        f"{truth_s:.1f} s, {instances} instance, metrics on port {server.metrics.port}. The expert thanks you and goes back to sleep."
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


def _wrong_time(given: float | None, truth: float) -> str:
    if given is None or abs(given - truth) <= _READING_S:
        return ""
    if abs(given / 1000 - truth) <= _READING_S:
        return f"{judge.plain(given)} would be right in milliseconds; we asked for seconds."
    seen = f"For `loading_s` you have {judge.plain(given)} s, and the log shows another time."
    return f"{seen} Compare the lines `loading: add_sub` and `successfully loaded`."


def _wrong_instances(given: float | None, truth: int) -> str:
    if given == truth:
        return ""
    seen = f"For `instances` you have {judge.plain(given or 0)}."
    return f"{seen} Count only the lines `ModelInstanceInitialize` before the first `successfully loaded`."


def _wrong_port(given: float | None, server: Server) -> str:
    if given == server.metrics.port:
        return ""
    names = {server.http.port: "the port for HTTP requests", server.grpc.port: "the port for gRPC requests"}
    what = names.get(int(given or 0), "not a port of this server")
    return f"{judge.plain(given or 0)} is {what}. Look for `Started Metrics Service`."


@checker("1.3")
def docker_command(options: Any) -> Outcome:
    """Options whose dry run is a Docker command with gRPC on port 9301."""
    if not isinstance(options, dict) or set(options) != {"runtime", "base_port"}:
        return not_yet("Expected a dictionary with the keys `runtime` and `base_port`.")
    runtime, port = options["runtime"], judge.number(options["base_port"])
    if runtime != "docker":
        other = {"apptainer": "This node has Docker, not Apptainer.", "podman": "Podman is much like Docker, but this node has Docker."}
        return not_yet(
            f"The runtime is `{runtime!r}`. "
            f"{other.get(runtime, 'Expected the name of the program that starts containers there, in small letters.')}"
        )
    if port is None or port != int(port):
        return not_yet(f"`base_port` should be a whole number, and it is `{options['base_port']!r}`.")
    command = _dry_run(int(port))
    if f"--grpc-port={_GRPC_WANTED}" in command:
        image = next(word for word in command.split() if "tritonserver:" in word)
        return correct(
            f"The command starts the image `{image}` with `--http-port={_GRPC_WANTED - 1}` "
            f"and `--grpc-port={_GRPC_WANTED}`. Both colleagues can work."
        )
    return not_yet(f"With base port {port:.0f}, HTTP gets {port:.0f} and gRPC {port + 1:.0f}. We asked for gRPC on {_GRPC_WANTED}.")


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
    if revived is None or callable(revived):
        return not_yet(f"`revived` is {judge.kind(revived)}. Expected the new server, which `restart()` returns.")
    if not isinstance(revived, Server):
        return not_yet(f"`revived` is {judge.kind(revived)}. Expected the new server.")
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
