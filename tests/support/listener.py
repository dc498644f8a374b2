"""Something that listens for HTTP and is no Triton server: a page, a neighbour, a proxy of the site."""

from __future__ import annotations

import socket
import threading
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
    """

    port: int
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    answer: tuple[int, dict[str, str], bytes] = (200, {}, b"{}")


@contextmanager
def listener(address: str = "127.0.0.1", port: int = 0) -> Iterator[Heard]:
    """Listen for HTTP."""
    heard = Heard(port)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            heard.requests.append((self.path, dict(self.headers)))
            status, headers, answer = heard.answer
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(answer)), "Connection": "close"}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

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
