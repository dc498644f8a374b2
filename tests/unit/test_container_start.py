"""The first process in a container, run here without one: hides secrets, hands signals on, and ends with its lifeline."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.server import in_container, isolation
from tests.support.processes import PATIENCE_S, alive, wait_until

# In the place of tritonserver: says what it sees, and notes the interrupts.
_SERVER = """
import os, signal, sys, time
def interrupted(*_):
    os.write(1, b"interrupted\\n")  # the interrupt may come while the line below is still being written
    if "stubborn" not in sys.argv:
        sys.exit(3)
signal.signal(signal.SIGINT, interrupted)
print("SEEN", os.getpid(), sys.argv[1:], "COURSE_ADMIN_KEY" in os.environ, flush=True)
time.sleep(60)
"""
_COMMAND = [sys.executable, "-c", _SERVER, "--option"]
_SECRETS = ["--rule=x:course-admin-key=$COURSE_ADMIN_KEY", "--rule=x:authorization=Bearer $COURSE_TOKEN"]


class Started:
    """A starter with a server, and the other end of its lifeline."""

    def __init__(self, *arguments: str) -> None:
        environment = {**os.environ, "COURSE_ADMIN_KEY": "the-key", "COURSE_TOKEN": "the-token"}
        command = [sys.executable, in_container.__file__, in_container.LIFELINE, *_COMMAND, *arguments, *_SECRETS]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        self.seen = self.process.stdout.readline()
        found = re.match(r"SEEN (\d+)", self.seen)
        assert found, self.seen
        self.server = int(found[1])

    def cut(self) -> None:
        """Close the lifeline."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.__exit__(None, None, None)  # closes what is open of the pipes, and waits


@pytest.fixture
def started() -> Iterator[Started]:
    with Started() as one:
        yield one


def test_secrets_reach_the_server_and_no_command_line(started: Started) -> None:
    assert "--rule=x:course-admin-key=the-key" in started.seen
    assert "--rule=x:authorization=Bearer the-token" in started.seen
    assert started.seen.endswith("False\n"), "Python models do not find the key in their environment"
    for pid in (started.process.pid, started.server):
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
        assert b"the-key" not in line
        assert b"the-token" not in line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_handed_on_and_the_status_comes_back(started: Started, number: signal.Signals) -> None:
    started.process.send_signal(number)
    assert started.process.wait(PATIENCE_S) == (3 if number == signal.SIGINT else 128 + signal.SIGTERM)
    assert not alive(started.server)


def test_a_lifeline_that_closes_ends_the_server(started: Started) -> None:
    assert started.process.stdin is not None
    started.process.stdin.write("whatever is written does not matter\n")
    started.process.stdin.flush()
    with pytest.raises(subprocess.TimeoutExpired):
        started.process.wait(0.5)
    started.cut()
    assert started.process.wait(PATIENCE_S) == 3


@pytest.mark.slow
def test_a_server_that_does_not_hear_is_killed() -> None:
    with Started("stubborn") as one:
        one.cut()
        assert one.process.wait(in_container._KILL_S + PATIENCE_S) == 128 + signal.SIGKILL
        assert one.process.stdout is not None
        assert one.process.stdout.read().count("interrupted") >= 2, "it was told more than once"


@pytest.mark.parametrize("stdin", ["/dev/null", "closed", "ended pipe"])
def test_a_command_that_was_typed_lives_without_standard_input(stdin: str) -> None:
    """As ``docker run`` without ``--interactive`` gives it, under nohup, and in batch jobs."""
    environment = {**os.environ, "COURSE_ADMIN_KEY": "the-key", "COURSE_TOKEN": "the-token"}
    command = [sys.executable, in_container.__file__, *_COMMAND, *_SECRETS]
    if stdin == "closed":
        command = ["sh", "-c", 'exec "$@" <&-', "sh", *command]
    given = subprocess.PIPE if stdin == "ended pipe" else subprocess.DEVNULL
    with subprocess.Popen(command, stdin=given, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            if process.stdin is not None:
                process.stdin.close()
            assert process.stdout is not None
            assert process.stdout.readline().startswith("SEEN")
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(2)
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == 3
        finally:
            process.kill()


def test_the_server_dies_with_the_starter(started: Started) -> None:
    started.process.kill()
    wait_until(lambda: not alive(started.server))


# Makes files as the library of Triton's shared memory does, and as any program.
_MAKES_REGIONS = """
import os, pathlib, sys
region = os.open(sys.argv[1] + "/region", os.O_CREAT | os.O_RDWR, 0o600)
os.fchmod(region, 0o644)
pathlib.Path(sys.argv[1], "file").write_text("")
print({name: oct(os.stat(f"{sys.argv[1]}/{name}").st_mode & 0o777) for name in ("region", "file")})
"""


def test_tensors_in_the_hosts_shared_memory_are_closed_to_others(tmp_path: Path) -> None:
    command = [sys.executable, in_container.__file__, sys.executable, "-c", _MAKES_REGIONS, str(tmp_path), *_SECRETS]
    environment = {**os.environ, "COURSE_ADMIN_KEY": "the-key", "COURSE_TOKEN": "the-token"}
    # No code of Python's between fork and exec: a library with threads in this process, as gRPC, does not survive a fork.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, umask=0o022) as process:
        assert process.stdout is not None and process.stdin is not None
        said = process.stdout.read()
        process.stdin.close()
        process.wait(PATIENCE_S)
    assert "{'region': '0o600', 'file': '0o600'}" in said
    assert isolation.MEMORY_SEEN not in said


def test_a_secret_that_is_missing_is_named() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "COURSE_ADMIN_KEY"}
    command = [sys.executable, in_container.__file__, "true", _SECRETS[0]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "export COURSE_ADMIN_KEY=$(openssl rand -hex 24)" in done.stderr


def test_a_python_of_the_image_reads_it() -> None:
    """NVIDIA's images up to 24.10 have Python 3.10, that of the release 3.12: this file and what it imports must be understood in both."""
    import ast

    for module in (in_container, isolation):
        ast.parse(Path(str(module.__file__)).read_text(), feature_version=(3, 10))
