"""From a request that came to no answer to an error that says what happened and what to do."""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress
from typing import Any

from helpers import ending, settings
from helpers.client import access_errors, questions
from helpers.client.access import NO_ACCESS, Access
from helpers.client.address import Address
from helpers.client.rest import ask
from helpers.client.transport import LOST_BEHIND, NotPassedOn, Refused, TimedOut, TransportError
from helpers.errors import CourseError, ModelError, RequestError
from helpers.wording import quoted, suggestion

# What Triton says of a model that it has in its list, but in no version that serves.
_KNOWN = re.compile(r"has no available versions|is not at ready state")
# Seconds for a look around after a failure: it makes the message better and must not make it late.
_LOOK_TIMEOUT_S = 1.0
# What Triton answers when the process of a Python model, or of a Python-based backend, is gone.
_STUB_GONE = re.compile(r"Stub process '.*' is not healthy")


def explain(error: TransportError, model: str, address: Address, protocol: str, server: Any = None) -> CourseError:
    """The error to raise for a request to a model that came to no answer.

    Args:
        error: how it failed.
        model: the model that was asked.
        address: where.
        protocol: ``grpc`` or ``http``.
        server: the Server object, where there is one.
    """
    if isinstance(error, TimedOut) and _hangs(server):
        return RequestError(f"The server at {address} gave {error} to the request to {model!r}.", ending.HUNG, ending.RESTART)
    if isinstance(error, TimedOut):
        return RequestError(
            f"The server at {address} gave {error} to the request to {model!r}.",
            "The first request of a new shape takes longest; a queue that is too long looks the same.",
            f'Try again, or give the client more time: Client(…, timeout_s=300). If it never answers, type: server.reload("{model}")',
        )
    if isinstance(error, NotPassedOn):
        return access_errors.not_passed_on(address, error.proxy, str(error))
    access = getattr(server, "access", NO_ACCESS)
    if not isinstance(error, Refused):
        if problem := access_errors.encryption(address, str(error), access):
            return problem
        return _unreachable(error, address, protocol, server)
    if error.reason == "page":
        return access_errors.no_server(address)
    if error.reason == "elsewhere":
        return access_errors.sent_elsewhere(address, str(error))
    if error.reason == "unknown":
        return _unknown_model(error, model, address, protocol, server, access)
    if error.reason == "inputs":
        return RequestError(
            f"The server refused the request to {model!r}: {_sentence(error)}", "", "Compare the inputs with client.metadata(model)."
        )
    if error.reason == "protocol":
        return RequestError(
            f"The server at {address} does not answer in {protocol.upper()}.",
            "By the course's convention HTTP has the base port (9000), gRPC the next (9001) and metrics the one after (9002).",
            f"Type the port for {protocol.upper()}, or Client(…, protocol={'http' if protocol == 'grpc' else 'grpc'!r})",
        )
    if error.reason == "restricted" and settings.ADMIN_HEADER not in str(error):
        return access_errors.refused(address, str(error), access)
    if error.reason == "restricted":
        return RequestError(
            f"The server does not let us do this: {_sentence(error)}", "Expected the Server object that launched the server."
        )
    if _STUB_GONE.search(str(error)):
        # Triton 2.51 neither starts such a process again nor takes the model out of service; each request waits a second and fails.
        return RequestError(
            f"The process that ran the model {model!r} has ended: it crashed, was killed, or memory ran out.",
            "Triton still calls the model READY, but does not start the process again; other models are not touched by it.",
            f'Type: server.reload("{model}")   (on a server that is not yours, ask its owner)',
        )
    return RequestError(
        f"The model {model!r} failed on this request: {_sentence(error)}",
        "Other requests are not touched by it.",
        "Look at the inputs, and at the end of server.log().",
    )


def _hangs(server: Any) -> bool:
    return getattr(server, "owned", False) and server.state() == "hung"


def _sentence(error: TransportError) -> str:
    text = " ".join(str(error).split())
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _unreachable(error: TransportError, address: Address, protocol: str, server: Any) -> CourseError:
    if LOST_BEHIND.search(str(error)):
        who = "All servers" if "no healthy upstream" in str(error) else "The chosen one of the servers"
        return RequestError(
            f"{who} behind {address} failed to answer (the front says: {_sentence(error).rstrip('.')}).",
            "Expected at least one that is healthy; requests that were under way are lost.",
            "Look at the fleet's card. To bring a server back, type: fleet.servers[0].restart()",
        )
    if protocol == "grpc" and _speaks_http(address):
        return explain(Refused(str(error), "protocol"), "", address, protocol)
    happened = f"The server at {address} cannot be reached, or closed the connection before it answered ({_sentence(error).rstrip('.')})."
    if _hangs(server):
        return RequestError(happened, ending.HUNG, ending.RESTART)
    if getattr(server, "owned", False) and server.state() != "running":
        died = server.state() == "died"
        return RequestError(
            happened,
            f"It is no longer running; requests that were under way are lost. {ending.explain(server) if died else ''}".strip(),
            ending.RESTART,
        )
    return RequestError(
        happened,
        "Expected a running server at this address; requests that were under way when it went away are lost.",
        'Check the address and the port. To start a server, type: server = launch_server("models")',
    )


def _speaks_http(address: Address) -> bool:
    if address.secure:
        return False
    try:
        # Without the token: nobody knows who listens there.
        ask(address, "/v2/health/live", timeout_s=_LOOK_TIMEOUT_S)
    except CourseError as error:
        return isinstance(error, RequestError)
    return True


def _unknown_model(error: Refused, model: str, address: Address, protocol: str, server: Any, access: Access) -> CourseError:
    states = _states(server)
    ready = sorted({name for name, state, _ in states if state == "READY"}) if states else _loaded(address, protocol, access)
    if ready is not None and model in ready:
        return ModelError(
            f"The model {model!r} is loaded, but not in the version that was asked for: {_sentence(error)}", "Leave the version out."
        )
    reason = next((reason for name, state, reason in states if name == model and state != "READY"), "")
    return not_loaded(model, str(error), ready, reason, getattr(server, "owned", False))


def not_loaded(model: str, said: str, ready: Collection[str] | None, reason: str = "", owned: bool = False) -> ModelError:
    """Return the error for a model that does not answer because it is not loaded.

    Args:
        model: its name.
        said: the server's words, which tell a model that it knows from one that it does not.
        ready: names of the models that are loaded; None where the server does not say.
        reason: why it is not loaded, where that is known.
        owned: True for a server of one's own.
    """
    known = bool(_KNOWN.search(said)) or bool(reason)
    happened = f"The model {model!r} is not loaded{f': {reason}' if reason else ''}.".replace("..", ".")
    serving = f"The models that are loaded: {quoted(ready)}." if ready is not None else ""
    if known and not owned:
        why = "The server knows it: it could not be loaded, or was unloaded. The card and the log of the server's owner say why."
        return ModelError(happened, f"{why} {serving}".strip(), "Ask the owner, who types: print(server)")
    if known and reason:
        return ModelError(happened, serving, f'Fix its folder, then type: server.reload("{model}")')
    todo = suggestion(model, ready or ()) or f'To load one that is in the repository, type: server.load("{model}")'
    return ModelError(happened, serving, todo)


def _states(server: Any) -> list[tuple[str, str, str]]:
    if not hasattr(server, "models"):
        return []
    with suppress(CourseError):
        return [(model.name, model.state, model.reason) for model in server.models()]
    return []


def _loaded(address: Address, protocol: str, access: Access) -> list[str] | None:
    """Names of the models that are loaded, as the statistics list them; None where the server has none of them.

    Not from the metrics: their page also has the models that failed while they were loaded.
    """
    with suppress(CourseError):
        asked = (questions.OverGrpc if protocol == "grpc" else questions.OverHttp)(address, access)
        return sorted({counters["name"] for counters in asked.statistics()})
    return None
