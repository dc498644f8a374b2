"""Tensors by system shared memory: the server reads and writes them where they are, and only their place travels.

A region has a name in ``/dev/shm`` for the few milliseconds in which the server maps it, no longer: then the name is removed, and
the memory lives on until both sides let go. So nothing is left behind in ``/dev/shm``, not even by a kernel that is killed.
"""

from __future__ import annotations

import mmap
import os
import threading
import uuid
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.utils import serialize_byte_tensor, triton_to_np_dtype

from helpers.client.transport import Place, Refused, TransportError
from helpers.errors import InputError

_FOLDER = Path("/dev/shm")
# Bytes to which each tensor's place is aligned: one cache line, so that vector instructions read it at full speed.
_ALIGNMENT = 64
# Regions are named by this, the process that made them, and a random part.
_PREFIX = "course-tensors-"


class Region:
    """One region, registered with the server while the object is open.

    Args:
        transport: the way to the server.
        byte_size: size of the region in bytes.
        headers: the owner's administration header, without which the server does not register anything.

    Raises:
        InputError: there is no room in shared memory, or the server does not let us register.
        TransportError: the server did not answer.
    """

    def __init__(self, transport: Any, byte_size: int, headers: Mapping[str, str]) -> None:
        self.name = f"{_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:12]}"
        self.byte_size = max(byte_size, 1)
        self.memory = _allocate(self.name, self.byte_size)
        try:
            _sweep(transport, headers)
            transport.register(self.name, f"/{self.name}", self.byte_size, headers)
        except BaseException as error:
            self.memory.close()
            if isinstance(error, Refused):
                raise _refused(error) from error
            raise
        finally:
            (_FOLDER / self.name).unlink()
        # Runs at close(), when the region is forgotten, and when Python ends.
        self._finalizer = weakref.finalize(self, _release, transport, self.name, dict(headers), self.memory)

    def close(self) -> None:
        """Let the server forget the region and give the memory back. A second call does nothing."""
        self._finalizer()

    def write(self, offset: int, data: Any) -> None:
        """Copy a buffer's bytes into the region."""
        view = memoryview(data).cast("B") if memoryview(data).nbytes else b""
        self.memory[offset : offset + len(view)] = view

    def read(self, place: Place, shape: tuple[int, ...], datatype: str) -> np.ndarray:
        """A copy of the tensor at a place."""
        dtype = np.dtype(triton_to_np_dtype(datatype))
        data = self.memory[place.offset : place.offset + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize]
        return np.frombuffer(bytearray(data), dtype=dtype).reshape(shape)


class Arena:
    """The region that one sender uses again and again; it grows when a request needs more.

    Args:
        transport: the way to the server.
        headers: gives the administration header.
    """

    def __init__(self, transport: Any, headers: Callable[[], Mapping[str, str]]) -> None:
        self._transport = transport
        self._headers = headers
        self._region: Region | None = None

    def place(self, inputs: Mapping[str, tuple[np.ndarray, str]], outputs: Mapping[str, int]) -> dict[str, Place]:
        """Copy the inputs into shared memory and keep room for the outputs.

        Args:
            inputs: name → (array, Triton datatype).
            outputs: name → size in bytes, for the outputs whose size is known before the answer.

        Returns:
            Where each of them lies, by name; Triton maps no tensor without bytes, so such a one travels with the request.
        """
        buffers = {name: _buffer(array, datatype) for name, (array, datatype) in inputs.items()}
        sizes = {name: memoryview(data).nbytes for name, data in buffers.items()} | dict(outputs)
        sizes = {name: size for name, size in sizes.items() if size}
        offsets, end = {}, 0
        for name, size in sizes.items():
            offsets[name] = end
            end += -(-size // _ALIGNMENT) * _ALIGNMENT
        if not sizes:
            return {}
        if self._region is None or self._region.byte_size < end:
            self.close()
            self._region = Region(self._transport, end, self._headers())
        for name, data in buffers.items():
            if name in sizes:
                self._region.write(offsets[name], data)
        return {name: Place(self._region.name, size, offsets[name]) for name, size in sizes.items()}

    def read(self, place: Place, shape: tuple[int, ...], datatype: str) -> np.ndarray:
        """A copy of an output's tensor."""
        if self._region is None:
            raise AssertionError("nothing was placed in shared memory")
        return self._region.read(place, shape, datatype)

    def close(self) -> None:
        """Give the region back."""
        if self._region is not None:
            region, self._region = self._region, None
            region.close()


class Arenas:
    """One arena for each request under way at once; they are kept for the next requests."""

    def __init__(self, transport: Any, headers: Callable[[], Mapping[str, str]]) -> None:
        self._make = lambda: Arena(transport, headers)
        self._idle: list[Arena] = []
        self._lock = threading.Lock()

    @contextmanager
    def borrow(self) -> Iterator[Arena]:
        """An arena for one request. After an error its region is given back: the server may be another one by now."""
        with self._lock:
            arena = self._idle.pop() if self._idle else self._make()
        try:
            yield arena
        except BaseException:
            arena.close()
            raise
        with self._lock:
            self._idle.append(arena)

    def close(self) -> None:
        """Give all regions back."""
        with self._lock:
            arenas, self._idle = self._idle, []
        for arena in arenas:
            arena.close()


def _allocate(name: str, byte_size: int) -> mmap.mmap:
    if not _FOLDER.is_dir():
        raise InputError(
            "This machine has no /dev/shm.",
            "System shared memory needs Linux, and client and server on one machine.",
            "Leave out shared_memory=True; then the tensors travel over the network.",
        )
    path = _FOLDER / name
    descriptor = -1
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        # Take the room now: a memory that is full would otherwise show as a crash at the first write.
        os.posix_fallocate(descriptor, 0, byte_size)
        return mmap.mmap(descriptor, byte_size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise InputError(
            f"A shared-memory region of {byte_size / 1e6:.1f} MB cannot be made: {error.strerror or error}.",
            "It needs that much room in /dev/shm.",
            "Look with: df -h /dev/shm. Send smaller batches, or leave out shared_memory=True.",
        ) from error
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _buffer(array: np.ndarray, datatype: str) -> Any:
    if datatype == "BYTES":
        packed = serialize_byte_tensor(array)
        return packed.item() if packed.size else b""
    return array.reshape(-1).view(np.uint8) if array.size else b""


def _release(transport: Any, name: str, headers: Mapping[str, str], memory: mmap.mmap) -> None:
    # When the server does not answer any more, or is another one by now, its mapping went with it.
    with suppress(TransportError):
        transport.unregister(name, headers)
    memory.close()


def _sweep(transport: Any, headers: Mapping[str, str]) -> None:
    """Let the server forget regions of processes that were killed: nobody else will, and their memory is held until then."""
    for name in transport.regions(headers):
        owner = name.removeprefix(_PREFIX).partition("-")[0] if name.startswith(_PREFIX) else ""
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            with suppress(Refused):  # another client was faster
                transport.unregister(name, headers)


def _refused(error: TransportError) -> InputError:
    if getattr(error, "reason", "") == "restricted":
        return InputError(
            "This server does not let us register shared memory: that needs the administration key.",
            "Only the Server object that launched the server has it; a URL or connect() has not.",
            "Give the client that object, Client(server), or leave out shared_memory=True.",
        )
    return InputError(
        f"The server cannot open our shared memory: {error}.",
        "Client and server must run on one machine and see the same /dev/shm; a container needs --ipc=host for that.",
        "Leave out shared_memory=True; then the tensors travel over the network.",
    )
