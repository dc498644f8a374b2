"""Fills an environment with pip: one line that a person can read while it runs, one sentence when it fails.

Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from helpers.errors import SetupError
from helpers.files import make_folder

# What pip writes when something outside the course is in the way -> (what happened, what to do).
_FAILURES = (
    (r"No space left on device|Disk quota exceeded", "the disk is full", "Make room (see: df -h .), then type the same again."),
    (
        r"NewConnectionError|Temporary failure in name resolution|Failed to establish|Connection refused|ConnectTimeout|Read timed out|"
        r"ReadTimeout|ProxyError|SSLError|Network is unreachable|Connection aborted|Connection reset|NameResolutionError",
        "the packages could not be fetched: no connection",
        "Check the network (and the proxy, if there is one), then type the same again.",
    ),
    (
        r"No matching distribution found for (?P<what>\S+)",
        "pip found no fitting version of {what}",
        "Type: git pull   (a newer lock may help; the course is tested with Python 3.11 and 3.12)",
    ),
    (
        # pip's words for "nothing there has the version of the lock"; with few retries it says no word about a network that is down.
        r"The user requested \(constraint\) (?P<what>\S+)",
        "pip found no {what}, or could not reach the place where it is",
        "Check the network, then type the same again; if that is not it, type: git pull",
    ),
    (r"Permission denied|Read-only file system", "a file could not be written", "Check that this folder is yours (see: ls -ld .)"),
)


def translate(log: str) -> tuple[str, str]:
    """What pip's log means and what to do about it; without addresses of package servers."""
    for pattern, happened, todo in _FAILURES:
        if match := re.search(pattern, log):
            return happened.format(**match.groupdict()), todo
    errors = [line for line in log.splitlines() if "error" in line.lower()] or log.splitlines() or ["nothing at all"]
    return "pip said: " + re.sub(r"\S+://\S+", "…", errors[-1].strip())[
        :300
    ], "Type the same again; if it stays, show the log to your instructor."


class Progress:
    """One line on a terminal that counts packages; elsewhere only its beginning and its end.

    Args:
        title: what is being done, such as ``making .venv: 97 packages, about a minute``.
        total: how many packages are expected.
    """

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total, self.count, self.started = title, total, 0, time.monotonic()
        self.live = sys.stdout.isatty()
        print(title, end="" if self.live else "\n", flush=True)

    def line(self, text: str) -> None:
        """Take one line of pip's output."""
        if text.startswith("Collecting "):
            self.count += 1
            self._show(f"{min(self.count, self.total)} of {self.total}: {re.split('[=<>!~;( [ ]', text[11:])[0].strip()}")
        elif text.startswith("Installing collected packages"):
            self._show("unpacking")

    def _show(self, state: str) -> None:
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[K{f'{self.title} … {state}'[:width]}", end="", flush=True)

    def stop(self) -> None:
        """Leave the line as it is: something went wrong."""
        if self.live:
            print()

    def done(self, text: str) -> None:
        """Close the line."""
        print(f"{chr(13) + chr(27) + '[K' if self.live else ''}{text} ({time.monotonic() - self.started:.0f} s)", flush=True)


def clean_environment() -> dict[str, str]:
    """The process environment without what would lead pip or Python to other packages than ours."""
    unwanted = (
        "PYTHONPATH",
        "PYTHONHOME",
        "PIP_TARGET",
        "PIP_PREFIX",
        "PIP_ROOT",
        "PIP_REQUIRE_HASHES",
        "VIRTUAL_ENV",
        "__PYVENV_LAUNCHER__",
    )
    return {**{name: value for name, value in os.environ.items() if name not in unwanted}, "PIP_USER": "0", "PIP_NO_INPUT": "1"}


def make_venv(base: str, folder: Path) -> None:
    """Make an empty environment of the interpreter ``base``.

    Raises:
        SetupError: the environment could not be made.
    """
    # ensurepip is missing on Colab and on Debian without its venv package: pip then works from outside.
    has_ensurepip = not subprocess.run([base, "-I", "-c", "import ensurepip"], capture_output=True, check=False).returncode
    command = [base, "-m", "venv", *([] if has_ensurepip else ["--without-pip"]), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), check=False)
    if done.returncode:
        happened, todo = translate(done.stdout + done.stderr)
        raise SetupError(f"The environment {folder} could not be made: {happened}.", "", todo)


def pip_command(base: str, folder: Path) -> list[str]:
    """The command that runs pip for this environment."""
    python = python_of(folder)
    inside = not subprocess.run([python, "-I", "-c", "import pip"], capture_output=True, check=False).returncode
    return [str(python), "-m", "pip"] if inside else [base, "-m", "pip", "--python", str(python)]


def python_of(folder: Path) -> Path:
    """The interpreter of an environment."""
    return folder / "Scripts" / "python.exe" if os.name == "nt" else folder / "bin" / "python"


def run(command: Sequence[str], progress: Progress, folder: Path, log: Path, **extra: str) -> str:
    """Run an installing program with its scratch files in ``folder``, its words in ``log``, Ctrl-C passed on.

    Args:
        command: program and arguments.
        progress: the line that people see.
        folder: the environment; unpacking happens on its disk, since ``/tmp`` is small on many machines.
        log: file that gets the output.
        extra: further environment variables.

    Returns:
        All that the program said if it failed, else an empty text.
    """
    scratch = folder / "tmp"
    scratch.mkdir(exist_ok=True)
    make_folder(log.parent)
    words: list[str] = []
    environment = {**clean_environment(), "TMPDIR": str(scratch), "PYTHONUNBUFFERED": "1", **extra}
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n")
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as process:
            try:
                for line in process.stdout or ():
                    words.append(line)
                    file.write(line)
                    progress.line(line)
                code = process.wait()
            except BaseException:
                process.terminate()
                raise
    return "".join(words) or f"exit code {code}" if code else ""


def install(pip: Sequence[str], arguments: Sequence[str], progress: Progress, folder: Path, log: Path, fast: str = "") -> None:
    """Install into an environment with pip, or many times faster with uv, where that is to be had.

    Args:
        pip: command that runs pip.
        arguments: what to install, and how.
        progress: the line that people see.
        folder: the environment.
        log: file that gets all output.
        fast: requirement of uv (``uv==…``) to try first; uv does not read pip's settings, so where those name another index it is left out.

    Raises:
        SetupError: it failed; says why in one sentence.
    """
    quiet = ["--disable-pip-version-check", "--progress-bar=off"]
    failure = ""
    if used_uv := bool(fast) and not _own_index(pip):
        target = folder / "tmp" / "uv"
        failure = run([*pip, "install", *quiet, "--no-deps", "--target", str(target), fast], progress, folder, log)
        if not failure:
            uv = [str(target / "bin" / "uv"), "pip", "install", "--compile-bytecode", "--python", str(python_of(folder)), *arguments]
            failure = run(uv, progress, folder, log, UV_CACHE_DIR=str(folder / "tmp" / "cache"), UV_PYTHON_DOWNLOADS="never")
    if failure or not used_uv:
        failure = run([*pip, "install", *quiet, *arguments], progress, folder, log)
    if failure:
        progress.stop()
        happened, todo = translate(failure)
        raise SetupError(f"{folder.name} could not be filled: {happened}.", f"All that was said is in {log}.", todo)


def clean(folder: Path) -> None:
    """Remove what installing left in the environment's scratch folder."""
    shutil.rmtree(folder / "tmp", ignore_errors=True)


def _own_index(pip: Sequence[str]) -> bool:
    """Whether pip is set up to take packages from somewhere else than by default."""
    return bool(re.search(r"(^|[.:])(index-url|no-index|index_url|no_index)=", said([*pip, "config", "list"]), re.MULTILINE))


def said(command: Sequence[str]) -> str:
    """What a program says to a question; empty when it cannot answer."""
    return subprocess.run(command, capture_output=True, text=True, check=False, env=clean_environment()).stdout


def installed_versions(folder: Path) -> dict[str, str]:
    """Name (lower case, with ``-``) and version of each package in an environment, read from its folders without starting it."""
    found = {}
    for metadata in folder.glob("[Ll]ib/**/site-packages/*.dist-info" if os.name == "nt" else "lib/python3*/site-packages/*.dist-info"):
        name, _, version = metadata.name[: -len(".dist-info")].rpartition("-")
        found[re.sub(r"[-_.]+", "-", name).lower()] = version
    return found
