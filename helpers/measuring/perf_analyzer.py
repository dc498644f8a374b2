"""One run of perf_analyzer: its command, its figures, and what it says when it fails.

Typical use::

    run = run_for(server, "particlenet_AK4", batch=10, lengths={"pf": 50, "sv": 4})
    print(run)                                   # the command, to be copied into a terminal
    execute(run).figures["latency_p95_us"]
    perf_analyzer("-m particlenet_AK4 -u localhost:9001 -i grpc -b 10 …")      # the tool itself, with these very arguments
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import math
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from helpers.client import problems, way_to
from helpers.client.client import RETRIES, Connection, explain
from helpers.client.endpoint import NO_ACCESS, QUERY_TIMEOUT_S, TOKEN_HEADER, Access, Address, parse_address, with_own_secret
from helpers.client.problems import Refused, Unreachable, without_id
from helpers.client.tensors import Signature
from helpers.errors import AccessError, CourseError, InputError, ModelError, RequestError, SetupError, quoted, suggestion
from helpers.measuring.program import NAME, Program, find_perf_analyzer
from helpers.measuring.table import PARTS
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
# Length of an axis that may have any, by the beginning of the input's name: candidates and vertices of a jet, as in the course text.
LENGTHS = {"pf": 50, "sv": 4}
# The latency that is looked at, in percent: one request in twenty waits longer.
PERCENTILE = 95
# Seconds until a run that does not end by itself is given up: a request that is never answered would hold it for ever.
TIMEOUT_S = 300.0
INPUT_DATA = ("random", "zero")


@dataclass(frozen=True)
class Run:
    """One run of perf_analyzer.

    Attributes:
        model: name of the model.
        url: host and port, without ``http://``.
        protocol: ``grpc`` or ``http``.
        batch: entries in each request.
        concurrency: requests under way at any time; does not count when there is a request rate.
        request_rate_per_s: requests sent in each second, whether answers come or not.
        shapes: by input name, its shape without the batch axis; needed for inputs with axes of any length.
        percentile: the latency that is looked at, in percent; None for the mean.
        input_data: ``random``, ``zero``, or a JSON file, as :mod:`helpers.measuring.inputs` writes it.
        asynchronous: send without a thread for each request under way.
        window_ms: length of a window; None for the tool's own 5 s.
        window_requests: requests in a window, instead of a length.
        max_trials: windows until the tool gives up; None for its own 10.
        stability_percent: by how much the last three windows may differ; None for its own 10.
        extra: further arguments, as the tool takes them.
        secure: whether the connection is encrypted.
        access: token, and which certificates are trusted.
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
    asynchronous: bool = True
    window_ms: int | None = None
    window_requests: int | None = None
    max_trials: int | None = None
    stability_percent: float | None = None
    extra: tuple[str, ...] = ()
    secure: bool = False
    access: Access = field(default=NO_ACCESS, hash=False)

    def arguments(self) -> list[str]:
        """What stands behind the program's name, without the headers."""
        url = f"https://{self.url}" if self.secure and self.protocol == "http" else self.url
        words = ["-m", self.model, "-u", url, "-i", self.protocol, "-b", str(self.batch)]
        if self.percentile is not None:
            words.append(f"--percentile={self.percentile}")
        if self.request_rate_per_s is not None:
            words += ["--request-rate-range", f"{self.request_rate_per_s:g}"]
        else:
            words += ["--concurrency-range", str(self.concurrency)]
        if self.asynchronous:
            words.append("--async")
        if self.window_requests is not None:
            words += ["--measurement-mode", "count_windows", "--measurement-request-count", str(self.window_requests)]
        elif self.window_ms is not None:
            words += ["-p", str(self.window_ms)]
        words += ["--max-trials", str(self.max_trials)] if self.max_trials is not None else []
        words += ["--stability-percentage", f"{self.stability_percent:.10g}"] if self.stability_percent is not None else []
        if str(self.input_data) != "random":
            words += ["--input-data", str(self.input_data)]
        for name, shape in self.shapes.items():
            words += ["--shape", f"{name}:{','.join(map(str, shape))}"]
        return [*words, *tls_arguments(self.protocol, self.secure, self.access), *self.extra]

    def command(self, program: Program | None = None) -> list[str]:
        """The whole command; with the bare name where no program is given."""
        return [*(program.command if program else (NAME,)), *self.arguments()]

    @property
    def inputs(self) -> str:
        """What the inputs are, in a word: ``random``, ``zero`` or the file's name."""
        return str(self.input_data) if str(self.input_data) in INPUT_DATA else Path(self.input_data).name

    def __str__(self) -> str:
        # Headers are secret, and the command is written into tables and shown in notebooks.
        words = header_arguments(self.protocol, self.access)[1::2]
        return " ".join([shlex.join(self.command()), *(f'-H "{_shown(word)}"' for word in words)])


def _shown(header: str) -> str:
    """A header with a variable in the place of what it says, as people type it."""
    name = header.partition(":")[0]
    if name.lower().endswith(TOKEN_HEADER):
        return f"{name}:Bearer $COURSE_TOKEN"
    return f"{name}:${re.sub(r'[^A-Za-z0-9]', '_', name).upper()}"


def tls_arguments(protocol: str, secure: bool, access: Access) -> list[str]:
    """The tool's options for an encrypted connection."""
    if not secure:
        return []
    if protocol == "http":
        return ["--ssl-https-ca-certificates-file", access.ca] if access.ca else []
    return ["--ssl-grpc-use-ssl", *(["--ssl-grpc-root-certifications-file", access.ca] if access.ca else [])]


def secret_arguments(words: Sequence[str]) -> list[str]:
    """The tool's options with the secret of a server of one's own, for arguments as people type them; empty where it needs none."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("-u", default="localhost:8000")  # the tool's own choices
    parser.add_argument("-i", default="http")
    typed, _ = parser.parse_known_args(list(words))
    protocol = typed.i.lower()
    # What it makes of an address that is none, the tool says itself.
    with contextlib.suppress(InputError):
        return header_arguments(protocol, with_own_secret(NO_ACCESS, parse_address(typed.u, 8000)))
    return []


def header_arguments(protocol: str, access: Access) -> list[str]:
    """The tool's options that carry the headers; they are secret."""
    headers = access.grpc_headers() if protocol == "grpc" else access.http_headers()
    return [word for name, value in headers.items() for word in ("-H", f"{name}:{value}")]


def run_for(
    server: Any,
    model: str,
    *,
    protocol: str | None = None,
    batch: int = 1,
    shapes: Shapes | None = None,
    lengths: int | Mapping[str, int] | None = None,
    input_data: str | Path = "random",
    **others: Any,
) -> Run:
    """A run for a model on a server, with the shapes that its metadata and the lengths give.

    Args:
        server: a :class:`~helpers.server.Server`, or an address such as ``localhost:9001``.
        model: name of the model.
        protocol: ``grpc`` (the default) or ``http``.
        batch: entries in each request.
        shapes: by input name, its shape without the batch axis, where metadata and lengths are not enough.
        lengths: length of the axes that may have any, by the beginning of the input's name, or one for all.
        input_data: ``random``, ``zero``, or a JSON file.
        **others: further fields of :class:`Run`.

    Raises:
        InputError: the model takes no such batch, has no such input, or an axis without a length.
        ModelError: it is not loaded.
        RequestError: the server does not answer.
    """
    connection = Connection(server, protocol, QUERY_TIMEOUT_S, RETRIES)
    try:
        signature, address, access = connection.signature(model), connection.address, connection.access
    finally:
        connection.close()
    check_batch(signature, batch)
    data = _input_data(input_data)
    # A file says the shapes itself.
    dims = {} if isinstance(data, Path) else complete_shapes(signature, shapes, lengths)
    others = {"secure": address.secure, "access": access} | others
    return Run(model, str(address.dialled), connection.protocol, batch, shapes=dims, input_data=data, **others)


def check_batch(signature: Signature, batch: Any) -> None:
    """Refuse a batch that the model would refuse.

    Raises:
        InputError: it is no number above 0, or above the model's ``max_batch_size``.
    """
    if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
        raise InputError(f"batch={batch!r} was given.", "Expected a whole number, 1 or more.")
    if batch > max(1, signature.max_batch_size):
        limit = f"its max_batch_size is {signature.max_batch_size}" if signature.batched else "it takes no batches (max_batch_size is 0)"
        raise InputError(
            f"A batch of {batch} is too large for {signature.model!r}: {limit}.", "Nothing was sent.", "Ask for a smaller batch."
        )


def complete_shapes(signature: Signature, shapes: Shapes | None, lengths: int | Mapping[str, int] | None) -> dict[str, list[int]]:
    """Shapes of the inputs that need one, without the batch axis.

    Raises:
        InputError: a shape does not fit the model, or a length is missing.
    """
    given = dict(shapes or {})
    if unknown := [name for name in given if name not in signature.inputs]:
        raise InputError(
            f"The model {signature.model!r} has no input {quoted(unknown)}.",
            f"Its inputs are {quoted(signature.inputs)}.",
            suggestion(unknown[0], signature.inputs),
        )
    result = {}
    for name, spec in signature.inputs.items():
        wanted = spec.shape[1:] if signature.batched else spec.shape
        if name in given:
            shape = [int(length) for length in given[name]]
            if len(shape) != len(wanted) or any(want >= 0 and want != got for want, got in zip(wanted, shape)) or min(shape, default=1) < 1:
                batch = ", without the batch axis" if signature.batched else ""
                raise InputError(
                    f"The shape {shape} does not fit the input {name!r} of {signature.model!r}.",
                    f"Expected {_words(wanted)}{batch}; -1 stands for any length.",
                )
            result[name] = shape
        elif min(wanted, default=1) < 0:
            result[name] = [_length(signature, name, lengths) if length < 0 else length for length in wanted]
    return result


def _length(signature: Signature, name: str, lengths: int | Mapping[str, int] | None) -> int:
    if isinstance(lengths, int):
        return lengths
    known = {**LENGTHS, **(lengths or {})}
    fitting = [beginning for beginning in known if name.startswith(beginning)]
    if not fitting:
        raise InputError(
            f"The input {name!r} of {signature.model!r} has an axis of any length.",
            "A measurement needs a length for it; a file of real inputs has one, too.",
            f'Type for example: lengths={{"{name}": 100}}',
        )
    return int(known[max(fitting, key=len)])


def _words(shape: Sequence[int]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _input_data(given: str | Path) -> str | Path:
    if str(given) in INPUT_DATA:
        return str(given)
    path = find(given)
    if path is None or not path.is_file():
        raise InputError(
            f"There is no file of inputs {shown(Path(given))!r}.",
            "Expected 'random', 'zero', or a JSON file for perf_analyzer.",
            "To write one from the course's jets, type: load_inputs.write_jets(...)",
        )
    return path.resolve()


# --- what it says ----------------------------------------------------------------------------------------------------------

_WINDOW = re.compile(r"Pass \[\d+\] throughput: ([\d.e+]+) infer/sec\. (?:Avg|p\d+) latency: (\d+) usec")
_REQUESTS = re.compile(r"^\s+Request count: (\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Window:
    """One window of a measurement.

    Attributes:
        throughput_infer_per_s: inferences per second, a batch of 8 counting 8.
        latency_us: the mean latency, or the percentile that was asked for, in µs.
    """

    throughput_infer_per_s: float
    latency_us: float


def windows(verbose: str) -> list[Window]:
    """The windows in what the tool says with ``-v``; those without a complete request are not among them."""
    return [Window(float(rate), float(latency)) for rate, latency in _WINDOW.findall(verbose)]


def requests(said: str) -> int | None:
    """How many requests the result is made of; None where the tool does not say."""
    found = _REQUESTS.search(said)
    return int(found[1]) if found else None


def figures(table: str) -> dict[str, float | None]:
    """The numbers of the tool's CSV file, which has one line for each load.

    Args:
        table: the file's text, with one line of results.

    Returns:
        By our column names, in inferences per second and µs; ``latency_avg_us`` is the sum of its parts. A column that the file
        does not have, or has empty, is None: a model made of others has no input, inference and output of its own.
    """
    row = next(csv.DictReader(io.StringIO(table)), {})
    result = {ours: _number(row.get(theirs)) for theirs, ours in TOOL_COLUMNS.items()}
    parts = [result[part] for part in PARTS if result[part] is not None]
    return {**result, "latency_avg_us": sum(parts) if len(parts) == len(PARTS) else None}


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


# --- running it ------------------------------------------------------------------------------------------------------------

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
    work = work_dir()
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
            said, errors = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            _end(process)
            raise RequestError(
                f"The measurement of {run.model!r} did not end within {TIMEOUT_S:.0f} s.",
                "A request is answered too slowly, or never.",
                "Look at server.log(), or measure a smaller batch.",
            ) from error
        except BaseException:
            _end(process)
            raise
        if process.returncode not in (0, UNSTABLE) and _EMPTY not in errors:
            raise explain_failure(process.returncode, errors, run, server)
        numbers = figures(table.read_text()) if table.exists() else {}
    return Result(numbers, tuple(windows(said)), requests(said), said + errors)


def _end(process: subprocess.Popen[str]) -> None:
    """Stop the tool: it is asked first, since it then leaves no half-sent request behind."""
    process.send_signal(signal.SIGINT)
    try:
        process.communicate(timeout=_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


# --- failures --------------------------------------------------------------------------------------------------------------

# The tool ends with this when its windows did not agree, and with 99 after any other failure.
UNSTABLE = 2
# The server did not answer, or stopped answering.
_LOST = re.compile(
    r"failed to connect|connection refused|socket closed|couldn't connect|failure when receiving|connection reset|resolv|upstream", re.I
)
# What a server of the course says when the token is missing or wrong; proxies say what they like.
_WANTS_TOKEN = f"{TOKEN_HEADER}'"
# Words in front of what matters.
_FRONT = re.compile(
    r"^(cb::)?error: |^Thread \[\d+\] had error: |^failed to get model (metadata|config): |^HTTP client failed: ", re.IGNORECASE
)
_NOISE = ("Failed to maintain requested inference load", "Unable to unregister", "Failed to obtain stable", "WARNING", "Received exit")


def reason(said: str) -> str:
    """The sentence in the tool's output that says what went wrong, without the words around it."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.strip().startswith(_NOISE)]
    told = next((line for line in lines if "had error:" in line), None) or next((line for line in lines if _FRONT.match(line)), None)
    text = told or (lines[0] if lines else "it gave no reason")
    while _FRONT.match(text):
        text = _FRONT.sub("", text)
    return without_id(text)


def explain_failure(code: int, said: str, run: Run, server: Any = None) -> CourseError:
    """The error to raise for a run that ended badly.

    Args:
        code: its exit status.
        said: what it wrote to its standard error.
        run: what was run.
        server: the Server object, where there is one.
    """
    why = reason(said)
    scheme = run.protocol + "s" * run.secure
    address = replace(parse_address(run.url), secure=run.secure, scheme=scheme)
    if (run.secure or run.access.headers or _WANTS_TOKEN in why) and (problem := _not_let_in(address, run)):
        return problem
    if _LOST.search(why) and (problem := problems.encryption(address, why, run.access)):
        return problem
    if "unsupported protocol" in why.lower():
        port = "HTTP" if run.protocol == "http" else "gRPC"
        return RequestError(
            f"What answers at {run.url} does not speak {port}.",
            "By the course's convention HTTP has the base port (9000), gRPC the next (9001) and metrics the one after (9002).",
            "Type the port that belongs to the protocol.",
        )
    if _LOST.search(why):
        return explain(Unreachable(why), run.model, address, run.protocol, server)
    if "unknown model" in why or "is not found" in why:
        return explain(Refused(why, "unknown"), run.model, address, run.protocol, server)
    if "batch-size must be" in why or "does not support batching" in why:
        return InputError(f"The model {run.model!r} takes no batch of {run.batch}: {_sentence(why)}", "", "Ask for a smaller batch.")
    if "dynamic shape" in why or "unexpected shape" in why:
        return InputError(
            f"The shapes do not fit the model {run.model!r}: {_sentence(why.split(' NOTE:')[0])}",
            "An axis of any length (-1) needs a length, and the others are as the model says.",
            f"Look at the inputs: server.metadata({run.model!r})",
        )
    if "protocol is restricted" in why:
        return RequestError(
            f"The server lets only its owner do this: {_sentence(why)}",
            "Shared memory needs the key of the server's owner, which is sent along for servers of your own on this machine.",
            "Leave --shared-memory out, or measure a server that you have launched.",
        )
    if "--input-data" in why or "json" in why.lower():
        return InputError(f"The inputs {run.inputs} cannot be used: {_sentence(why)}", "Expected 'random', 'zero' or a JSON file.")
    if code in (126, 127) or "error while loading shared libraries" in said:
        return SetupError(f"perf_analyzer does not start: {_sentence(why)}", "", "Type: python -m helpers install-server")
    if f"'{run.model}'" in why or "had error:" in said:
        return ModelError(
            f"The model {run.model!r} failed under this load: {_sentence(why)}",
            "Random and zero inputs are no physics, and some models refuse them." if run.inputs in INPUT_DATA else "",
            "Try a file of real inputs (write_jets or write_hits of helpers.measuring.inputs), and look at server.log().",
        )
    return RequestError(
        f"perf_analyzer failed, it ended {manner(128 - code if code > 128 else code)}: {_sentence(why)}",
        "",
        f"To see all that it says, type: {run}",
    )


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


def _sentence(text: str) -> str:
    text = " ".join(text.split())[:400]
    return text if text.endswith((".", "!", "?")) else f"{text}."
