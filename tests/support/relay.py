"""A way to a server that can be cut: a TCP relay that closes connections in the middle of an answer."""

from __future__ import annotations

import contextlib
import socket
import threading

_PIECE = 1 << 16


class Relay:
    """Passes bytes on between clients and one port of this machine.

    Args:
        port: the port to pass on to.
        cut_after: bytes of the server's answers after which a connection is closed.
        cuts: how many connections are closed like that; later ones stay whole.

    Attributes:
        port: where the relay listens.
        cut: how many connections it has closed in the middle of an answer.
    """

    def __init__(self, port: int, cut_after: int, cuts: int) -> None:
        self._to, self._cut_after, self._cuts = port, cut_after, cuts
        self.cut = 0
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for one in self._open:
            _close(one)
        for thread in self._threads[1:]:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            server = socket.create_connection(("127.0.0.1", self._to))
            self._open += [client, server]
            pair = [
                threading.Thread(target=self._pass_on, args=(client, server, False)),
                threading.Thread(target=self._pass_on, args=(server, client, True)),
            ]
            self._threads += pair
            for thread in pair:
                thread.start()

    def _pass_on(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        passed = 0
        with contextlib.suppress(OSError):  # the other side has gone
            while piece := source.recv(_PIECE):
                passed += len(piece)
                if answers and passed > self._cut_after and self._may_cut():
                    break
                target.sendall(piece)
        _close(source)
        _close(target)

    def _may_cut(self) -> bool:
        with self._lock:
            if self.cut >= self._cuts:
                return False
            self.cut += 1
            return True


def _close(one: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed already
        one.shutdown(socket.SHUT_RDWR)
    one.close()
