"""The way to a server over HTTP: urllib3's pool of connections, and ``tritonclient`` to encode requests and decode answers.

tritonclient's own connection belongs to the thread that made it, and notebooks and asynchronous sending use several.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import urllib.request
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

import urllib3
from urllib3.exceptions import HTTPError, NewConnectionError, ProtocolError, TimeoutError

from helpers.client.endpoint import NO_ACCESS, QUERY_TIMEOUT_S, Access, Address
from helpers.client.problems import (
    LOST_BEHIND,
    NotPassedOn,
    Refused,
    TimedOut,
    TransportError,
    Unreachable,
    is_not_ready,
    plainly,
    without_id,
)
from helpers.machine import is_loopback

if TYPE_CHECKING:
    from helpers.client.tensors import Request  # NumPy and tritonclient, which a question can do without

# Seconds for a look whether anything listens on a port.
LOOK_TIMEOUT_S = 2.0

_REASONS = {400: "inputs", 401: "restricted", 403: "restricted", 404: "unknown"}
# Connections that are kept for the next request: one for each thread of a large load.
_KEPT = 64


class Http:
    """Connections to a server, which are kept and used again by whichever thread comes next.

    Args:
        address: of the HTTP port.
        timeout_s: seconds that one inference request may take.
        access: token and trusted certificates.
    """

    protocol = "http"

    def __init__(self, address: Address, timeout_s: float = QUERY_TIMEOUT_S, access: Access = NO_ACCESS) -> None:
        self.address = address
        self.access = access
        self._timeout_s = timeout_s
        options: dict[str, Any] = {"maxsize": _KEPT}
        if address.secure:
            options["ssl_context"] = access.context()
        host, port = address.dialled.host, address.port
        self._proxy = _proxy_of(address, access)
        if self._proxy:
            manager = urllib3.ProxyManager(self._proxy, proxy_headers=_credentials(self._proxy), **options)
            self._pool = manager.connection_from_host(host, port, "https" if address.secure else "http")
        elif address.secure:
            self._pool = urllib3.HTTPSConnectionPool(host, port, **options)
        else:
            self._pool = urllib3.HTTPConnectionPool(host, port, **options)

    def is_live(self) -> bool:
        """True if the server answers and says that it lives."""
        return self._healthy("live")

    def is_ready(self) -> bool:
        """True if the server says that all its models are READY."""
        return self._healthy("ready")

    def about(self) -> dict[str, Any]:
        """Return the server's own name, version and extensions."""
        return self._facts("/v2", "name")

    def metadata(self, model: str, version: str = "") -> dict[str, Any]:
        """Return names, types and shapes of a model's inputs and outputs."""
        return self._facts(_path(model, version), "name")

    def whole_config(self, model: str) -> dict[str, Any]:
        """Return a model's config with everything that the server filled in, and the fields that nobody set."""
        return self._facts(f"{_path(model)}/config", "name")

    def config(self, model: str, version: str = "") -> dict[str, Any]:
        """Return a model's config with everything that the server filled in."""
        # These load gRPC, half a second that a launch need not wait for.
        from google.protobuf import json_format
        from tritonclient.grpc import model_config_pb2

        from helpers.client.grpc import as_dict

        answer = self._facts(f"{_path(model, version)}/config", "name")
        # Through the protobuf message, so that both protocols give the same dictionary, without the fields that nobody set.
        return as_dict(json_format.ParseDict(answer, model_config_pb2.ModelConfig(), ignore_unknown_fields=True))

    def statistics(self, model: str = "") -> list[dict[str, Any]]:
        """Return the counters of a model's versions, or of all models that are loaded."""
        return self._facts(f"{_path(model)}/stats" if model else "/v2/models/stats", "model_stats")["model_stats"]

    def infer(self, request: Request) -> Any:
        """Send one request and return tritonclient's result."""
        import tritonclient.http as triton_http
        from tritonclient.utils import InferenceServerException

        inputs, outputs = request.encode(triton_http)
        body, json_size = triton_http.InferenceServerClient.generate_request_body(inputs, outputs=outputs)
        headers = {"Content-Type": "application/octet-stream"}
        if json_size is not None:
            headers["Inference-Header-Content-Length"] = str(json_size)
        response = self._exchange("POST", f"{_path(request.model, request.version)}/infer", body, headers, self._timeout_s)
        length = response.headers.get("Inference-Header-Content-Length")
        try:
            result = triton_http.InferenceServerClient.parse_response_body(response.data, header_length=int(length) if length else None)
            result.get_response()["outputs"]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, InferenceServerException) as error:
            raise Refused("what answers there is no Triton server", "page") from error
        return result

    def regions(self, headers: Mapping[str, str]) -> list[str]:
        """Return the names of the regions of system shared memory that the server knows."""
        return [region["name"] for region in self.ask("/v2/systemsharedmemory/status", headers=headers)]

    def register(self, name: str, key: str, byte_size: int, headers: Mapping[str, str]) -> None:
        """Tell the server about a region of system shared memory."""
        body = {"key": key, "offset": 0, "byte_size": byte_size}
        self.ask(f"/v2/systemsharedmemory/region/{name}/register", body, headers=headers)

    def unregister(self, name: str, headers: Mapping[str, str]) -> None:
        """Let the server forget a region."""
        self.ask(f"/v2/systemsharedmemory/region/{name}/unregister", headers=headers, post=True)

    def ask(
        self,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        post: bool = False,
        timeout_s: float = QUERY_TIMEOUT_S,
    ) -> Any:
        """Send one request and return the answer: an object from JSON, else text.

        Args:
            path: path of the URL, such as ``/v2/models/add_sub/config``.
            body: object to send as JSON; sending one makes the request a POST.
            headers: further headers.
            post: POST without a body.
            timeout_s: seconds to wait for the answer.
        """
        data = json.dumps(body).encode() if body is not None else b"" if post else None
        response = self._exchange("GET" if data is None else "POST", path, data, headers or {}, timeout_s)
        text = response.data.decode("utf-8", "replace")
        if text[:1] in ("{", "["):
            with suppress(ValueError, RecursionError):
                return json.loads(text)
        return text

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.close()

    def _facts(self, path: str, field: str) -> dict[str, Any]:
        """Return an answer that must have this field: many a web page answers to everything, also in JSON."""
        answer = self.ask(path)
        if not (isinstance(answer, dict) and field in answer):
            raise Refused("what answers there is no Triton server", "page")
        return answer

    def _healthy(self, what: str) -> bool:
        answer = self.ask(f"/v2/health/{what}")
        # Triton's is empty; other servers of the protocol say it in JSON.
        if isinstance(answer, str) and answer.strip():
            raise Refused("what answers there is no Triton server", "page")
        return True

    def _exchange(self, method: str, path: str, body: Any, headers: Mapping[str, str], timeout_s: float) -> urllib3.BaseHTTPResponse:
        # With encryption, a proxy only makes a tunnel; else it has to be told where to.
        passed_on = bool(self._proxy) and not self.address.secure
        try:
            response = self._pool.urlopen(
                method,
                self.address.http(path) if passed_on else path,
                body=body,
                headers={**self.access.http_headers(), **headers},
                # A key or a token is for the server that was named, not for where an answer sends us.
                redirect=False,
                retries=False,
                assert_same_host=False,
                timeout=timeout_s,
            )
        except HTTPError as error:
            failure, cause = self._failure(error, timeout_s)
            raise failure from cause
        if response.status == http.client.OK:
            return response
        text = response.data.decode("utf-8", "replace")
        if 300 <= response.status < 400:
            raise Refused(f"it sends us on to {response.headers.get('Location') or 'nowhere'} (status {response.status})", "elsewhere")
        # A proxy's own refusal: servers word theirs in JSON.
        if passed_on and (response.status == 407 or (response.status in (403, 502, 503, 504) and not text.lstrip().startswith("{"))):
            raise NotPassedOn(f"{response.status} {response.reason}: {text}", _host_of(self._proxy))
        message = without_id(_refusal(text) or f"The server answered {response.status} {response.reason} to {path}.")
        if response.status == http.client.SERVICE_UNAVAILABLE and LOST_BEHIND.search(message):
            raise Unreachable(message)
        raise Refused(message, "unknown" if is_not_ready(message) else _REASONS.get(response.status, "failed"))

    def _failure(self, error: HTTPError, timeout_s: float) -> tuple[TransportError, BaseException]:
        """Return how a request failed, and what the operating system or the protocol says of it."""
        # In urllib3 a refused connection is a kind of time-out, too.
        if isinstance(error, TimeoutError) and not isinstance(error, NewConnectionError):
            return TimedOut(f"no answer within {timeout_s:g} s"), error
        cause: Any = error.args[1] if isinstance(error, ProtocolError) and len(error.args) > 1 else error
        while isinstance(cause, HTTPError) and not isinstance(cause, ProtocolError) and cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, TimeoutError | socket.timeout):
            return TimedOut(f"no answer within {timeout_s:g} s"), cause
        if isinstance(cause, http.client.RemoteDisconnected):
            return Unreachable("the connection was closed"), cause
        if isinstance(cause, http.client.BadStatusLine):
            return Refused("what answers there does not speak HTTP", "protocol"), cause
        words = str(cause) or type(cause).__name__
        if isinstance(cause, http.client.IncompleteRead):
            got, missing = cause.partial, cause.expected or 0
            got = got if isinstance(got, int) else len(got)
            words = f"the connection was cut after {got:,} of the answer's {got + missing:,} bytes"
        if self._proxy and not isinstance(cause, ssl.SSLError):
            return NotPassedOn(words, _host_of(self._proxy)), cause
        return Unreachable(words), cause


def ask(address: Address, path: str, body: Any = None, *, access: Access = NO_ACCESS, **options: Any) -> Any:
    """Send one HTTP request to an address, as :meth:`Http.ask` does, and raise errors that a person reads.

    Raises:
        ServerError: nothing answers at this address, or not in time.
        AccessError: the token, the certificate, the encryption or a proxy does not fit.
        RequestError: the server refused; the message is the server's own.
    """
    with closing(Http(address, access=access)) as way, plainly(way):
        return way.ask(path, body, **options)


def listens(address: Address) -> bool:
    """True if anything accepts connections at this address."""
    try:
        socket.create_connection((address.dialled.host, address.port), timeout=LOOK_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _path(model: str, version: str = "") -> str:
    return f"/v2/models/{quote(model, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")


def _refusal(text: str) -> str:
    """Return the server's reason in an error body, which is JSON with the key ``error``, or plain text."""
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return text.strip()


def _proxy_of(address: Address, access: Access) -> str:
    """Return the URL of the proxy through which a request to this address goes, as ``http_proxy`` and its kin say it; else nothing."""
    # A proxy would be asked for "localhost" too, and would look at its own machine.
    if access.direct or is_loopback(address.host) or urllib.request.proxy_bypass(str(address)):
        return ""
    url = urllib.request.getproxies().get("https" if address.secure else "http", "")
    return url if not url or "://" in url else f"http://{url}"


def _credentials(proxy: str) -> dict[str, str]:
    parts = urlsplit(proxy)
    who = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
    return {"Proxy-Authorization": urllib3.make_headers(basic_auth=who)["authorization"]} if who else {}


def _host_of(proxy: str) -> str:
    parts = urlsplit(proxy)
    return f"{parts.hostname}:{parts.port or 80}"
