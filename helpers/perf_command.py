"""One run of perf_analyzer, described once and turned into the exact command.

Typical use::

    run = run_for(server, "particlenet_AK4", batch=10, lengths={"pf": 50, "sv": 4})
    print(run)                                   # the command, to be copied into a terminal
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers import settings
from helpers.client.client import Connection
from helpers.client.endpoint import NO_ACCESS, Access, parse_address, with_own_secret
from helpers.client.tensors import Signature
from helpers.errors import InputError
from helpers.files import find, shown
from helpers.perf_program import NAME, Program
from helpers.wording import quoted, suggestion

Shapes = Mapping[str, Sequence[int]]
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
        input_data: ``random``, ``zero``, or a JSON file, as :mod:`helpers.load_inputs` writes it.
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
    percentile: int | None = settings.PERF_PERCENTILE
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
        # What the headers say is nobody's business: the command is written into tables and shown in notebooks.
        words = header_arguments(self.protocol, self.access)[1::2]
        return " ".join([shlex.join(self.command()), *(f'-H "{_shown(word)}"' for word in words)])


def _shown(header: str) -> str:
    """A header with a variable in the place of what it says, as people type it."""
    name = header.partition(":")[0]
    if name.lower().endswith(settings.TOKEN_HEADER):
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
    connection = Connection(server, protocol, settings.QUERY_TIMEOUT_S, settings.RETRIES)
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
    known = {**settings.PERF_LENGTHS, **(lengths or {})}
    fitting = [beginning for beginning in known if name.startswith(beginning)]
    if not fitting:
        raise InputError(
            f"The input {name!r} of {signature.model!r} has an axis of any length.",
            "Somebody has to say how long it is in this measurement; a file of real inputs says it, too.",
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
