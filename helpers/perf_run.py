"""Run perf_analyzer: with arguments as people type them, or a described run to its end."""

from __future__ import annotations

import shlex
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers import perf_results, settings
from helpers.errors import RequestError
from helpers.files import make_folder, writing
from helpers.perf_command import Run, header_arguments, secret_arguments
from helpers.perf_errors import UNSTABLE, explain_failure
from helpers.perf_program import NAME, Program, find_perf_analyzer
from helpers.perf_results import Window

# Seconds that the tool gets to collect the answers under way after an interrupt.
_STOP_S = 5.0
# What it says, with status 3, when no request was completed in its windows: a run without figures, as a slow model may have, no failure.
_EMPTY = "No valid requests recorded"


@dataclass(frozen=True)
class Result:
    """What one run of the tool gave.

    Attributes:
        figures: by column; empty when the windows did not agree, because the tool then writes no table.
        windows: every window that it told about.
        requests: how many requests the figures are made of.
        said: all that it wrote.
    """

    figures: dict[str, float | None]
    windows: tuple[Window, ...]
    requests: int | None
    said: str


def perf_analyzer(*arguments: str) -> int:
    """Run the tool with these very arguments and print what it says.

    Args:
        *arguments: one word each, or a whole command in one text; the word ``perf_analyzer`` and line ends may be in it.

    Returns:
        Its exit status: 0 done, 2 the windows did not agree, 99 it failed.

    Raises:
        SetupError: none runs on this machine.
    """
    words = words_of(*arguments)
    process = find_perf_analyzer().start(
        *words, private=secret_arguments(words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        for line in process.stdout or ():
            print(line, end="", flush=True)
        process.communicate()
        return process.returncode
    except BaseException:
        _end(process)
        raise


def words_of(*arguments: str) -> list[str]:
    """The arguments of a command as people type it, one word each, without the program's name."""
    words = shlex.split(arguments[0].replace("\\\n", " ")) if len(arguments) == 1 else list(arguments)
    return words[1:] if words[:1] == [NAME] else words


def execute(run: Run, program: Program | None = None, server: Any = None) -> Result:
    """One run of the tool, to its end.

    Args:
        run: what to run.
        program: which perf_analyzer; the first that runs by default.
        server: the Server object, where there is one: it makes error messages better.

    Raises:
        CourseError: it failed; the text says what happened and what to do. Windows that do not agree are no failure.
    """
    program = program or find_perf_analyzer()
    work = settings.work_dir()
    with writing(work):
        make_folder(work)
    # Inside work/, which a client's container sees, too.
    with tempfile.TemporaryDirectory(prefix=".perf-", dir=work) as folder:
        table = Path(folder) / "table.csv"
        process = program.start(
            *run.arguments(),
            "-v",
            "-f",
            str(table),
            private=header_arguments(run.protocol, run.access),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            said, errors = process.communicate(timeout=settings.PERF_TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            _end(process)
            raise RequestError(
                f"The measurement of {run.model!r} did not end within {settings.PERF_TIMEOUT_S:.0f} s.",
                "A request is answered too slowly, or never.",
                "Look at server.log(), or measure a smaller batch.",
            ) from error
        except BaseException:
            _end(process)
            raise
        if process.returncode not in (0, UNSTABLE) and _EMPTY not in errors:
            raise explain_failure(process.returncode, errors, run, server)
        figures = perf_results.figures(table.read_text()) if table.exists() else {}
    return Result(figures, tuple(perf_results.windows(said)), perf_results.requests(said), said + errors)


def _end(process: subprocess.Popen[str]) -> None:
    """Stop the tool: it is asked first, since it then leaves no half-sent request behind."""
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
