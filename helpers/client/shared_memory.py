"""Inputs that pass from client to server by system shared memory, with ``tritonclient.utils.shared_memory``."""

from __future__ import annotations

import os
import time
import uuid
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import tritonclient.utils.shared_memory as shm

from helpers.client.endpoint import where
from helpers.client.http import Http
from helpers.client.problems import Refused, TransportError
from helpers.client.tensors import Place, Request
from helpers.errors import InputError

# Bytes to which each tensor's place is aligned: one cache line, so that vector instructions read it at full speed.
_ALIGNMENT = 64
# Regions are named by this, the process that made them, and a random part.
_PREFIX = "course-tensors-"
# Seconds to wait until the server lets go of a region: it answers a little before it does, and a request that timed out may run on.
_LET_GO_S = 1.0
# Regions that the server did not let go of in that time; the next one that is registered makes it forget them.
_kept: set[str] = set()


class Regions:
    """Regions of one client: each request takes one for itself, and leaves it to later ones."""

    def __init__(self, server: Any, transport: Any) -> None:
        self._server, self._transport = server, transport
        self._idle: list[_Region] = []

    def close(self) -> None:
        """Let the server forget all regions that no request uses, and give their memory back."""
        while self._idle:
            self._idle.pop().close()

    def infer(self, request: Request) -> Any:
        """Send one request and return tritonclient's result; strings, which have no bytes of a known size, travel with the request.

        Raises:
            InputError: there is no room in shared memory, or the server does not let us register.
            TransportError: the server did not answer.
        """
        places, end = {}, 0
        for name, (array, datatype) in request.inputs.items():
            if array.nbytes and datatype != "BYTES":  # Triton maps no tensor without bytes
                places[name] = Place("", array.nbytes, end)
                end += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        region = self._region(max(end, 1))
        try:
            for name, place in places.items():
                place.region = region.name
                shm.set_shared_memory_region(region.handle, [request.inputs[name][0]], place.offset)
            answer = self._transport.infer(replace(request, places=places))
        except BaseException:
            # The server may be another one by now.
            region.close()
            raise
        self._idle.append(region)
        return answer

    def _region(self, byte_size: int) -> _Region:
        """Return a region that no other request uses, as large as this; those of earlier requests are used again."""
        with suppress(IndexError):
            region = self._idle.pop()
            if region.byte_size >= byte_size:
                return region
            region.close()
        key = self._server.admin_headers("http") if hasattr(self._server, "admin_headers") else {}
        if not key:
            raise InputError(
                "This server does not let us register shared memory: that needs the administration key.",
                "Only the Server object that launched the server has it.",
                "Type: Client(server), or leave out shared_memory=True.",
            )
        # Regions are registered over HTTP, also for requests over gRPC.
        way = Http(where(self._server, "http")[1])

        def register(what: str, **options: Any) -> Any:
            return way.ask(f"/v2/systemsharedmemory/{what}", headers=key, **options)

        return _Region(register, byte_size)


class _Region:
    """One region of system shared memory, registered with the server until it is closed, forgotten, or Python ends."""

    def __init__(self, register: Callable[..., Any], byte_size: int) -> None:
        self.name = f"{_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self.byte_size = byte_size
        self.handle = _allocate(self.name, byte_size)
        try:
            # Regions of processes that were killed, and ours that were in use: nothing else makes the server forget them, and their
            # memory is held until then.
            for name in (region["name"] for region in register("status")):
                owner = name.removeprefix(_PREFIX).partition("-")[0] if name.startswith(_PREFIX) else ""
                if name in _kept or (owner.isdecimal() and not Path(f"/proc/{owner}").exists()):
                    with suppress(Refused):  # still in use, or another client was faster
                        register(f"region/{name}/unregister", post=True)
                        _kept.discard(name)
            register(f"region/{self.name}/register", body={"key": f"/{self.name}", "offset": 0, "byte_size": byte_size})
        except BaseException as error:
            shm.destroy_shared_memory_region(self.handle)
            if not isinstance(error, Refused):
                raise
            raise InputError(
                f"The server cannot open our shared memory: {error}.",
                "Client and server must run on one machine and see the same /dev/shm, for which a container needs --ipc=host.",
                "Or leave out shared_memory=True.",
            ) from error
        self.close = weakref.finalize(self, _release, register, self.name, self.handle)


def _allocate(name: str, byte_size: int) -> Any:
    handle = None
    try:
        handle = shm.create_shared_memory_region(name, name, byte_size, create_only=True)
        # Take the room now: a memory that is full would otherwise show as a crash at the first write.
        with open(f"/dev/shm/{name}", "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, byte_size)
    except (OSError, shm.SharedMemoryException) as error:
        if handle is not None:
            shm.destroy_shared_memory_region(handle)
        raise InputError(
            f"A shared-memory region of {byte_size / 1e6:.1f} MB cannot be made: {error.__cause__ or error}.",
            "It needs that much room in /dev/shm, on the server's machine.",
            "Look with: df -h /dev/shm. Send smaller batches, or leave out shared_memory=True.",
        ) from error
    return handle


def _release(register: Callable[..., Any], name: str, handle: Any) -> None:
    deadline = time.monotonic() + _LET_GO_S
    while True:
        try:
            register(f"region/{name}/unregister", post=True)
        except Refused as error:
            if "in use" in str(error):
                if time.monotonic() < deadline:
                    time.sleep(0.01)
                    continue
                _kept.add(name)
        except TransportError:
            pass  # the server does not answer any more, or is another one by now: its mapping went with it
        break
    shm.destroy_shared_memory_region(handle)
