"""Inputs that pass from client to server by system shared memory, with ``tritonclient.utils.shared_memory``."""

from __future__ import annotations

import os
import threading
import time
import uuid
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import tritonclient.utils.shared_memory as shm

from helpers.client.endpoint import where
from helpers.client.http import Http
from helpers.client.problems import Refused, TransportError
from helpers.client.tensors import Request
from helpers.errors import InputError

# Bytes to which each tensor's place is aligned: one cache line, so that vector instructions read it at full speed.
_ALIGNMENT = 64
# How often the server is asked to let go of a region, 10 ms apart: it answers a little before it does.
_LET_GO = 100


class Region:
    """A region of shared memory for the inputs of one client, one request at a time; a request that needs a larger one gets it."""

    def __init__(self, server: Any, transport: Any) -> None:
        self._server, self._transport = server, transport
        self._lock = threading.Lock()
        self._size, self._name, self._handle = 0, "", None
        self._release: Callable[[], Any] | None = None

    def close(self) -> None:
        """Let the server forget the region, and give its memory back."""
        if self._release is not None:
            self._release()
        self._size = 0

    def infer(self, request: Request) -> Any:
        """Send one request and return tritonclient's result; strings, which have no bytes of a known size, travel with the request."""
        with self._lock:
            offsets, end = {}, 0
            for name, (array, datatype) in request.inputs.items():
                if array.nbytes and datatype != "BYTES":  # Triton maps no tensor without bytes
                    offsets[name] = end
                    end += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
            if end > self._size:
                self.close()
                self._open(end)
            places = {}
            for name, offset in offsets.items():
                array, _ = request.inputs[name]
                shm.set_shared_memory_region(self._handle, [array], offset)
                places[name] = (self._name, array.nbytes, offset)
            try:
                return self._transport.infer(replace(request, places=places))
            except BaseException:
                # The server may be another one by now, or may still read from it.
                self.close()
                raise

    def _open(self, byte_size: int) -> None:
        """Make a region and register it with the server, until it is closed or forgotten, or Python ends."""
        key = self._server.admin_headers("http") if hasattr(self._server, "admin_headers") else {}
        if not key:
            raise InputError(
                "This server does not let us register shared memory: that needs the administration key.",
                "Only the Server object that launched the server has it.",
                "Type: Client(server), or leave out shared_memory=True.",
            )
        # Regions are registered over HTTP, also for requests over gRPC.
        way, name = Http(where(self._server, "http")[1]), f"course-tensors-{os.getpid()}-{uuid.uuid4().hex[:12]}"
        handle = None
        try:
            handle = shm.create_shared_memory_region(name, name, byte_size, create_only=True)
            # Take the room now: a memory that is full would otherwise show as a crash at the first write.
            with open(f"/dev/shm/{name}", "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, byte_size)
            region = {"key": f"/{name}", "offset": 0, "byte_size": byte_size}
            way.ask(f"/v2/systemsharedmemory/region/{name}/register", region, headers=key)
        except (OSError, shm.SharedMemoryException, TransportError) as error:
            if handle is not None:
                shm.destroy_shared_memory_region(handle)
            if isinstance(error, TransportError) and not isinstance(error, Refused):
                raise
            raise InputError(
                f"Shared memory of {byte_size / 1e6:.1f} MB cannot be used: {error.__cause__ or error}.",
                "It needs that much room in /dev/shm, and a server on this machine; one in a container needs --ipc=host.",
                "Look with: df -h /dev/shm. Send smaller batches, or leave out shared_memory=True.",
            ) from error
        self._size, self._name, self._handle = byte_size, name, handle
        unregister = f"/v2/systemsharedmemory/region/{name}/unregister"
        self._release = weakref.finalize(self, _release, lambda: way.ask(unregister, headers=key, post=True), handle)


def _release(unregister: Callable[[], Any], handle: Any) -> None:
    for _ in range(_LET_GO):
        try:
            unregister()
        except Refused:  # still in use
            time.sleep(0.01)
            continue
        except TransportError:
            pass  # the server does not answer any more, or is another one by now: its mapping went with it
        break
    shm.destroy_shared_memory_region(handle)
