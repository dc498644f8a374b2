"""One run of perf_analyzer: its command, which can be copied into a terminal, its figures, and what it says when it fails."""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import io
import json
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from helpers.client import problems
from helpers.client.client import Client
from helpers.client.endpoint import NO_ACCESS, QUERY_TIMEOUT_S, TOKEN_HEADER, Access, parse_address, with_own_secret
from helpers.client.problems import Unreachable, without_id
from helpers.client.tensors import Signature
from helpers.errors import CourseError, InputError, ModelError, RequestError
from helpers.measuring.program import NAME, find_perf_analyzer
from helpers.measuring.table import INPUT_DATA, PARTS, PERCENTILES, THROUGHPUT, latency_column
from helpers.paths import find, make_folder, shown, work_dir
from helpers.server.watch import manner

# Column of the tool's CSV file -> column of ours.
_SERVER = ("Server Queue", "Server Compute Input", "Server Compute Infer", "Server Compute Output")
TOOL_COLUMNS = {
    "Inferences/Second": THROUGHPUT,
    **dict(zip(("Client Send", "Network+Server Send/Recv", *_SERVER, "Client Recv"), PARTS, strict=True)),
    **{f"p{percentile} latency": latency_column(percentile) for percentile in PERCENTILES},
}
# ``random``, ``zero`` or a file; or one of these for each model, and what it does not name gets random ones.
InputData = str | Path | Mapping[str, str | Path]
# Length of an axis that may have any, by the beginning of the input's name: candidates and vertices of a jet, as in the course text.
LENGTHS = {"pf": 50, "sv": 4}
# The latency that is looked at, in percent: one request in twenty waits longer.
PERCENTILE = 95
# Seconds that the tool gets to collect the answers under way after an interrupt.
_STOP_S = 5.0
# The tool ends with these when its windows did not agree, and after any other failure.
UNSTABLE, FAILED = 2, 99
# What it says when no request was completed in a window, as a slow model may have it, or none by that one of several servers behind an
# address that it asks for the counters: a run without figures, no failure.
_EMPTY = ("No valid requests recorded", "failed to find the requested model version")


@dataclass(frozen=True)
class Run:
    """One run of perf_analyzer: its arguments by name, None for the tool's own choice.

    ``url`` is host and port; a ``request_rate_per_s`` counts in place of the ``concurrency``; ``shapes``, by input name, have no batch
    axis and are for inputs with axes of any length; ``percentile`` is the latency that is looked at; ``input_data`` is ``random``,
    ``zero``, or a JSON file, as :mod:`helpers.measuring.inputs` writes it; the tool itself takes windows of 5 s.
    """

    model: str
    url: str
    protocol: str = "grpc"
    batch: int = 1
    concurrency: int = 1
    request_rate_per_s: float | None = None
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    percentile: int = PERCENTILE
    input_data: str | Path = "random"
    window_ms: int = 5000
    max_trials: int | None = None
    stability_percent: float | None = None
    secure: bool = False
    access: Access = field(default=NO_ACCESS, hash=False)

    def arguments(self) -> list[str]:
        """Return what stands behind the program's name, without the headers."""
        url = f"https://{self.url}" if self.secure and self.protocol == "http" else self.url
        words = ["-m", self.model, "-u", url, "-i", self.protocol, "-b", str(self.batch), f"--percentile={self.percentile}"]
        if self.request_rate_per_s is not None:
            words += ["--request-rate-range", f"{self.request_rate_per_s:g}"]
        else:
            words += ["--concurrency-range", str(self.concurrency)]
        words += ["--async", "-p", str(self.window_ms)]
        words += ["--max-trials", str(self.max_trials)] if self.max_trials is not None else []
        words += ["--stability-percentage", f"{self.stability_percent:.10g}"] if self.stability_percent is not None else []
        words += ["--input-data", str(self.input_data)] if str(self.input_data) != "random" else []
        for name, shape in self.shapes.items():
            words += ["--shape", f"{name}:{','.join(map(str, shape))}"]
        return [*words, *tls_arguments(self.protocol, self.secure, self.access)]

    def sent(self) -> dict[str, str | None]:
        """Return what the requests hold, as columns of a row: ``inputs``, ``shapes`` and ``inputs_digest``.

        Shapes are of the first entry, without the batch axis. The digest is of a file's content, so that equal jets are known as such under
        any name. The positions that TorchScript has behind the names of tensors are in neither.
        """
        shapes, word, digest = self.shapes, str(self.input_data), None
        if word not in INPUT_DATA:
            content = re.sub(rb'__\d+(?="\s*:)', b"", Path(word).read_bytes())
            word, digest = Path(word).name, hashlib.sha256(content).hexdigest()[:12]
            shapes = {name: tensor["shape"] for name, tensor in json.loads(content)["data"][0].items()}
        listed = (f"{re.sub(r'__[0-9]+$', '', name)}:{','.join(map(str, shape))}" for name, shape in shapes.items())
        return {"inputs": word, "shapes": " ".join(listed), "inputs_digest": digest}

    def __str__(self) -> str:
        # Headers are secret, and the command is written into tables and shown in notebooks: a variable stands in their place.
        names = [word.partition(":")[0] for word in header_arguments(self.protocol, self.access)[1::2]]
        headers = [f'-H "{name}:{"Bearer $COURSE_TOKEN" if name.lower().endswith(TOKEN_HEADER) else "$SECRET"}"' for name in names]
        return " ".join([shlex.join([NAME, *self.arguments()]), *headers])


def tls_arguments(protocol: str, secure: bool, access: Access) -> list[str]:
    """Return the tool's options for an encrypted connection."""
    if not secure:
        return []
    if protocol == "http":
        return ["--ssl-https-ca-certificates-file", access.ca] if access.ca else []
    return ["--ssl-grpc-use-ssl", *(["--ssl-grpc-root-certifications-file", access.ca] if access.ca else [])]


def header_arguments(protocol: str, access: Access) -> list[str]:
    """Return the tool's options that carry the headers; they are secret."""
    headers = access.grpc_headers() if protocol == "grpc" else access.headers
    return [word for name, value in headers.items() for word in ("-H", f"{name}:{value}")]


def run_for(
    server: Any,
    model: str,
    *,
    protocol: str | None = None,
    batch: int = 1,
    lengths: Mapping[str, int] | None = None,
    input_data: InputData = "random",
    **others: Any,
) -> Run:
    """Return a run for a model on a server, with the shapes that its metadata and the lengths give; arguments as for ``measure``."""
    with Client(server, protocol, timeout_s=QUERY_TIMEOUT_S) as connection:
        signature, address, access = connection.signature(model), connection.address, connection.access
    largest = max(1, signature.max_batch_size)
    if not isinstance(batch, int) or not 1 <= batch <= largest:
        raise InputError(
            f"batch={batch!r} was given for {model!r}.",
            f"Expected a whole number from 1 to {largest}, its max_batch_size."
            if signature.batched
            else "Expected 1: it takes no batches (max_batch_size is 0).",
        )
    data = data_for(model, input_data)
    if str(data) in INPUT_DATA:
        shapes = _shapes(signature, lengths or {})
    else:
        path, shapes = find(data), {}  # the file says them itself
        if path is None or not path.is_file():
            raise InputError(
                f"There is no file of inputs {shown(Path(data))!r}.",
                "Expected 'random', 'zero', or a JSON file for perf_analyzer.",
                'To write one from the course\'s jets, type: write_jets(server, "particlenet_AK4")',
            )
        data = path.resolve()
    run = Run(model, str(address.dialled), connection.protocol, batch, shapes=shapes, input_data=data, secure=address.secure, access=access)
    return replace(run, **others)


def _shapes(signature: Signature, lengths: Mapping[str, int]) -> dict[str, list[int]]:
    """Shapes of the inputs that have an axis of any length, without the batch axis."""
    result = {}
    for name, spec in signature.inputs.items():
        wanted = spec.shape[1:] if signature.batched else spec.shape
        if min(wanted, default=1) >= 0:
            continue
        known = [*lengths.items(), *LENGTHS.items()]
        length = next((length for beginning, length in known if name.startswith(beginning)), None)
        if length is None:
            raise InputError(
                f"The input {name!r} of {signature.model!r} has an axis of any length.",
                "A measurement needs a length for it; a file of real inputs has one, too.",
                f'Type for example: lengths={{"{name}": 100}}',
            )
        result[name] = [length if axis < 0 else axis for axis in wanted]
    return result


def data_for(model: str, given: InputData) -> str | Path:
    """Return the inputs of one model."""
    return given.get(model, "random") if isinstance(given, Mapping) else given


# --- what it says ----------------------------------------------------------------------------------------------------------

_WINDOW = re.compile(r"Pass \[\d+\] throughput: ([\d.e+]+) infer/sec\. (?:Avg|p\d+) latency: (\d+) usec")


@dataclass(frozen=True)
class Window:
    """One window of a measurement: inferences per second, a batch of 8 counting 8, and the latency that was asked for in µs."""

    throughput_infer_per_s: float
    latency_us: float


@dataclass(frozen=True)
class Result:
    """What one run of the tool gave: figures by column, its windows, and how many requests the figures are made of.

    There are no figures when the windows did not agree, because the tool then writes no table. A window without a complete request is none.
    """

    figures: dict[str, float | None]
    windows: tuple[Window, ...]
    requests: int | None


def result_of(said: str, table: str = "") -> Result:
    """Return what the tool says with ``-v`` and the text of its CSV file as one result.

    A column that the file does not have, or has empty, is None: a model made of others has no input, inference and output of its own.
    ``latency_avg_us`` is the sum of its parts.
    """
    windows = tuple(Window(float(rate), float(latency)) for rate, latency in _WINDOW.findall(said))
    requests = re.search(r"^\s+Request count: (\d+)", said, re.MULTILINE)
    figures: dict[str, float | None] = {}
    for row in csv.DictReader(io.StringIO(table)):
        figures = {ours: float(row[theirs]) if row.get(theirs) else None for theirs, ours in TOOL_COLUMNS.items()}
        parts = [part for name in PARTS if (part := figures[name]) is not None]
        figures["latency_avg_us"] = sum(parts) if len(parts) == len(PARTS) else None
    return Result(figures, windows, int(requests[1]) if requests else None)


# --- running it ------------------------------------------------------------------------------------------------------------


def words_of(*arguments: str) -> list[str]:
    """Return the arguments of a command as people type it, one word each, without the program's name."""
    words = shlex.split(arguments[0].replace("\\\n", " ")) if len(arguments) == 1 else list(arguments)
    return words[1:] if words[:1] == [NAME] else words


def show(words: Sequence[str], access: Access = NO_ACCESS) -> int:
    """Run the tool with arguments as people type them, an address of any scheme among them; print what it says, return its exit status."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-i", default="")
    parser.add_argument("-u", default="localhost:8000")
    typed, others = parser.parse_known_args(words)
    address = parse_address(typed.u, 8000)
    protocol = typed.i.lower() or ("grpc" if address.scheme.startswith("grpc") else "http")
    access = with_own_secret(access, address)
    # The tool takes no scheme but https://.
    url = f"https://{address}" if address.secure and protocol == "http" else str(address.dialled)
    words = [*others, "-u", url, *tls_arguments(protocol, address.secure, access), "-i", protocol]
    with _started(words, header_arguments(protocol, access), subprocess.STDOUT) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
        process.communicate()
    return process.returncode


@contextlib.contextmanager
def _started(words: Sequence[str], private: Sequence[str], errors: int) -> Iterator[subprocess.Popen[str]]:
    """The tool under way. What keeps us from its end stops it: it is asked first, since it then leaves no half-sent request behind."""
    process = find_perf_analyzer().start(*words, private=private, stdout=subprocess.PIPE, stderr=errors, start_new_session=True)
    try:
        yield process
    except BaseException:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        raise


def execute(run: Run, server: Any = None) -> Result:
    """Run the tool to its end; a CourseError says why it failed, better where there is a Server object. No agreement is no failure."""
    with tempfile.TemporaryDirectory(prefix=".perf-", dir=make_folder(work_dir())) as folder:
        table = Path(folder) / "table.csv"
        words, private = [*run.arguments(), "-v", "-f", str(table)], header_arguments(run.protocol, run.access)
        with _started(words, private, subprocess.PIPE) as process:
            said, errors = process.communicate()
        if process.returncode not in (0, UNSTABLE) and not any(words in errors for words in _EMPTY):
            raise explain_failure(process.returncode, errors, run, server)
        return result_of(said, table.read_text() if table.exists() else "")


# The server did not answer, or stopped answering.
_LOST = re.compile(
    r"failed to connect|connection refused|socket closed|couldn't connect|failure when receiving|connection reset|resolv|upstream", re.I
)


def explain_failure(code: int, said: str, run: Run, server: Any = None) -> CourseError:
    """Return the error to raise for a run that ended badly, from its exit status and what it wrote to its standard error.

    What the server refuses before, :func:`run_for` has said; so here the tool's own sentence is quoted, with a hint.
    """
    failed = re.search(r"had error: (.*)", said)
    found = failed or re.search(r"error: (.*)", said, re.I)
    why = without_id(found[1].split(" NOTE:")[0]).strip().rstrip(".")[:400] if found else "it gave no reason"
    if _LOST.search(why):
        address = replace(parse_address(run.url), secure=run.secure, scheme=run.protocol + "s" * run.secure)
        ended = server.how_it_ended() if getattr(server, "owned", False) else ("", "")
        return problems.explain(Unreachable(why), run.model, address, run.protocol, run.access, ended)
    if failed:
        return ModelError(
            f"The model {run.model!r} failed under this load: {why}.",
            "Random and zero inputs are no physics, and some models refuse them." if str(run.input_data) in INPUT_DATA else "",
            "Try a file of real inputs (write_real of helpers.measuring.inputs), and look at server.log().",
        )
    ended = manner(128 - code if code > 128 else code)
    return RequestError(f"perf_analyzer failed, it ended {ended}: {why}.", "", f"To see all that it says, type: {run}")
