"""NVIDIA's own load generator, perf_analyzer: where it is, and one run of it: its command, its figures, and what it says when it fails."""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from helpers import machine
from helpers.client.endpoint import NO_ACCESS, Access, parse_address, with_own_secret
from helpers.client.problems import without_id
from helpers.client.tensors import Signature
from helpers.errors import InputError, RequestError, SetupError
from helpers.measuring.table import PARTS, THROUGHPUT
from helpers.paths import find, make_folder, server_env, work_dir
from helpers.server import isolation
from helpers.setup.environments import TOOL_LIBRARIES

NAME = "perf_analyzer"
# Column of the tool's CSV file -> column of ours.
_SERVER = ("Server Queue", "Server Compute Input", "Server Compute Infer", "Server Compute Output")
TOOL_COLUMNS = {
    "Inferences/Second": THROUGHPUT,
    **dict(zip(("Client Send", "Network+Server Send/Recv", *_SERVER, "Client Recv"), PARTS, strict=True)),
    **{f"p{percentile} latency": f"latency_p{percentile}_us" for percentile in (50, 90, 95, 99)},
}
# ``random`` or a file; or one of these for each model, and what it does not name gets random ones.
InputData = str | Path | Mapping[str, str | Path]
# Length of an axis that may have any, by the beginning of the input's name: candidates and vertices of a jet, as in the course text.
LENGTHS = {"pf": 50, "sv": 4}
# Windows of one run of the tool: it gives figures of its last three, and of no fewer. Its rule that these agree within some per cent is
# switched off: three within 10 % may be chance, and on a crowded machine they differ tenfold.
RUN_WINDOWS, _ANY_PERCENT = 3, "1000000"
# Seconds that the tool gets to collect the answers under way after an interrupt.
_STOP_S = 5.0
# Its exit status where it fails.
_FAILED = 99
# What it says when no request was completed in a window, as a slow model may have it, or none by that one of several servers behind an
# address that it asks for the counters: a run without figures, no failure.
_EMPTY = ("No valid requests recorded", "failed to find the requested model version")
_WINDOW = re.compile(r"Pass \[\d+\] throughput: ([\d.e+]+) infer/sec\. (?:Avg|p\d+) latency: (\d+) usec")


class Program(NamedTuple):
    """A perf_analyzer that runs here: the file, the variables that it needs, and its version."""

    file: str
    variables: dict[str, str]
    version: str


def find_perf_analyzer() -> Program:
    """The first perf_analyzer that runs: on PATH, as in NVIDIA's client image, or in the server's environment; else a SetupError."""
    folder, failures = server_env(), []
    for file, libraries in ((NAME, {}), (str(folder / "bin" / NAME), {"LD_LIBRARY_PATH": str(folder / TOOL_LIBRARIES)})):
        if found := shutil.which(file):
            variables = {**os.environ, **libraries}
            done = subprocess.run([found, "--version"], capture_output=True, text=True, check=False, env=variables)
            said = done.stdout + done.stderr
            if version := re.search(r"Version (\d[\w.]*)", said):
                return Program(found, variables | machine.without_proxy(variables), version[1])
            failures.append(f"{found}: {' '.join(said.split())[-200:]}")
    here = platform.system(), platform.machine()
    raise SetupError(
        f"No perf_analyzer runs on this machine ({', '.join([*here, *failures])}).",
        "NVIDIA makes it for Linux on x86-64. What it measured elsewhere is in notebooks/solutions, and in helpers.recorded().",
        "Type: python -m helpers install-server" if here == ("Linux", "x86_64") else "",
    )


@dataclass(frozen=True)
class Run:
    """One run of perf_analyzer.

    ``url`` is host and port; a ``request_rate_per_s`` counts in place of the ``concurrency``; ``shapes`` have no batch axis and are for
    inputs with axes of any length; ``percentile`` is the latency that is looked at in each of the windows.
    """

    model: str
    url: str
    protocol: str = "grpc"
    batch: int = 1
    concurrency: int = 1
    request_rate_per_s: float | None = None
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    percentile: int = 95
    input_data: str | Path = "random"
    window_ms: int = 500
    windows: int = RUN_WINDOWS
    secure: bool = False
    access: Access = field(default=NO_ACCESS, hash=False)

    def arguments(self) -> list[str]:
        """Return what stands behind the program's name, without the headers."""
        words = ["-m", self.model, *self.way(), "-b", str(self.batch), f"--percentile={self.percentile}"]
        if self.request_rate_per_s is None:
            words += ["--concurrency-range", str(self.concurrency)]
        else:
            words += ["--request-rate-range", f"{self.request_rate_per_s:g}"]
        words += ["--async", "-p", str(self.window_ms), "--max-trials", str(self.windows), "--stability-percentage", _ANY_PERCENT]
        words += ["--input-data", str(self.input_data)] if str(self.input_data) != "random" else []
        for name, shape in self.shapes.items():
            words += ["--shape", f"{name}:{','.join(map(str, shape))}"]
        return words

    def way(self) -> list[str]:
        """Return the options that lead to the server, but for the headers."""
        http = self.protocol == "http"
        words = ["-u", f"https://{self.url}" if self.secure and http else self.url, "-i", self.protocol]
        words += ["--ssl-grpc-use-ssl"] if self.secure and not http else []
        trusted = "--ssl-https-ca-certificates-file" if http else "--ssl-grpc-root-certifications-file"
        return words + ([trusted, self.access.ca] if self.secure and self.access.ca else [])

    def headers(self) -> list[str]:
        """Return the options that carry the headers; they are secret."""
        return [word for name, value in self.access.headers.items() for word in ("-H", f"{name}:{value}")]

    def sent(self) -> dict[str, str | None]:
        """Return what the requests hold, as columns of a row: ``inputs``, ``shapes`` (of the first entry) and ``inputs_digest``."""
        shapes, word, digest = self.shapes, str(self.input_data), None
        if word != "random":
            content = Path(word).read_bytes()
            word, digest = Path(word).name, hashlib.sha256(content).hexdigest()[:12]
            shapes = {name: tensor["shape"] for name, tensor in json.loads(content)["data"][0].items()}
        listed = (f"{name}:{','.join(map(str, shape))}" for name, shape in shapes.items())
        return {"inputs": word, "shapes": " ".join(listed), "inputs_digest": digest}

    def __str__(self) -> str:
        # Headers are secret, and the command is written into tables and shown in notebooks: a variable stands in their place.
        headers = [f'-H "{name}:Bearer $COURSE_TOKEN"' for name in self.access.headers]
        return " ".join([shlex.join([NAME, *self.arguments()]), *headers])


def checked(signature: Signature, batch: int, lengths: Mapping[str, int], input_data: InputData) -> tuple[dict[str, list[int]], str | Path]:
    """Return shapes and inputs for a model, as a :class:`Run` takes them; an InputError where something does not fit."""
    model, largest = signature.model, max(1, signature.max_batch_size)
    if not isinstance(batch, int) or not 1 <= batch <= largest:
        expected = f"Expected a whole number from 1 to {largest}: its max_batch_size is {signature.max_batch_size}."
        raise InputError(f"batch={batch!r} was given for {model!r}.", expected)
    data = input_data.get(model, "random") if isinstance(input_data, Mapping) else input_data
    if str(data) != "random":
        # A file says the shapes itself.
        if path := find(data):
            return {}, path.resolve()
        raise InputError(f"There is no file of inputs {str(data)!r}.", "Expected 'random', or what input_files.write_jets(...) returns.")
    shapes: dict[str, list[int]] = {}
    for name, spec in signature.inputs.items():
        wanted = spec.shape[1:] if signature.max_batch_size else spec.shape
        length = next((length for beginning, length in [*lengths.items(), *LENGTHS.items()] if name.startswith(beginning)), None)
        if min(wanted, default=1) < 0:
            if length is None:
                happened = f"The input {name!r} of {model!r} has an axis of any length."
                raise InputError(happened, "A measurement needs one; a file of real inputs has it.", f'Type: lengths={{"{name}": 100}}')
            shapes[name] = [length if axis < 0 else axis for axis in wanted]
    return shapes, data


class Window(NamedTuple):
    """One window of a measurement: inferences per second, a batch of 8 counting 8, the latency in µs, and of how many requests."""

    throughput_infer_per_s: float
    latency_us: float
    requests: int


class Result(NamedTuple):
    """What one run of the tool gave: figures by column, none when its windows did not agree; its windows, and how many requests it had."""

    figures: dict[str, float | None]
    windows: tuple[Window, ...]
    requests: int


def result_of(said: str, table: str = "") -> Result:
    """Return what the tool says with ``-v`` and the text of its CSV file as one result.

    A column that the file does not have, or has empty, is None: a model made of others has no input, inference and output of its own.
    """
    seen = [(float(rate), float(latency)) for rate, latency in _WINDOW.findall(said)]
    count = re.search(r"^\s+Request count: (\d+)", said, re.MULTILINE)
    # The tool says how many requests a run had; its windows share them by their rates.
    requests, total = int(count[1]) if count else 0, sum(rate for rate, _ in seen) or 1.0
    windows = tuple(Window(rate, latency, round(requests * rate / total)) for rate, latency in seen)
    figures: dict[str, float | None] = {}
    for row in csv.DictReader(io.StringIO(table)):
        figures = {ours: float(row[theirs]) if row.get(theirs) else None for theirs, ours in TOOL_COLUMNS.items()}
        parts = [part for name in PARTS if (part := figures[name]) is not None]
        figures["latency_avg_us"] = sum(parts) if len(parts) == len(PARTS) else None
    return Result(figures, windows, requests)


def show(words: Sequence[str], access: Access = NO_ACCESS) -> int:
    """Run the tool with arguments as people type them, also an address with a scheme; print what it says, return its exit status."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-i", default="")
    parser.add_argument("-u", default="localhost:8000")
    typed, others = parser.parse_known_args(words)
    address = parse_address(typed.u, 8000)
    protocol = typed.i.lower() or ("grpc" if address.scheme.startswith("grpc") else "http")
    run = Run("", str(address.dialled), protocol, secure=address.secure, access=with_own_secret(access, address))
    with _started([*others, *run.way()], run.headers(), subprocess.STDOUT) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
        process.communicate()
    return process.returncode


def perf_analyzer(command: str) -> int:
    """Run a whole command, print what it says, and return its exit status: 0 done, 2 no agreement, 99 it failed or does not run here."""
    words = shlex.split(command.replace("\\\n", " "))
    try:
        return show(words[words[:1] == [NAME] :])
    except SetupError as error:
        print(error)
        return _FAILED


@contextmanager
def _started(words: Sequence[str], private: Sequence[str], errors: int) -> Iterator[subprocess.Popen[str]]:
    """The tool under way. What keeps us from its end stops it: it is asked first, since it then leaves no half-sent request behind."""
    file, variables, _ = find_perf_analyzer()
    # Other users of this machine must not see a token in ``ps``.
    secrets = {f"COURSE_PERF_{number}": word for number, word in enumerate(private)}
    start = isolation.start_through if private else subprocess.Popen
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": errors, "text": True, "start_new_session": True}
    with start([file, *words, *(f"${name}" for name in secrets)], env=variables | secrets, **options) as process:
        try:
            yield process
        except BaseException:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=_STOP_S)
            process.kill()
            raise


def execute(run: Run, server: Any = None) -> Result:
    """Run the tool to its end; a RequestError says why it failed, better where there is a Server object. No agreement is no failure."""
    with tempfile.TemporaryDirectory(prefix=".perf-", dir=make_folder(work_dir())) as folder:
        table = Path(folder) / "table.csv"
        with _started([*run.arguments(), "-v", "-f", str(table)], run.headers(), subprocess.PIPE) as process:
            said, errors = process.communicate()
        # It ends with 2 when its windows did not agree.
        if process.returncode not in (0, 2) and not any(words in errors for words in _EMPTY):
            raise explain_failure(process.returncode, errors, run, server)
        return result_of(said, table.read_text() if table.exists() else "")


def explain_failure(code: int, said: str, run: Run, server: Any = None) -> RequestError:
    """Return the error to raise for a run that ended badly: the tool's own sentence, as what is usual :func:`checked` has said before."""
    found = re.search(r"error: (.*)", said, re.I)
    why = without_id(found[1].split(" NOTE:")[0]).strip().rstrip(".")[:400] if found else "it gave no reason"
    hint = "Random inputs are no physics, and some models refuse them: take real inputs, such as those of input_files.write_jets(...)."
    ended, todo = server.how_it_ended() if getattr(server, "owned", False) else ("", "")
    expected = ended or (hint if run.input_data == "random" else "")
    happened = f"perf_analyzer failed with {run.model!r} (status {code}): {why}."
    # Not the tool's own name, which is seldom on PATH; headers are found again.
    all_of_it = f"To see all that it says, type: python -m helpers {shlex.join([NAME, *run.arguments()])}"
    return RequestError(happened, expected, todo or all_of_it)
