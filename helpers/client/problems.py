"""How a request can fail, and the paragraph that says what happened, what was expected and what to type.

The ways to a server raise a :class:`TransportError`; who knows the circumstances turns it into the error that a person reads.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from helpers.client.endpoint import ADMIN_HEADER, NO_ACCESS, Access, Address
from helpers.errors import AccessError, CourseError, ModelError, NotAServerError, RequestError, ServerError, quoted, suggestion

# How Envoy, before several servers, words that it lost the one it had chosen, or has none that is healthy.
LOST_BEHIND = re.compile(r"upstream connect error|disconnect/reset before headers|no healthy upstream", re.IGNORECASE)
# How a server says that it has a model in the version that was asked for, and that this version does not serve.
NOT_READY = "is not at ready state"
# Triton 2.51 neither starts such a process again nor takes the model out of service; each request waits a second and fails.
_PROCESS_GONE = re.compile(r"Stub process '.*' is not healthy")
_PORTS = "By the course's convention HTTP has the base port (9000), gRPC the next (9001) and metrics the one after (9002)."
_SECURE = "An address that is encrypted begins with https:// or grpcs://."

# By the reason of a refusal: what happened, what is expected, what to type.
_REFUSALS = {
    "inputs": ("The server refused the request to {model!r}: {said}", "", "Compare the inputs with client.metadata(model)."),
    "protocol": (
        "The server at {address} does not answer in {protocol}.",
        _PORTS,
        "Type the port for {protocol}, or Client(…, protocol={other!r})",
    ),
    "restricted": ("The server does not let us do this: {said}", "Expected the Server object that launched the server.", ""),
    "gone": (
        "The process that ran the model {model!r} has ended: it crashed, was killed, or memory ran out.",
        "Triton still calls the model READY, but does not start the process again; other models are not affected.",
        'Type: server.reload("{model}")   (on a server that is not yours, ask its owner)',
    ),
    "failed": (
        "The model {model!r} failed on this request: {said}",
        "Other requests are not affected.",
        "Look at the inputs, and at the end of server.log().",
    ),
}
# How OpenSSL (in Python) and BoringSSL (in gRPC) word an encryption that failed, or a certificate that does not fit.
_NO_TLS = re.compile(r"ssl|handshake|certif|hostname (mismatch|verification)", re.IGNORECASE)


class TransportError(Exception):
    """A request failed without a usable response."""


class Unreachable(TransportError):
    """The connection was refused, or dropped before the answer came. Sending again is harmless and may help."""


class TimedOut(TransportError):
    """No answer in time. The server may still be working on it, so it is not sent again."""


class Refused(TransportError):
    """The server answered with an error."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        # "inputs" (they do not fit), "unknown" (no such model), "restricted" (needs the key), "protocol" (another of its ports answers),
        # "page" (what answers is no Triton server) or "failed".
        self.reason = reason


@contextmanager
def plainly(way: Any) -> Iterator[None]:
    """Turn failures of questions to a server into a ServerError, or where it answers, an AccessError or a RequestError in its words."""
    try:
        yield
    except TransportError as error:
        if problem := _not_let_in(error, way.address, way.access):
            raise problem from error
        if LOST_BEHIND.search(str(error)) or (isinstance(error, Refused) and error.reason != "protocol"):
            raise RequestError(str(error)) from error
        todo = 'Type: server = launch_server("models"), or look at server.log() if you have launched one'
        raise ServerError(f"No server answers at {way.address} ({error}).", f"Expected a running Triton server. {_SECURE}", todo) from error


def explain(
    error: TransportError,
    model: str,
    address: Address,
    protocol: str,
    access: Access = NO_ACCESS,
    ended: tuple[str, str] = ("", ""),
) -> CourseError:
    """Return the error to raise for a request to a model that failed, for any reason but that the model is not loaded.

    ``ended`` is how the server ended, and what to type then; empty while it runs, or where that is not known.
    """
    said = " ".join(str(error).split()).rstrip(".")
    if not ended[0] and (problem := _not_let_in(error, address, access)):
        return problem
    if isinstance(error, Refused):
        reason = "gone" if error.reason == "failed" and _PROCESS_GONE.search(said) else error.reason
        said += "" if said.endswith(("!", "?")) else "."
        words = {"model": model, "address": address, "protocol": protocol.upper(), "other": "http" if protocol == "grpc" else "grpc"}
        return RequestError(*(text.format(said=said, **words) for text in _REFUSALS[reason]))
    if isinstance(error, TimedOut):
        happened = f"The server at {address} gave {said} to the request to {model!r}."
        expected = "The first request of a new shape takes longest; a queue that is too long looks the same."
        todo = f'Try again, or give the client more time: Client(…, timeout_s=300). If it never answers, type: server.reload("{model}")'
    elif LOST_BEHIND.search(said):
        who = "All servers" if "no healthy upstream" in said else "The chosen one of the servers"
        happened = f"{who} behind {address} failed to answer (the front says: {said})."
        expected = "Expected at least one that is healthy; requests that were under way are lost."
        todo = "Look at the fleet's card. To bring a server back, type: fleet.servers[0].restart()"
    else:
        happened = f"The server at {address} cannot be reached, or closed the connection before it answered ({said})."
        expected = f"Expected a server that speaks {protocol.upper()} there; requests that were under way when it went away are lost."
        todo = f'{_PORTS} {_SECURE} To start a server, type: server = launch_server("models")'
    return RequestError(happened, *(ended if ended[0] else (expected, todo)))


def not_loaded(model: str, said: str, loaded: Collection[str] | None, why: str = "", owned: bool = False) -> ModelError:
    """Return the error for a model that is not loaded, or not in this version: by the server's words, the models that are, and why."""
    if loaded is not None and model in loaded:
        happened = f"The model {model!r} is loaded, but not in the version that was asked for: {said.rstrip('.')}."
        return ModelError(happened, "Leave the version out.")
    happened = f"The model {model!r} is not loaded{f': {why}' if why else ''}.".replace("..", ".")
    serving = f"The models that are loaded: {quoted(loaded)}." if loaded is not None else ""
    in_its_list = bool(why) or "has no available versions" in said or NOT_READY in said
    if in_its_list and not owned:
        knows = "The server knows it: it could not be loaded, or was unloaded. The card and the log of the server's owner say why."
        return ModelError(happened, f"{knows} {serving}".strip(), "Ask the owner, who types: print(server)")
    if in_its_list and why:
        return ModelError(happened, serving, f'Fix its folder, then type: server.reload("{model}")')
    todo = suggestion(model, loaded or ()) or f'To load one that is in the repository, type: server.load("{model}")'
    return ModelError(happened, serving, todo)


def without_id(message: str) -> str:
    """Return the server's message without the placeholder that it puts in front for requests without an id."""
    return re.sub(r"^\[request id: [^\]]*\] ", "", message)


def _not_let_in(error: TransportError, address: Address, access: Access) -> CourseError | None:
    """Return the error for what keeps every request from a server: a page, a token, encryption."""
    said = " ".join(str(error).split()).rstrip(".")
    if isinstance(error, Unreachable):
        return None if LOST_BEHIND.search(said) else _encryption(address, said, access)
    if not isinstance(error, Refused):
        return None
    if error.reason == "page":
        todo = "Ask its owner for server.http_url; the port of JupyterLab or of a web page is another one."
        return NotAServerError(f"What answers at {address} is no Triton server: {said}.", _PORTS, todo)
    if error.reason != "restricted" or ADMIN_HEADER in said:
        return None
    what = "does not accept the token that was sent" if access.sends_token else "wants a token, and none was sent"
    return AccessError(
        f"The server at {address} {what} ({said[:200]}).",
        "Expected the token that the owner of the server has given out; it may have changed.",
        'Type: connect("…", token="…")   (in a terminal: export COURSE_TOKEN=…)',
    )


def _encryption(address: Address, said: str, access: Access) -> AccessError | None:
    """Return the error for a connection that failed because of its encryption, as a library said it; None when that was not the reason."""
    if not address.secure or not _NO_TLS.search(said):
        return None
    trusted = f"the authorities in {access.ca}" if access.ca else "the authorities that this machine trusts"
    plain = f'connect("{address.scheme.rstrip("s")}://{address}")'
    return AccessError(
        f"There is no encrypted connection to {address} that could be trusted ({said}). Nothing was sent.",
        f"Expected TLS, and a certificate that fits this name and {trusted}.",
        f'Ask the owner of the server for its name and CA file, and type: connect("…", ca="ca.pem")   (if it has no encryption: {plain})',
    )
