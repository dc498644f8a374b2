"""How a request can fail, and the paragraph that says what happened, what was expected and what to type.

The ways to a server raise a :class:`TransportError`; who knows the circumstances turns it into the error that a person reads.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from helpers.client.endpoint import ADMIN_HEADER
from helpers.errors import AccessError, CourseError, ModelError, NotAServerError, RequestError, ServerError, quoted, suggestion

# How a server says that it has a model in the version that was asked for, and that this version does not serve.
NOT_READY = "is not at ready state"
# Triton 2.51 neither starts such a process again nor takes the model out of service; each request waits a second and fails.
_PROCESS_GONE = re.compile(r"Stub process '.*' is not healthy")
_PORTS = "By the course's convention HTTP has the base port (9000), gRPC the next (9001) and metrics the one after (9002)."
_SECURE = "An address that is encrypted begins with https:// or grpcs://."

# How OpenSSL (in Python) and BoringSSL (in gRPC) word an encryption that failed, or a certificate that does not fit.
_NO_TLS = re.compile(r"ssl|handshake|certif|hostname (mismatch|verification)", re.IGNORECASE)


class TransportError(Exception):
    """A request failed without a usable response."""

    reason = ""


class Unreachable(TransportError):
    """The connection was refused, or dropped before the answer came. Sending again is harmless and may help."""


class TimedOut(TransportError):
    """No answer in time. The server may still be working on it, so it is not sent again."""


class Refused(TransportError):
    """The server answered with an error.

    Its reason is ``inputs`` (they do not fit), ``unknown`` (no such model), ``restricted`` (needs the key), ``protocol`` (another of its
    ports answers), ``page`` (what answers is no Triton server) or ``failed``.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@contextmanager
def plainly(way: Any) -> Iterator[None]:
    """Turn failures of questions to a server into a ServerError, or where it answers, an AccessError or a RequestError in its words."""
    try:
        yield
    except TransportError as error:
        if problem := _not_let_in(error, way):
            raise problem from error
        if error.reason not in ("", "protocol"):
            raise RequestError(str(error)) from error
        todo = 'Type: server = launch_server("models"), or look at server.log() if you have launched one'
        raise ServerError(f"No server answers at {way.address} ({error}).", f"Expected a running Triton server. {_SECURE}", todo) from error


def explain(error: TransportError, way: Any, model: str, ended: tuple[str, str] = ("", "")) -> CourseError:
    """Return the error for a request that failed though the model is loaded; ``ended`` is how the server ended and what to type, if so."""
    said, place, protocol = _sentence(error), f"The server at {way.address}", type(way).__name__.upper()
    if not ended[0] and (problem := _not_let_in(error, way)):
        return problem
    if isinstance(error, TimedOut):
        happened = f"{place} gave {said} to the request to {model!r}."
        expected = "The first request of a new shape takes longest; a queue that is too long looks the same."
        todo = f'Try again, or give the client more time: Client(…, timeout_s=300). If it never answers, type: server.reload("{model}")'
    elif isinstance(error, Unreachable):
        happened = f"{place} cannot be reached, or closed the connection before it answered ({said})."
        expected = f"Expected a server that speaks {protocol} there; requests that were under way when it went away are lost."
        todo = f'{_PORTS} {_SECURE} To start a server, type: server = launch_server("models")   (of a fleet: fleet.servers[0].restart())'
    elif error.reason == "protocol":
        happened, expected = f"{place} does not answer in {protocol}.", _PORTS
        todo = f"Type the port for {protocol}, or Client(…, protocol={'http' if protocol == 'GRPC' else 'grpc'!r})"
    elif error.reason == "inputs":
        happened, expected = f"The server refused the request to {model!r}: {said}.", ""
        todo = "Compare the inputs with client.metadata(model)."
    elif _PROCESS_GONE.search(said):
        happened = f"The process that ran the model {model!r} has ended: it crashed, was killed, or memory ran out."
        expected = "Triton still calls the model READY, but does not start the process again; other models are not affected."
        todo = f'Type: server.reload("{model}")   (on a server that is not yours, ask its owner)'
    else:
        happened, expected = f"The model {model!r} failed on this request: {said}.", "Other requests are not affected."
        todo = "Look at the inputs, and at the end of server.log()."
    return RequestError(happened, *(ended if ended[0] else (expected, todo)))


def not_loaded(model: str, said: str, loaded: Collection[str] | None, why: str = "", owned: bool = False) -> ModelError:
    """Return the error for a model that is not loaded, or not in this version: by the server's words, the models that are, and why."""
    if loaded is not None and model in loaded:
        happened = f"The model {model!r} is loaded, but not in the version that was asked for: {said.rstrip('.')}."
        return ModelError(happened, "Leave the version out.")
    happened = f"The model {model!r} is not loaded{': ' * bool(why)}{why.rstrip('.')}."
    serving = f"The models that are loaded: {quoted(loaded)}." if loaded is not None else ""
    if why:
        return ModelError(happened, serving, f'Fix its folder, then type: server.reload("{model}")')
    todo = f'To load one that is in the repository, type: server.load("{model}")'
    if not owned:
        todo = "The card and the log of the server's owner say why. Ask the owner, who types: print(server)"
    return ModelError(happened, serving, suggestion(model, loaded or ()) or todo)


def without_id(message: str) -> str:
    """Return the server's message without the placeholder that it puts in front for requests without an id."""
    return re.sub(r"^\[request id: [^\]]*\] ", "", message)


def _sentence(error: TransportError) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _not_let_in(error: TransportError, way: Any) -> CourseError | None:
    """Return the error for what keeps every request from a server: a page, a token, encryption."""
    said, access = _sentence(error), way.access
    if isinstance(error, Unreachable) and way.address.secure and _NO_TLS.search(said):
        return AccessError(
            f"There is no encrypted connection to {way.address} that could be trusted ({said}). Nothing was sent.",
            f"Expected TLS, and a certificate that fits this name and {access.ca or 'the authorities that this machine trusts'}.",
            'Ask its owner, and type: connect("…", ca="ca.pem"); where it has no encryption, http:// or grpc:// in front of the address',
        )
    if error.reason == "page":
        todo = "Ask its owner for server.http_url; the port of JupyterHub or of a web page is another one."
        return NotAServerError(f"What answers at {way.address} is no Triton server: {said}.", _PORTS, todo)
    if error.reason == "restricted" and ADMIN_HEADER not in said:
        what = "does not accept the token that was sent" if access.token else "wants a token, and none was sent"
        return AccessError(
            f"The server at {way.address} {what} ({said[:200]}).",
            "Expected the token that the owner of the server has given out; it may have changed.",
            'Type: connect("…", token="…")   (in a terminal: export COURSE_TOKEN=…)',
        )
    return None
