"""How a request can fail, and the paragraph that says what happened, what was expected and what to type.

The ways to a server raise a :class:`TransportError`; who knows the circumstances turns it into the error that a person reads.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from helpers.client.endpoint import ADMIN_HEADER, NO_ACCESS, Access, Address
from helpers.errors import AccessError, CourseError, ModelError, NotAServerError, RequestError, ServerError, quoted, suggestion

# How Envoy, before several servers, words that it lost the one it had chosen, or has none that is healthy.
LOST_BEHIND = re.compile(r"upstream connect error|disconnect/reset before headers|no healthy upstream", re.IGNORECASE)
# What Triton says of a model that it has in its list, but in no version that serves.
_KNOWN = re.compile(r"has no available versions|is not at ready state")
# What it answers when the process of a Python model, or of a Python-based backend, is gone.
_STUB_GONE = re.compile(r"Stub process '.*' is not healthy")
# How OpenSSL (in Python) and BoringSSL (in gRPC) word it.
_UNTRUSTED = re.compile(
    r"certificate.?verify.?failed|hostname mismatch|hostname verification|peer name .* is not in peer certificate", re.I
)
_HOST_NAME = re.compile(r"hostname|ip address mismatch|peer name", re.I)
_EXPIRED = re.compile(r"expired|not yet valid", re.I)
_PORTS = "By the course's convention HTTP has the base port (9000), gRPC the next (9001) and metrics the one after (9002)."
# Seconds for the question whether a port speaks TLS: it makes a message better and must not make it late.
_LOOK_TIMEOUT_S = 1.0


class TransportError(Exception):
    """A request failed without a usable response."""


class Unreachable(TransportError):
    """The connection was refused, or dropped before the answer came. Sending again is harmless and may help."""


class TimedOut(TransportError):
    """No answer in time. The server may still be working on it, so it is not sent again."""


class NotPassedOn(Unreachable):
    """A proxy of the site did not pass the request on.

    Attributes:
        proxy: its host and port, where they are known.
    """

    def __init__(self, message: str, proxy: str = "") -> None:
        super().__init__(message)
        self.proxy = proxy


class Refused(TransportError):
    """The server answered with an error.

    Attributes:
        reason: ``inputs`` (they do not fit), ``unknown`` (no such model), ``restricted`` (needs the key), ``protocol`` (another of its
            ports answers), ``page`` (what answers is no Triton server), ``elsewhere`` (it names another address) or ``failed``.
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class Way(Protocol):
    """What the ways to a server have in common, as far as messages need it."""

    protocol: str
    address: Address
    access: Access


@dataclass(frozen=True)
class Circumstances:
    """What is known of a server beside a failed request.

    Attributes:
        ended: how it ended or that it hangs, in a sentence or two; empty while it runs, or where that is not known.
        todo: what to type to bring it back.
        owned: True for a server of one's own.
        loaded: names of the models that are loaded; None where the server does not say.
        reason: why the model is not loaded, where that is known.
        speaks_http: True if HTTP was answered at a port that was asked in gRPC.
    """

    ended: str = ""
    todo: str = ""
    owned: bool = False
    loaded: Collection[str] | None = None
    reason: str = ""
    speaks_http: bool = False


@contextmanager
def plainly(way: Way) -> Iterator[None]:
    """Turn the failures of questions to a server, such as whether it lives, into errors that a person reads.

    Raises:
        ServerError: nothing answers at this address, not in time, or something that is no Triton server.
        AccessError: token, certificate, encryption or proxy do not fit.
        RequestError: the server refused; the message is the server's own.
    """
    try:
        yield
    except TransportError as error:
        raise _of_question(error, way) from error


def explain(
    error: TransportError, model: str, address: Address, protocol: str, access: Access = NO_ACCESS, known: Circumstances | None = None
) -> CourseError:
    """Return the error to raise for a request to a model that failed.

    Args:
        error: how it failed.
        model: the model that was asked.
        address: where.
        protocol: ``grpc`` or ``http``.
        access: what was sent along, and which certificates are trusted.
        known: what is known of the server.
    """
    known = known or Circumstances()
    if isinstance(error, TimedOut):
        happened = f"The server at {address} gave {error} to the request to {model!r}."
        if known.ended:
            return RequestError(happened, known.ended, known.todo)
        return RequestError(
            happened,
            "The first request of a new shape takes longest; a queue that is too long looks the same.",
            f'Try again, or give the client more time: Client(…, timeout_s=300). If it never answers, type: server.reload("{model}")',
        )
    if problem := _of_connection(error, address, access):
        return problem
    if not isinstance(error, Refused):
        return _unreachable(error, address, protocol, known)
    if error.reason == "unknown":
        return not_loaded(model, str(error), known)
    if error.reason == "inputs":
        return RequestError(
            f"The server refused the request to {model!r}: {_sentence(error)}", "", "Compare the inputs with client.metadata(model)."
        )
    if error.reason == "protocol":
        return _other_protocol(address, protocol)
    if error.reason == "restricted":
        return RequestError(
            f"The server does not let us do this: {_sentence(error)}", "Expected the Server object that launched the server."
        )
    if _STUB_GONE.search(str(error)):
        # Triton 2.51 neither starts such a process again nor takes the model out of service; each request waits a second and fails.
        return RequestError(
            f"The process that ran the model {model!r} has ended: it crashed, was killed, or memory ran out.",
            "Triton still calls the model READY, but does not start the process again; other models are not affected.",
            f'Type: server.reload("{model}")   (on a server that is not yours, ask its owner)',
        )
    return RequestError(
        f"The model {model!r} failed on this request: {_sentence(error)}",
        "Other requests are not affected.",
        "Look at the inputs, and at the end of server.log().",
    )


def not_loaded(model: str, said: str, known: Circumstances) -> ModelError:
    """Return the error for a model that does not answer because it is not loaded, or not in the version that was asked for.

    Args:
        model: its name.
        said: the server's words, which tell a model that it knows from one that it does not.
        known: what is known of the server.
    """
    if known.loaded is not None and model in known.loaded:
        words = said.rstrip(".")
        return ModelError(f"The model {model!r} is loaded, but not in the version that was asked for: {words}.", "Leave the version out.")
    happened = f"The model {model!r} is not loaded{f': {known.reason}' if known.reason else ''}.".replace("..", ".")
    serving = f"The models that are loaded: {quoted(known.loaded)}." if known.loaded is not None else ""
    in_its_list = bool(_KNOWN.search(said)) or bool(known.reason)
    if in_its_list and not known.owned:
        why = "The server knows it: it could not be loaded, or was unloaded. The card and the log of the server's owner say why."
        return ModelError(happened, f"{why} {serving}".strip(), "Ask the owner, who types: print(server)")
    if in_its_list and known.reason:
        return ModelError(happened, serving, f'Fix its folder, then type: server.reload("{model}")')
    todo = suggestion(model, known.loaded or ()) or f'To load one that is in the repository, type: server.load("{model}")'
    return ModelError(happened, serving, todo)


def encryption(address: Address, said: str, access: Access) -> AccessError | None:
    """Return the error for a connection that failed because of its encryption; None when that was not the reason.

    Args:
        address: where, and whether we encrypted.
        said: what the library said.
        access: which certificates are trusted.
    """
    scheme = address.scheme or "http"
    if not address.secure:
        if _language(address) != "TLS":
            return None
        secure = {"grpc": "grpcs", "http": "https"}.get(scheme, "grpcs")
        return AccessError(
            f"The port {address} is encrypted (TLS), and we spoke plain text to it.",
            f"Expected an address that begins with {secure}://.",
            f'Type: connect("{"grpcs" if not address.scheme else secure}://{address}", …)',
        )
    if _UNTRUSTED.search(said):
        return _untrusted(address, said, access)
    if _language(address) == "something else":
        return AccessError(
            f"The port {address} does not speak TLS: it takes plain text, or is no server of this kind.",
            f"The address began with {scheme}://, which means encrypted.",
            f'If this server is meant to be reached without encryption, type: connect("{scheme.rstrip("s")}://{address}")',
        )
    return None


def without_id(message: str) -> str:
    """Return the server's message without the placeholder that it puts in front for requests without an id."""
    return re.sub(r"^\[request id: [^\]]*\] ", "", message)


def is_not_ready(message: str) -> bool:
    """True if a server says that it has a model in the version that was asked for, and that this version does not serve."""
    return "is not at ready state" in message


def _of_question(error: TransportError, way: Way) -> CourseError:
    """Return the error for a failed question that is about the server, not about one model."""
    binary = isinstance(error, Refused) and error.reason == "protocol"
    # A look at the encryption would only repeat what is clear already.
    clear = binary or isinstance(error, TimedOut) or isinstance(error.__cause__, (ConnectionRefusedError, socket.gaierror))
    problem = None if clear else _of_connection(error, way.address, way.access)
    if problem:
        return problem
    if (isinstance(error, Refused) and not binary) or LOST_BEHIND.search(str(error)):
        return RequestError(str(error))
    # What a gRPC port answers to HTTP is binary.
    reason = "it does not speak HTTP" if binary else str(error)
    return ServerError(
        f"No server answers at {way.address} ({reason}).",
        "Expected a running Triton server.",
        'Type: server = launch_server("models"), or look at server.log() if you have launched one',
    )


def _of_connection(error: TransportError, address: Address, access: Access) -> CourseError | None:
    """Return the error for what keeps a request from a server: a proxy, another address, a page, a token, encryption."""
    if isinstance(error, NotPassedOn):
        return _not_passed_on(address, error.proxy, str(error))
    if not isinstance(error, Refused):
        return None if LOST_BEHIND.search(str(error)) else encryption(address, str(error), access)
    if error.reason == "elsewhere":
        return AccessError(
            f"What answers at {address} is no Triton server: {error}.",
            "Nothing was sent there: a token or a key is only for the server that you name.",
            "If that is the server, type its address. If you launched one here, look at its state: print(server)",
        )
    if error.reason == "page":
        return NotAServerError(
            f"What answers at {address} is no Triton server: it sent a page, or an answer of another kind.",
            _PORTS,
            "Ask its owner for server.http_url; the port of JupyterLab or of a web page is another one.",
        )
    if error.reason == "restricted" and ADMIN_HEADER not in str(error):
        return _token_refused(address, str(error), access)
    return None


def _sentence(error: TransportError) -> str:
    text = " ".join(str(error).split())
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _other_protocol(address: Address, protocol: str) -> RequestError:
    return RequestError(
        f"The server at {address} does not answer in {protocol.upper()}.",
        _PORTS,
        f"Type the port for {protocol.upper()}, or Client(…, protocol={'http' if protocol == 'grpc' else 'grpc'!r})",
    )


def _unreachable(error: TransportError, address: Address, protocol: str, known: Circumstances) -> CourseError:
    said = _sentence(error).rstrip(".")
    if LOST_BEHIND.search(said):
        who = "All servers" if "no healthy upstream" in said else "The chosen one of the servers"
        return RequestError(
            f"{who} behind {address} failed to answer (the front says: {said}).",
            "Expected at least one that is healthy; requests that were under way are lost.",
            "Look at the fleet's card. To bring a server back, type: fleet.servers[0].restart()",
        )
    if known.speaks_http:
        return _other_protocol(address, protocol)
    happened = f"The server at {address} cannot be reached, or closed the connection before it answered ({said})."
    if known.ended:
        return RequestError(happened, known.ended, known.todo)
    return RequestError(
        happened,
        "Expected a running server at this address; requests that were under way when it went away are lost.",
        'Check the address and the port. To start a server, type: server = launch_server("models")',
    )


def _token_refused(address: Address, said: str, access: Access) -> AccessError:
    words = " ".join(said.split())[:200].rstrip(".")
    if access.sends_token:
        return AccessError(
            f"The server at {address} does not accept the token that was sent ({words}).",
            "Expected the token that the owner of the server has given out; it may have changed.",
            'Ask for it, and type: connect("…", token="…")',
        )
    return AccessError(
        f"The server at {address} wants a token, and none was sent ({words}).",
        "Expected the token that the owner of the server has given out.",
        'Type: connect("…", token="…")   (in a terminal: export COURSE_TOKEN=…)',
    )


def _not_passed_on(address: Address, proxy: str, said: str) -> AccessError:
    words = " ".join(re.sub(r"<(style|script|title).*?</\1>|<[^>]*>", " ", said, flags=re.S).split())[:200].rstrip(".")
    return AccessError(
        f"The request to {address} went to the proxy{f' {proxy}' if proxy else ''} of your site, which did not pass it on ({words}).",
        "A proxy is for addresses outside. The server itself has not seen the request.",
        f"If the server is inside your site, type before you start JupyterLab: export no_proxy={address.host},$no_proxy",
    )


def _untrusted(address: Address, said: str, access: Access) -> AccessError:
    if _EXPIRED.search(said):
        return AccessError(
            f"The certificate of {address} is out of date.",
            "Nothing was sent to it.",
            "Tell the owner of the server, and look at your clock.",
        )
    if _HOST_NAME.search(said):
        return AccessError(
            f"The certificate of {address} is for another name than {address.host}.",
            "So this may be another server; nothing was sent to it.",
            "Type the address with the name that is in the certificate.",
        )
    trusted = f"the authorities in {access.ca}" if access.ca else "the authorities that this machine trusts"
    return AccessError(
        f"The certificate of {address} is not signed by {trusted}.",
        "So this may be another server; nothing was sent to it.",
        'Ask the owner of the server for the file of its CA, and type: connect("…", ca="ca.pem")',
    )


def _language(address: Address) -> str:
    """Return what answers a TLS greeting at a port: ``TLS``, ``something else``, or ``nothing``. No more is sent."""
    # Only a look at which language is spoken: whose certificate it is does not matter for that.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        connection = socket.create_connection((address.dialled.host, address.port), timeout=_LOOK_TIMEOUT_S)
    except OSError:
        return "nothing"
    try:
        with connection, context.wrap_socket(connection, server_hostname=address.host):
            return "TLS"
    except TimeoutError:
        return "nothing"
    except (OSError, ValueError):
        return "something else"
