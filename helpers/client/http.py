"""The way to a server over HTTP.

Requests are encoded and answers decoded by ``tritonclient``. The connection is the standard library's: tritonclient's own belongs
to the thread that made it, and notebooks and asynchronous sending use several.
"""

from __future__ import annotations

import http.client
import json
import ssl
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote

import tritonclient.http as triton_http
from google.protobuf import json_format
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

from helpers import settings
from helpers.client.access import NO_ACCESS, Access
from helpers.client.access_errors import is_from_proxy
from helpers.client.address import Address
from helpers.client.rest import proxy_of, refusal
from helpers.client.transport import (
    LOST_BEHIND,
    NotPassedOn,
    Refused,
    Request,
    TimedOut,
    Unreachable,
    as_dict,
    elsewhere,
    is_not_ready,
    without_id,
)


class HttpTransport:
    """HTTP: connections are kept and used again, by whichever thread comes next."""

    protocol = "http"

    def __init__(self, address: Address, timeout_s: float, access: Access = NO_ACCESS) -> None:
        self._address = address
        self._access = access
        self._timeout_s = timeout_s
        self._proxy = proxy_of(address, access)
        self._idle: list[http.client.HTTPConnection] = []
        self._lock = threading.Lock()

    def about(self) -> dict[str, Any]:
        """The server's own name, version and extensions."""
        return self._json("GET", "/v2")

    def metadata(self, model: str, version: str = "") -> dict[str, Any]:
        """The model's metadata."""
        return self._json("GET", self._path(model, version))

    def config(self, model: str, version: str = "") -> dict[str, Any]:
        """The model's config as the server has completed it."""
        answer = self._json("GET", f"{self._path(model, version)}/config")
        # Through the protobuf message, so that both protocols give the same dictionary, without the fields that nobody set.
        return as_dict(json_format.ParseDict(answer, model_config_pb2.ModelConfig(), ignore_unknown_fields=True))

    def infer(self, request: Request) -> Any:
        """Send one request and return tritonclient's result."""
        inputs, outputs = request.encode(triton_http)
        body, json_size = triton_http.InferenceServerClient.generate_request_body(inputs, outputs=outputs)
        headers = {"Content-Type": "application/octet-stream"}
        if json_size is not None:
            headers["Inference-Header-Content-Length"] = str(json_size)
        data, header_length = self._exchange("POST", f"{self._path(request.model, request.version)}/infer", body, headers, self._timeout_s)
        try:
            result = triton_http.InferenceServerClient.parse_response_body(data, header_length=header_length)
            result.get_response()["outputs"]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, InferenceServerException) as error:
            raise Refused("what answers there is no Triton server", "page") from error
        return result

    def regions(self, headers: Mapping[str, str]) -> list[str]:
        """Names of the regions of system shared memory that the server knows."""
        data, _ = self._exchange("GET", "/v2/systemsharedmemory/status", None, headers, settings.QUERY_TIMEOUT_S)
        return [region["name"] for region in json.loads(data)]

    def register(self, name: str, key: str, byte_size: int, headers: Mapping[str, str]) -> None:
        """Tell the server about a region of system shared memory."""
        body = json.dumps({"key": key, "offset": 0, "byte_size": byte_size}).encode()
        self._exchange("POST", f"/v2/systemsharedmemory/region/{name}/register", body, headers, settings.QUERY_TIMEOUT_S)

    def unregister(self, name: str, headers: Mapping[str, str]) -> None:
        """Let the server forget a region."""
        self._exchange("POST", f"/v2/systemsharedmemory/region/{name}/unregister", b"", headers, settings.QUERY_TIMEOUT_S)

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            connections, self._idle = self._idle, []
        for connection in connections:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        host, port = self._address.dialled.host, self._address.port
        if self._proxy is not None:
            host, port = self._proxy.address.host, self._proxy.address.port
        if not self._address.secure:
            return http.client.HTTPConnection(host, port)
        connection = http.client.HTTPSConnection(host, port, context=self._access.context())
        if self._proxy is not None:
            connection.set_tunnel(self._address.host, self._address.port, dict(self._proxy.headers))
        return connection

    @staticmethod
    def _path(model: str, version: str) -> str:
        return f"/v2/models/{quote(model, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")

    def _json(self, method: str, path: str) -> Any:
        data, _ = self._exchange(method, path, None, {}, settings.QUERY_TIMEOUT_S)
        with suppress(ValueError, RecursionError):
            answer = json.loads(data)
            # Many a web page answers to everything, also in JSON.
            if isinstance(answer, dict) and "name" in answer:
                return answer
        raise Refused("what answers there is no Triton server", "page")

    def _exchange(self, method: str, path: str, body: Any, headers: Mapping[str, str], timeout_s: float) -> tuple[bytes, int | None]:
        # None where there is no proxy, or only its tunnel.
        passed_on = None if self._address.secure else self._proxy
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        if connection is None:
            connection = self._connect()
        connection.timeout = timeout_s
        if connection.sock is not None:
            connection.sock.settimeout(timeout_s)
        try:
            # A proxy has to be told where to, unless it only makes a tunnel.
            target = self._address.http(path) if passed_on else path
            headers = {**headers, **passed_on.headers} if passed_on else headers
            connection.request(method, target, body=body, headers={**self._access.http_headers(), **headers})
            response = connection.getresponse()
            data = response.read()
        except http.client.RemoteDisconnected as error:
            connection.close()
            self.close()
            raise Unreachable("the connection was closed") from error
        except http.client.BadStatusLine as error:
            connection.close()
            raise Refused("what answers there does not speak HTTP", "protocol") from error
        except TimeoutError as error:
            connection.close()
            raise TimedOut(f"no answer within {timeout_s:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            if isinstance(error, http.client.IncompleteRead):
                total = len(error.partial) + (error.expected or 0)
                error = ConnectionError(f"the connection was cut after {len(error.partial):,} of the answer's {total:,} bytes")
            # The other idle connections lead to the same dead server.
            self.close()
            if self._proxy is not None and not isinstance(error, ssl.SSLError):
                raise NotPassedOn(str(error), str(self._proxy.address)) from error
            raise Unreachable(str(error) or type(error).__name__) from error
        except BaseException:
            connection.close()
            raise
        with self._lock:
            self._idle.append(connection)
        if 300 <= response.status < 400:
            raise Refused(elsewhere(response.status, response.headers.get("Location")), "elsewhere")
        if passed_on and is_from_proxy(response.status, data.decode("utf-8", "replace")):
            words = f"{response.status} {response.reason}: {data.decode('utf-8', 'replace')}"
            raise NotPassedOn(words, str(passed_on.address))
        if response.status != http.client.OK:
            message = refusal(data.decode("utf-8", "replace")) or f"the server answered {response.status} {response.reason}"
            if response.status == http.client.SERVICE_UNAVAILABLE and LOST_BEHIND.search(message):
                raise Unreachable(message)
            raise Refused(without_id(message), "unknown" if is_not_ready(message) else _REASONS.get(response.status, "failed"))
        length = response.headers.get("Inference-Header-Content-Length")
        return data, int(length) if length else None


_REASONS = {400: "inputs", 401: "restricted", 403: "restricted", 404: "unknown"}
