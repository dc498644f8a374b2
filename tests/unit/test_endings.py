"""How a process ended, in words: for launches, servers, fronts and models alike."""

from __future__ import annotations

import re
import signal

import pytest

from helpers.server import log as server_log
from helpers.server.server import not_started

_WORDS = {
    -signal.SIGABRT: r"by signal 6 \(Aborted\)",
    -signal.SIGFPE: r"by signal 8 \(Floating point exception\)",
    -signal.SIGSEGV: r"by signal 11 \(Segmentation fault\)",
    -signal.SIGBUS: r"by signal 7 \(Bus error\)",
    -signal.SIGKILL: r"by signal 9 \(Killed\): somebody killed it, or .* memory ran out",
    -signal.SIGXCPU: r"by signal 24 \(CPU time limit exceeded\)",
    -62: r"by signal 62 \(Real-time signal 28\)",
    0: "with status 0",
    3: "with status 3",
}


@pytest.mark.parametrize(("code", "words"), _WORDS.items())
def test_a_launch_that_ended_names_the_signal(tmp_path, code, words):
    (tmp_path / "log").write_text("I1128 all is well\n")
    error = str(not_started({"status": "died", "returncode": code, "log": str(tmp_path / "log")}))
    assert re.search(rf"did not start. It ended unexpectedly, {words}", error), error


@pytest.mark.parametrize(("code", "words"), _WORDS.items())
def test_a_server_that_ended_names_the_signal(code, words):
    assert re.search(f"ended unexpectedly, {words}", server_log.how(code))


@pytest.mark.parametrize(
    "line",
    [
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "  what():  std::bad_alloc",
        "terminate called without an active exception",
        "double free or corruption (!prev)",
        "malloc(): invalid size (unsorted)",
        "corrupted size vs. prev_size",
        "*** stack smashing detected ***: terminated",
        "Signal (11) received.",
        "free(): invalid pointer",
        "boost::interprocess::lock_exception: Aborted (core dumped)",
    ],
)
def test_the_last_words_of_a_program_that_aborts_are_kept(line):
    log = "\n".join(['I1128 12:00:00 1 server.cc:1] "started"', line, *['I1128 12:00:01 1 server.cc:2] "fine"'] * 8])
    assert server_log.meaningful(log, 5) == line
