"""Tensors that pass from client to server by system shared memory, with ``tritonclient.utils.shared_memory``."""

from __future__ import annotations

import os
import time
import uuid
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.utils.shared_memory as shm
from tritonclient.utils import serialize_byte_tensor, triton_to_np_dtype

from helpers.client.problems import Refused, TransportError
from helpers.client.tensors import Array, Place, Request, Signature
from helpers.errors import InputError

# Bytes to which each tensor's place is aligned: one cache line, so that vector instructions read it at full speed.
_ALIGNMENT = 64
# Regions are named by this, the process that made them, and a random part.
_PREFIX = "course-tensors-"
# Seconds to wait until the server lets go of a region: it answers a little before it does, and a request that timed out may run on.
_LET_GO_S = 1.0
# Regions that the server did not let go of in that time; the next one that is registered makes it forget them.
_kept: set[str] = set()
_WITHOUT = "Leave out shared_memory=True; then the tensors travel over the network."


class Regions:
    """Regions of one client: each request takes one for itself, and leaves it to later ones.

    Args:
        transport: the way to the server.
        headers: returns what calls of the owner must carry.
    """

    def __init__(self, transport: Any, headers: Callable[[], Mapping[str, str]]) -> None:
        self._transport, self._headers = transport, headers
        self._idle: list[_Region] = []

    def close(self) -> None:
        """Let the server forget all regions that no request uses, and give their memory back."""
        while self._idle:
            self._idle.pop().close()

    def infer(self, signature: Signature, request: Request) -> tuple[Any, dict[str, Array]]:
        """Send one request whose tensors lie in shared memory, as far as their sizes are known before the answer.

        Returns:
            tritonclient's result, and the outputs that lay in shared memory.

        Raises:
            InputError: there is no room in shared memory, or the server does not let us register.
            TransportError: the server did not answer.
        """
        packed = {name: serialize_byte_tensor(array) if kind == "BYTES" else array for name, (array, kind) in request.inputs.items()}
        sizes = {name: len(array.item()) if array.dtype == object and array.size else array.nbytes for name, array in packed.items()}
        batch = next(iter(request.inputs.values()))[0].shape[:1] if signature.batched else ()
        for name in request.outputs:
            spec = signature.outputs[name]
            shape = (*batch, *spec.shape[len(batch) :])
            if spec.datatype != "BYTES" and min(shape, default=1) >= 0:
                sizes[name] = int(np.prod(shape, dtype=np.int64)) * np.dtype(triton_to_np_dtype(spec.datatype)).itemsize
        offsets, end = {}, 0
        for name, size in sizes.items():
            if size:  # Triton maps no tensor without bytes: such a one travels with the request
                offsets[name] = end
                end += -(-size // _ALIGNMENT) * _ALIGNMENT
        region = self._region(max(end, 1))
        try:
            for name, array in packed.items():
                if name in offsets:
                    shm.set_shared_memory_region(region.handle, [array], offsets[name])
            places = {name: Place(region.name, sizes[name], offset) for name, offset in offsets.items()}
            answer = self._transport.infer(replace(request, places=places))
            outputs: dict[str, Array] = {}
            for name in offsets.keys() & set(request.outputs):
                entry = answer.get_output(name)
                shape, kind = (entry["shape"], entry["datatype"]) if isinstance(entry, dict) else (entry.shape, entry.datatype)
                outputs[name] = shm.get_contents_as_numpy(region.handle, triton_to_np_dtype(kind), tuple(shape), offsets[name]).copy()
        except BaseException:
            # The server may be another one by now.
            region.close()
            raise
        self._idle.append(region)
        return answer, outputs

    def _region(self, byte_size: int) -> _Region:
        """Return a region that no other request uses, as large as this; those of earlier requests are used again."""
        with suppress(IndexError):
            region = self._idle.pop()
            if region.byte_size >= byte_size:
                return region
            region.close()
        return _Region(self._transport, byte_size, self._headers())


class _Region:
    """One region of system shared memory, registered with the server while the object is open."""

    def __init__(self, transport: Any, byte_size: int, headers: Mapping[str, str]) -> None:
        self.name = f"{_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self.byte_size = byte_size
        self.handle = _allocate(self.name, byte_size)
        try:
            # Regions of processes that were killed, and ours that were in use: nothing else makes the server forget them, and their
            # memory is held until then.
            for name in transport.regions(headers):
                owner = name.removeprefix(_PREFIX).partition("-")[0] if name.startswith(_PREFIX) else ""
                if name in _kept or (owner.isdecimal() and not Path(f"/proc/{owner}").exists()):
                    with suppress(Refused):  # still in use, or another client was faster
                        transport.unregister(name, headers)
                        _kept.discard(name)
            transport.register(self.name, f"/{self.name}", byte_size, headers)
        except BaseException as error:
            shm.destroy_shared_memory_region(self.handle)
            if not isinstance(error, Refused):
                raise
            happened = f"The server cannot open our shared memory: {error}."
            needs = (
                "Client and server must run on one machine and see the same /dev/shm, for which a container needs --ipc=host. From release"
                " 26.04 on the server must also be started with --allow-client-shm=true."
            )
            todo = _WITHOUT
            if error.reason == "restricted":
                happened = "This server does not let us register shared memory: that needs the administration key."
                needs = "Only the Server object that launched the server has it; a URL or connect() has not."
                todo = "Give the client that object, Client(server), or leave out shared_memory=True."
            raise InputError(happened, needs, todo) from error
        # Runs at close(), when the region is forgotten, and when Python ends.
        self._finalizer = weakref.finalize(self, _release, transport, self.name, dict(headers), self.handle)

    def close(self) -> None:
        """Let the server forget the region and give the memory back. A second call does nothing."""
        self._finalizer()


def _allocate(name: str, byte_size: int) -> Any:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        needs = "System shared memory needs Linux, and client and server on one machine."
        raise InputError("This machine has no /dev/shm.", needs, _WITHOUT)
    handle = None
    try:
        handle = shm.create_shared_memory_region(name, name, byte_size, create_only=True)
        # Take the room now: a memory that is full would otherwise show as a crash at the first write.
        with open(folder / name, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, byte_size)
    except (OSError, shm.SharedMemoryException) as error:
        if handle is not None:
            shm.destroy_shared_memory_region(handle)
        reason = error.__cause__ or error
        raise InputError(
            f"A shared-memory region of {byte_size / 1e6:.1f} MB cannot be made: {getattr(reason, 'strerror', None) or reason}.",
            "It needs that much room in /dev/shm.",
            "Look with: df -h /dev/shm. Send smaller batches, or leave out shared_memory=True.",
        ) from error
    return handle


def _release(transport: Any, name: str, headers: Mapping[str, str], handle: Any) -> None:
    deadline = time.monotonic() + _LET_GO_S
    while True:
        try:
            transport.unregister(name, headers)
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
