"""Something that listens for HTTP and is no Triton server: a page, a neighbour, a proxy of the site."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Heard:
    """A listener and what it was sent.

    Attributes:
        port: where it listens.
        requests: target and headers of each request.
        answer: status, headers and body of its answers.
        passes_on_to: for a proxy, the port of this machine that stands for every other one.
    """

    port: int
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    answer: tuple[int, dict[str, str], bytes] = (200, {}, b"{}")
    passes_on_to: int = 0


@contextmanager
def listener(address: str = "127.0.0.1", port: int = 0) -> Iterator[Heard]:
    """Listen for HTTP."""
    heard = Heard(port)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            heard.requests.append((self.path, dict(self.headers)))
            status, headers, answer = self._passed_on(body) if heard.passes_on_to else heard.answer
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(answer)), "Connection": "close"}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        def _passed_on(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
            path = self.path.split("://", 1)[1].partition("/")[2]
            own = ("host", "connection", "proxy-authorization", "content-length")
            kept = {name: value for name, value in self.headers.items() if name.lower() not in own}
            url = f"http://127.0.0.1:{heard.passes_on_to}/{path}"
            request = urllib.request.Request(url, body or None, kept, method=self.command)
            try:
                with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
                    dropped = ("content-length", "connection", "transfer-encoding")
                    return answer.status, {n: v for n, v in answer.headers.items() if n.lower() not in dropped}, answer.read()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, {}, error.read()

        do_GET = do_POST = do_CONNECT = _any

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Listener(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET

    with Listener((address, port), Handler) as server:
        heard.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield heard
        finally:
            server.shutdown()
            thread.join()
