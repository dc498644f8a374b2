"""The way to a server over HTTP: the standard library's connections, and ``tritonclient`` to encode requests and decode answers.

tritonclient's own connection belongs to the thread that made it, and notebooks use several; urllib3's pool takes half as much again of CPU.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from typing import Any
from urllib.parse import quote

from urllib3.util import wait_for_read

from helpers.client import problems
from helpers.client.endpoint import NO_ACCESS, QUERY_TIMEOUT_S, RELOAD_MARK, Access, Address
from helpers.client.problems import Refused, TimedOut, TransportError, Unreachable

# Seconds for a look whether anything listens on a port.
_LOOK_TIMEOUT_S = 2.0

_REASONS = {400: "inputs", 401: "restricted", 403: "restricted", 404: "unknown"}


class Http:
    """Connections to a server, which are kept and used again by whichever thread comes next; ``timeout_s`` is for one inference request."""

    def __init__(self, address: Address, timeout_s: float = QUERY_TIMEOUT_S, access: Access = NO_ACCESS) -> None:
        self.address, self.access, self._timeout_s = address, access, timeout_s
        self._headers = access.headers
        self._idle: list[http.client.HTTPConnection] = []

    def is_ready(self) -> bool:
        """True if the server says that all its models are READY."""
        return self.ask("/v2/health/ready") is not None

    def about(self) -> dict[str, Any]:
        """Return the server's own name, version and extensions."""
        return self._facts("/v2")

    def metadata(self, model: str) -> dict[str, Any]:
        """Return names, types and shapes of a model's inputs and outputs."""
        return self._facts(_path(model))

    def config(self, model: str) -> dict[str, Any]:
        """Return a model's config with everything that the server filled in."""
        config = self._facts(f"{_path(model)}/config")
        config.get("parameters", {}).pop(RELOAD_MARK, None)
        return config

    def statistics(self, model: str = "") -> list[dict[str, Any]]:
        """Return the counters of a model's versions, or of all models that are loaded."""
        return list(self._facts(f"{_path(model)}/stats" if model else "/v2/models/stats", "model_stats")["model_stats"])

    def infer(self, model: str, version: str, inputs: Mapping[str, Any], outputs: Sequence[str]) -> Any:
        """Send one request and return tritonclient's result."""
        import tritonclient.http as triton_http

        from helpers.client.tensors import encode

        tensors, wanted = encode(triton_http, inputs, outputs)
        body, json_size = triton_http.InferenceServerClient.generate_request_body(tensors, outputs=wanted)
        headers = {"Content-Type": "application/octet-stream"}
        if json_size is not None:
            headers["Inference-Header-Content-Length"] = str(json_size)
        data, answered = self._exchange(f"{_path(model, version)}/infer", body, headers, self._timeout_s)
        length = answered.get("Inference-Header-Content-Length")
        return triton_http.InferenceServerClient.parse_response_body(data, header_length=int(length) if length else None)

    def ask(self, path: str, body: Any = None, headers: Mapping[str, str] | None = None, timeout_s: float = QUERY_TIMEOUT_S) -> Any:
        """Send one request, a POST where there is a body for JSON; return the answer: an object from JSON, else text."""
        answer, _ = self._exchange(path, None if body is None else json.dumps(body).encode(), headers or {}, timeout_s)
        text = answer.decode("utf-8", "replace")
        with suppress(ValueError, RecursionError):
            return json.loads(text)
        return text

    def close(self) -> None:
        """Close the idle connections; a later request opens another."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # A server is seldom closed by those who ask it. No global name is used: at Python's end there are none.
    __del__ = close

    def _facts(self, path: str, field: str = "name") -> dict[str, Any]:
        """Return an answer that must have this field: many a web page answers to everything, also in JSON."""
        answer = self.ask(path)
        if not (isinstance(answer, dict) and field in answer):
            raise Refused("it sent a page, or an answer of another kind", "page")
        return answer

    def _exchange(self, path: str, body: bytes | None, headers: Mapping[str, str], timeout_s: float) -> tuple[bytes, Any]:
        """Send one request; return the body and the headers of its answer."""
        connection = self._connection()
        connection.timeout = timeout_s
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        try:
            connection.request("GET" if body is None else "POST", path, body, {**self._headers, **headers})
            response = connection.getresponse()
            data = response.read()
        except BaseException as error:
            connection.close()
            if not isinstance(error, OSError | http.client.HTTPException):
                raise
            raise _failure(error, timeout_s) from error
        self._idle.append(connection)
        if response.status != http.client.OK:
            raise _refusal(response, data.decode("utf-8", "replace"))
        return data, response.headers

    def _connection(self) -> http.client.HTTPConnection:
        """Return a connection that no other thread uses: an idle one that is still open, else a new one."""
        while self._idle:
            with suppress(IndexError):  # another thread was faster
                connection = self._idle.pop()
                if connection.sock is not None and not wait_for_read(connection.sock, 0):
                    return connection
                connection.close()
        place = self.address.dialled
        if place.secure:
            return http.client.HTTPSConnection(place.host, place.port, context=ssl.create_default_context(cafile=self.access.ca or None))
        return http.client.HTTPConnection(place.host, place.port)


def _refusal(response: http.client.HTTPResponse, text: str) -> TransportError:
    """Return the error for an answer that is not OK."""
    # A key or a token is for the server that was named, not for where an answer sends us.
    if 300 <= response.status < 400:
        return Refused(f"it sends us on to {response.headers.get('Location')} (status {response.status})", "page")
    try:
        message = problems.without_id(str(json.loads(text)["error"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        message = text.strip() or f"The server answered {response.status} {response.reason}."
        if response.status == http.client.SERVICE_UNAVAILABLE:
            return Unreachable(message)  # not Triton's words, but those of a front that lost the server behind it
    return Refused(message, "unknown" if problems.NOT_READY in message else _REASONS.get(response.status, "failed"))


def _failure(error: Exception, timeout_s: float) -> TransportError:
    """Return the error for an answer that did not come."""
    if isinstance(error, TimeoutError):
        return TimedOut(f"no answer within {timeout_s:g} s")
    if isinstance(error, OSError):
        return Unreachable(str(error) or type(error).__name__)
    cut = isinstance(error, http.client.IncompleteRead)
    return Unreachable("the connection was closed") if cut else Refused("it does not speak HTTP", "protocol")


def ask(address: Address, path: str, body: Any = None, *, access: Access = NO_ACCESS, **options: Any) -> Any:
    """Send one HTTP request to an address, as :meth:`Http.ask` does; errors are those of :func:`~helpers.client.problems.plainly`."""
    with closing(Http(address, access=access)) as way, problems.plainly(way):
        return way.ask(path, body, **options)


def listens(address: Address) -> bool:
    """True if anything accepts connections at this address."""
    with suppress(OSError), socket.create_connection((address.dialled.host, address.port), timeout=_LOOK_TIMEOUT_S):
        return True
    return False


def _path(model: str, version: str = "") -> str:
    return f"/v2/models/{quote(model, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")
