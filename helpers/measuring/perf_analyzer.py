"""One run of perf_analyzer: its command, its figures, and what it says when it fails.

Typical use::

    run = run_for(server, "particlenet_AK4", batch=10, lengths={"pf": 50, "sv": 4})
    print(run)                                   # the command, to be copied into a terminal
    execute(run).figures["latency_p95_us"]
    perf_analyzer("-m particlenet_AK4 -u localhost:9001 -i grpc -b 10 …")      # the tool itself, with these very arguments
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import math
import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from helpers.client import problems
from helpers.client.client import Client, explain
from helpers.client.endpoint import NO_ACCESS, QUERY_TIMEOUT_S, TOKEN_HEADER, Access, Address, parse_address, with_own_secret
from helpers.client.problems import Refused, Unreachable, without_id
from helpers.client.tensors import Signature
from helpers.client.ways import way_to
from helpers.errors import AccessError, CourseError, InputError, ModelError, RequestError, SetupError
from helpers.measuring.program import NAME, Program, find_perf_analyzer, typed_place
from helpers.measuring.table import INPUT_DATA, PARTS
from helpers.paths import find, make_folder, shown, work_dir, writing
from helpers.server.watch import manner

# Column of the tool's CSV file -> column of ours.
TOOL_COLUMNS = {
    "Inferences/Second": "throughput_infer_per_s",
    "Client Send": "client_send_us",
    "Network+Server Send/Recv": "network_us",
    "Server Queue": "queue_us",
    "Server Compute Input": "compute_input_us",
    "Server Compute Infer": "compute_infer_us",
    "Server Compute Output": "compute_output_us",
    "Client Recv": "client_recv_us",
    "p50 latency": "latency_p50_us",
    "p90 latency": "latency_p90_us",
    "p95 latency": "latency_p95_us",
    "p99 latency": "latency_p99_us",
}
Shapes = Mapping[str, Sequence[int]]
# ``random``, ``zero`` or a file; or one of these for each model, and what it does not name gets random ones.
InputData = str | Path | Mapping[str, str | Path]
# Length of an axis that may have any, by the beginning of the input's name: candidates and vertices of a jet, as in the course text.
LENGTHS = {"pf": 50, "sv": 4}
# The latency that is looked at, in percent: one request in twenty waits longer.
PERCENTILE = 95
# Seconds until a run that does not end by itself is given up: a request that is never answered would hold it for ever.
TIMEOUT_S = 300.0
# Seconds that the tool gets to collect the answers under way after an interrupt.
_STOP_S = 5.0
# The tool ends with this when its windows did not agree, and with 99 after any other failure.
UNSTABLE = 2
# What it says when no request was completed in a window, as a slow model may have it, or none by that one of several servers behind an
# address that it asks for the counters: a run without figures, no failure.
_EMPTY = ("No valid requests recorded", "failed to find the requested model version")
# What TorchScript needs behind the name of an input: its position.
_POSITION = re.compile(r"__\d+$")
_QUOTED_POSITION = re.compile(rb'__\d+(?="\s*:)')


@dataclass(frozen=True)
class Run:
    """One run of perf_analyzer: its arguments by name, None for the tool's own choice.

    ``url`` is host and port; a ``request_rate_per_s`` counts in place of the ``concurrency``; ``shapes``, by input name, have no batch
    axis and are for inputs with axes of any length; ``percentile`` is the latency that is looked at, None for the mean; ``input_data`` is
    ``random``, ``zero``, or a JSON file, as :mod:`helpers.measuring.inputs` writes it; a window has a length or a number of requests.
    """

    model: str
    url: str
    protocol: str = "grpc"
    batch: int = 1
    concurrency: int = 1
    request_rate_per_s: float | None = None
    shapes: Shapes = field(default_factory=dict)
    percentile: int | None = PERCENTILE
    input_data: str | Path = "random"
    window_ms: int | None = None
    window_requests: int | None = None
    max_trials: int | None = None
    stability_percent: float | None = None
    secure: bool = False
    access: Access = field(default=NO_ACCESS, hash=False)

    def arguments(self) -> list[str]:
        """Return what stands behind the program's name, without the headers."""
        url = f"https://{self.url}" if self.secure and self.protocol == "http" else self.url
        words = ["-m", self.model, "-u", url, "-i", self.protocol, "-b", str(self.batch)]
        words += [f"--percentile={self.percentile}"] if self.percentile is not None else []
        if self.request_rate_per_s is not None:
            words += ["--request-rate-range", f"{self.request_rate_per_s:g}"]
        else:
            words += ["--concurrency-range", str(self.concurrency)]
        words.append("--async")
        if self.window_requests is not None:
            words += ["--measurement-mode", "count_windows", "--measurement-request-count", str(self.window_requests)]
        elif self.window_ms is not None:
            words += ["-p", str(self.window_ms)]
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
        shapes: Mapping[str, Any] = self.shapes
        word, digest = str(self.input_data), None
        if word not in INPUT_DATA:
            path = Path(self.input_data)
            content = _QUOTED_POSITION.sub(b"", path.read_bytes())
            word, digest = path.name, hashlib.sha256(content).hexdigest()[:12]
            shapes = _shapes_in(content)
        listed = (f"{_POSITION.sub('', name)}:{','.join(map(str, shape))}" for name, shape in shapes.items())
        return {"inputs": word, "shapes": " ".join(listed), "inputs_digest": digest}

    def __str__(self) -> str:
        # Headers are secret, and the command is written into tables and shown in notebooks.
        words = header_arguments(self.protocol, self.access)[1::2]
        return " ".join([shlex.join([NAME, *self.arguments()]), *(f'-H "{_shown(word)}"' for word in words)])


def _shapes_in(content: bytes) -> Shapes:
    """The shapes of the first entry of a file of inputs; none where it leaves them out or holds something else, which the tool tells."""
    try:
        first = json.loads(content)["data"][0]
        return {name: tensor["shape"] for name, tensor in first.items() if isinstance(tensor, dict) and "shape" in tensor}
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}


def _shown(header: str) -> str:
    """A header with a variable in the place of what it says, as people type it."""
    name = header.partition(":")[0]
    if name.lower().endswith(TOKEN_HEADER):
        return f"{name}:Bearer $COURSE_TOKEN"
    return f"{name}:${re.sub(r'[^A-Za-z0-9]', '_', name).upper()}"


def tls_arguments(protocol: str, secure: bool, access: Access) -> list[str]:
    """Return the tool's options for an encrypted connection."""
    if not secure:
        return []
    if protocol == "http":
        return ["--ssl-https-ca-certificates-file", access.ca] if access.ca else []
    return ["--ssl-grpc-use-ssl", *(["--ssl-grpc-root-certifications-file", access.ca] if access.ca else [])]


def header_arguments(protocol: str, access: Access) -> list[str]:
    """Return the tool's options that carry the headers; they are secret."""
    headers = access.grpc_headers() if protocol == "grpc" else access.http_headers()
    return [word for name, value in headers.items() for word in ("-H", f"{name}:{value}")]


def run_for(
    server: Any,
    model: str,
    *,
    protocol: str | None = None,
    batch: int = 1,
    lengths: int | Mapping[str, int] | None = None,
    input_data: InputData = "random",
    **others: Any,
) -> Run:
    """Return a run for a model on a server, with the shapes that its metadata and the lengths give; arguments as for ``measure``.

    Raises:
        InputError: the model takes no such batch, or has an axis without a length.
        ModelError: it is not loaded.
        RequestError: the server does not answer.
    """
    with Client(server, protocol, timeout_s=QUERY_TIMEOUT_S) as connection:
        signature, address, access = connection.signature(model), connection.address, connection.access
    check_batch(signature, batch)
    data = _input_data(data_for(model, input_data))
    # A file says the shapes itself.
    dims = {} if isinstance(data, Path) else _shapes(signature, lengths)
    run = Run(model, str(address.dialled), connection.protocol, batch, shapes=dims, input_data=data, secure=address.secure, access=access)
    return replace(run, **others)


def check_batch(signature: Signature, *batches: Any) -> None:
    """Refuse batch sizes that the model would refuse, by an InputError."""
    for batch in batches:
        if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
            raise InputError(f"batch={batch!r} was given.", "Expected a whole number, 1 or more.")
    if too_large := [str(batch) for batch in batches if batch > max(1, signature.max_batch_size)]:
        limit = f"its max_batch_size is {signature.max_batch_size}" if signature.batched else "it takes no batches (max_batch_size is 0)"
        sizes = f"A batch of {too_large[0]} is" if len(too_large) == 1 else f"Batches of {' and '.join(too_large)} are"
        raise InputError(f"{sizes} too large for {signature.model!r}: {limit}.", "Nothing was sent.", "Ask for smaller batches.")


def _shapes(signature: Signature, lengths: int | Mapping[str, int] | None) -> dict[str, list[int]]:
    """Shapes of the inputs that have an axis of any length, without the batch axis."""
    known = LENGTHS if isinstance(lengths, int) else {**LENGTHS, **(lengths or {})}
    result = {}
    for name, spec in signature.inputs.items():
        wanted = spec.shape[1:] if signature.batched else spec.shape
        if min(wanted, default=1) >= 0:
            continue
        fitting = [beginning for beginning in known if name.startswith(beginning)]
        if not fitting and not isinstance(lengths, int):
            raise InputError(
                f"The input {name!r} of {signature.model!r} has an axis of any length.",
                "A measurement needs a length for it; a file of real inputs has one, too.",
                f'Type for example: lengths={{"{name}": 100}}',
            )
        length = lengths if isinstance(lengths, int) else int(known[max(fitting, key=len)])
        result[name] = [length if axis < 0 else axis for axis in wanted]
    return result


def data_for(model: str, given: InputData) -> str | Path:
    """Return the inputs of one model."""
    return given.get(model, "random") if isinstance(given, Mapping) else given


def _input_data(given: str | Path) -> str | Path:
    if str(given) in INPUT_DATA:
        return str(given)
    path = find(given)
    if path is None or not path.is_file() or not os.access(path, os.R_OK):
        raise InputError(
            f"There is no file of inputs {shown(Path(given))!r} that can be read.",
            "Expected 'random', 'zero', or a JSON file for perf_analyzer.",
            'To write one from the course\'s jets, type: write_jets(server, "particlenet_AK4")',
        )
    return path.resolve()


# --- what it says ----------------------------------------------------------------------------------------------------------

_WINDOW = re.compile(r"Pass \[\d+\] throughput: ([\d.e+]+) infer/sec\. (?:Avg|p\d+) latency: (\d+) usec")
_REQUESTS = re.compile(r"^\s+Request count: (\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Window:
    """One window of a measurement: inferences per second, a batch of 8 counting 8, and the latency that was asked for in µs."""

    throughput_infer_per_s: float
    latency_us: float


@dataclass(frozen=True)
class Result:
    """What one run of the tool gave: figures by column, its windows, how many requests the figures are made of, and all that it wrote.

    There are no figures when the windows did not agree, because the tool then writes no table. A window without a complete request is none.
    """

    figures: dict[str, float | None]
    windows: tuple[Window, ...]
    requests: int | None
    said: str


def result_of(said: str, table: str = "") -> Result:
    """Return what the tool says with ``-v`` and the text of its CSV file as one result.

    A column that the file does not have, or has empty, is None: a model made of others has no input, inference and output of its own.
    ``latency_avg_us`` is the sum of its parts.
    """
    windows = tuple(Window(float(rate), float(latency)) for rate, latency in _WINDOW.findall(said))
    requests = _REQUESTS.search(said)
    figures: dict[str, float | None] = {}
    for row in csv.DictReader(io.StringIO(table)):
        figures = {ours: _number(row.get(theirs)) for theirs, ours in TOOL_COLUMNS.items()}
        parts = [part for name in PARTS if (part := figures[name]) is not None]
        figures["latency_avg_us"] = sum(parts) if len(parts) == len(PARTS) else None
    return Result(figures, windows, int(requests[1]) if requests else None, said)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


# --- running it ------------------------------------------------------------------------------------------------------------


def perf_analyzer(*arguments: str) -> int:
    """Run the tool with these very arguments and print what it says.

    Args:
        *arguments: one word each, or a whole command in one text; the word ``perf_analyzer`` and line ends may be in it.

    Returns:
        Its exit status: 0 done, 2 the windows did not agree, 99 it failed.

    Raises:
        SetupError: none runs on this machine.
    """
    words, private = words_of(*arguments), []
    # What it makes of an address that is none, the tool says itself.
    with contextlib.suppress(InputError):
        protocol, url, _ = typed_place(words)
        private = header_arguments(protocol, with_own_secret(NO_ACCESS, parse_address(url, 8000)))
    with _started(find_perf_analyzer(), words, private, subprocess.STDOUT) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
        process.communicate()
    return process.returncode


@contextlib.contextmanager
def _started(program: Program, words: Sequence[str], private: Sequence[str], errors: int) -> Iterator[subprocess.Popen[str]]:
    """The tool under way. What keeps us from its end stops it: it is asked first, since it then leaves no half-sent request behind."""
    process = program.start(*words, private=private, stdout=subprocess.PIPE, stderr=errors, start_new_session=True)
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


def words_of(*arguments: str) -> list[str]:
    """Return the arguments of a command as people type it, one word each, without the program's name."""
    words = shlex.split(arguments[0].replace("\\\n", " ")) if len(arguments) == 1 else list(arguments)
    return words[1:] if words[:1] == [NAME] else words


def execute(run: Run, program: Program | None = None, server: Any = None) -> Result:
    """Run the tool to its end; the Server object, where there is one, makes error messages better.

    Raises:
        CourseError: it failed; the text says what happened and what to do. Windows that do not agree are no failure.
    """
    program, work = program or find_perf_analyzer(), work_dir()
    with writing(work):
        make_folder(work)
    # Inside work/, which a client's container sees, too.
    with tempfile.TemporaryDirectory(prefix=".perf-", dir=work) as folder:
        table = Path(folder) / "table.csv"
        words, private = [*run.arguments(), "-v", "-f", str(table)], header_arguments(run.protocol, run.access)
        with _started(program, words, private, subprocess.PIPE) as process:
            try:
                said, errors = process.communicate(timeout=TIMEOUT_S)
            except subprocess.TimeoutExpired as error:
                raise RequestError(
                    f"The measurement of {run.model!r} did not end within {TIMEOUT_S:.0f} s.",
                    "A request is answered too slowly, or never.",
                    "Look at server.log(), or measure a smaller batch.",
                ) from error
        if process.returncode not in (0, UNSTABLE) and not any(words in errors for words in _EMPTY):
            raise explain_failure(process.returncode, errors, run, server)
        return replace(result_of(said, table.read_text() if table.exists() else ""), said=said + errors)


# --- failures --------------------------------------------------------------------------------------------------------------

# The server did not answer, or stopped answering.
_LOST = re.compile(
    r"failed to connect|connection refused|socket closed|couldn't connect|failure when receiving|connection reset|resolv|upstream", re.I
)
# Words in front of what matters.
_FRONT = re.compile(
    r"^(cb::)?error: |^Thread \[\d+\] had error: |^failed to get model (metadata|config): |^HTTP client failed: ", re.IGNORECASE
)
_NOISE = ("Failed to maintain requested inference load", "Unable to unregister", "Failed to obtain stable", "WARNING", "Received exit")


def reason(said: str) -> str:
    """Return the sentence in the tool's output that says what went wrong, without the words around it."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.strip().startswith(_NOISE)]
    told = next((line for line in lines if "had error:" in line), None) or next((line for line in lines if _FRONT.match(line)), None)
    text = told or (lines[0] if lines else "it gave no reason")
    while _FRONT.match(text):
        text = _FRONT.sub("", text)
    return without_id(text)


def explain_failure(code: int, said: str, run: Run, server: Any = None) -> CourseError:
    """Return the error to raise for a run that ended badly, from its exit status and what it wrote to its standard error."""
    why = reason(said)
    address = replace(parse_address(run.url), secure=run.secure, scheme=run.protocol + "s" * run.secure)
    # What a server of the course says when the token is missing or wrong; proxies say what they like.
    if (run.secure or run.access.headers or f"{TOKEN_HEADER}'" in why) and (problem := _not_let_in(address, run)):
        return problem
    if _LOST.search(why):
        return problems.encryption(address, why, run.access) or explain(Unreachable(why), run.model, address, run.protocol, server)
    if "unsupported protocol" in why.lower():
        port = "HTTP" if run.protocol == "http" else "gRPC"
        return RequestError(
            f"What answers at {run.url} does not speak {port}.",
            "By the course's convention HTTP has the base port (9000), gRPC the next (9001) and metrics the one after (9002).",
            "Type the port that belongs to the protocol.",
        )
    if "unknown model" in why or "is not found" in why:
        return explain(Refused(why, "unknown"), run.model, address, run.protocol, server)
    sentence = " ".join(why.split(" NOTE:")[0].split())[:400].rstrip(".")
    seen, unreal = why.lower(), str(run.input_data) in INPUT_DATA
    if "batch-size must be" in seen or "does not support batching" in seen:
        return InputError(f"The model {run.model!r} takes no batch of {run.batch}: {sentence}.", "", "Ask for a smaller batch.")
    if "dynamic shape" in seen or "unexpected shape" in seen:
        lengths = "An axis of any length (-1) needs a length, and the others are as the model says."
        look = f"Look at the inputs: server.metadata({run.model!r})"
        return InputError(f"The shapes do not fit the model {run.model!r}: {sentence}.", lengths, look)
    if "protocol is restricted" in seen:
        return RequestError(
            f"The server lets only its owner do this: {sentence}.",
            "Shared memory needs the key of the server's owner, which is sent along for servers of your own on this machine.",
            "Leave --shared-memory out, or measure a server that you have launched.",
        )
    if "--input-data" in seen or "json" in seen:
        return InputError(f"The inputs {run.input_data} cannot be used: {sentence}.", "Expected 'random', 'zero' or a JSON file.")
    if code in (126, 127) or "error while loading shared libraries" in said:
        return SetupError(f"perf_analyzer does not start: {sentence}.", "", "Type: python -m helpers install-server")
    if f"'{run.model}'" in why or "had error:" in said:
        return ModelError(
            f"The model {run.model!r} failed under this load: {sentence}.",
            "Random and zero inputs are no physics, and some models refuse them." if unreal else "",
            "Try a file of real inputs (write_jets or write_hits of helpers.measuring.inputs), and look at server.log().",
        )
    ended = manner(128 - code if code > 128 else code)
    return RequestError(f"perf_analyzer failed, it ended {ended}: {sentence}.", "", f"To see all that it says, type: {run}")


def _not_let_in(address: Address, run: Run) -> CourseError | None:
    """Why we are not let in, which the server tells us more plainly than the tool does; None when we are."""
    try:
        with closing(way_to(run.protocol, address, run.access)) as way, problems.plainly(way):
            way.is_live()
    except AccessError as problem:
        return problem
    except CourseError:
        return None
    return None
