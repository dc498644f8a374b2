"""Checkers of notebook 01, Launch a server."""

from __future__ import annotations

import contextlib
import io
import re
from datetime import datetime, timedelta
from typing import Any

import psutil

from helpers import paths
from helpers.client import http
from helpers.course import judge
from helpers.course.exercises import count_blanks
from helpers.course.judge import CannotTell, Outcome, checker, correct, must_be_right, not_attempted, not_yet
from helpers.errors import RequestError
from helpers.metrics import scrape
from helpers.server import Server, launch_server

# People read the log to a tenth of a second; either clock may be rounded.
_READING_S = 0.06
# Exercise 1.3: the ports that the node lets through, and those that two colleagues have.
_OPEN, _TAKEN = range(9300, 9310), (*range(9300, 9303), *range(9304, 9307))


@checker("1.1")
def right_question(server: Any, may_send: Any) -> Outcome:
    """The student's function tells a model that serves from one that does not; at the end it is out of service again."""
    judge.must_be_server(server)
    judge.must_be_function("may_send", may_send)
    if _serves(server):
        raise CannotTell("`add_sub` is in service at the moment. Run the cell with `server.unload` again, then this one.")
    answers = [("`add_sub` is out of service", may_send("add_sub"), False)]
    if count_blanks(answers[0][1]):
        return not_attempted()
    server.load("add_sub")
    try:
        answers += [("`add_sub` serves", may_send("add_sub"), True), ("There is no model `muons`", may_send("muons"), False)]
    finally:
        server.unload("add_sub")
    for fact, given, right in answers:
        if not isinstance(given, bool):
            number = judge.number(given)
            seen = judge.kind(given) if number is None else f"{judge.plain(number)}, a number; compare it with 200"
            return not_yet(f"Your function should return True or False, and it returns {seen}.")
        if given != right:
            return not_yet(f"{fact}, and your function says {given}. Which of the three questions is about one model, the one asked for?")
    return correct("It says no, yes and no, as it should. A server can be alive and ready, and still not have the model that you need.")


def _serves(server: Server) -> bool:
    try:
        http.ask(server.http, "/v2/models/add_sub/ready", access=server.access)
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
    instances = log[begin.start() : end.start()].count("ModelInstanceInitialize: add_sub")
    lines = "Compare the lines `loading: add_sub` and `successfully loaded`, to a tenth of a second"
    must_be_right("loading_s", report["loading_s"], seconds, otherwise=lines, unit="s", absolute=_READING_S)
    count = "Count only the lines `ModelInstanceInitialize` before the first `successfully loaded`"
    must_be_right("instances", report["instances"], instances, otherwise=count, relative=0)
    port = report["metrics_port"]
    given = port.rsplit(":", 1)[-1].strip("/") if isinstance(port, str) else port
    others = {f"That is the port for {name} requests": ports[name] for name in ("HTTP", "gRPC")}
    service = "That is not a port of this server. Look for `Started Metrics Service`"
    must_be_right("metrics_port", given, ports["metrics"], others, service, relative=0)
    return correct(
        f"{seconds:.1f} s, {instances} instance, metrics on port {ports['metrics']}. The expert thanks you and goes back to sleep."
    )


@checker("1.3")
def docker_command(options: Any) -> Outcome:
    """Options whose dry run is a Docker command with three ports that are free and let through."""
    judge.must_have(options, ("runtime", "base_port"))
    if (runtime := options["runtime"]) != "docker":
        other = {"apptainer": "This node has Docker, not Apptainer.", "podman": "Podman is much like Docker, but this node has Docker."}
        small = "Expected the name of the program that starts containers there, in small letters."
        return not_yet(f"The runtime is `{runtime!r}`. {other.get(runtime, small)}")
    base = int(judge.must_be_number("base_port", options["base_port"], "a whole number"))
    ports = {"HTTP": base, "gRPC": base + 1, "metrics": base + 2}
    for service, port in ports.items():
        if port in _TAKEN:
            return not_yet(f"With base port {base}, {service} gets {port}, and a colleague has that.")
        if port not in _OPEN:
            return not_yet(f"With base port {base}, {service} gets {port}, and this node does not let it through.")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        launch_server(paths.models_dir(), runtime="docker", base_port=base, dry_run=True)
    command = printed.getvalue()
    image = next(word for word in command.split() if "tritonserver:" in word)
    wanted = [f"--{service.lower()}-port={port}" for service, port in ports.items()]
    if missing := [option for option in wanted if option not in command]:
        raise CannotTell(f"The dry run has no `{missing[0]}`. Run the notebook again from its first cell.")
    return correct(f"The command starts the image `{image}` with {', '.join(f'`{option}`' for option in wanted)}. All three can work.")


@checker("1.4")
def brought_back(revived: Any, dead_pid: Any) -> Outcome:
    """Another process than the killed one serves, with counters that begin at zero."""
    judge.must_be("revived", revived, Server, "the new server, which `restart()` returns")
    if revived.pid == dead_pid or not revived.is_alive():
        return not_yet(f"`revived` is the server with pid {revived.pid}, and it is dead. Its card says what to type.")
    if psutil.pid_exists(int(dead_pid)):
        return not_yet(f"The old process {dead_pid} still runs: run the cell with `os.kill` first.")
    if not revived.is_ready():
        return not_yet("The new server answers, but it is not ready. Look at its card.")
    counted = scrape(revived).value(judge.SUCCESS, model="add_sub")
    return correct(f"Process {dead_pid} is gone, process {revived.pid} serves, and its counter stands at {judge.plain(counted)}.")
