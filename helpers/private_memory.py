"""Keep the shared memory of a program to its owner. Standard library only, Linux on x86-64.

tritonserver and its Python models hand each other tensors by files in ``/dev/shm``. The library that makes these files sets
their mode to 0644 with a call of its own, ``fchmod``, which no umask reaches: every user of a machine could read the tensors of
every other. So the program runs under a filter of system calls in which just this call, with just this mode, does nothing;
then the umask decides, which the supervisor has set.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

_PR_SET_NO_NEW_PRIVS = 38
_SYS_SECCOMP = 317
_SET_MODE_FILTER = 1
# Without this, older kernels slow down all of a filtered program's loads and stores.
_SPEC_ALLOW = 1 << 2
_X86_64 = 0xC000003E
_SYS_FCHMOD = 91
_READABLE_BY_ALL = 0o644
# Instructions of the kernel's filter language: load a word, compare it with a number, return.
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW = 0x7FFF0000
# "Fail with error 0": the call is not made, and its caller believes that it was.
_DO_NOTHING = 0x00050000
# Where the filter finds the number of the call, the processor's kind, and the call's second argument.
_CALL, _PROCESSOR, _MODE = 0, 4, 24


def _filter() -> bytes:
    steps = (
        (_LOAD, 0, 0, _PROCESSOR),
        (_IF_EQUAL, 0, 5, _X86_64),
        (_LOAD, 0, 0, _CALL),
        (_IF_EQUAL, 0, 3, _SYS_FCHMOD),
        (_LOAD, 0, 0, _MODE),
        (_IF_EQUAL, 0, 1, _READABLE_BY_ALL),
        (_RETURN, 0, 0, _DO_NOTHING),
        (_RETURN, 0, 0, _ALLOW),
    )
    return b"".join(struct.pack("HBBI", *step) for step in steps)


# Made once, before any fork: between fork and exec as little as possible should happen.
_PROGRAM = ctypes.create_string_buffer(_filter())
_FILTER = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(_filter()) // 8, ctypes.addressof(_PROGRAM)))
if hasattr(os, "fork"):  # on Windows, where no server runs, this module is only imported
    _libc = ctypes.CDLL(None, use_errno=True)


def keep_private() -> bool:
    """Put this process, and all that it starts, under the filter; False where the kernel does not allow it.

    It cannot be undone, and programs that change their user, such as sudo, do not work any more: call it between fork and exec.
    """
    if platform.machine() != "x86_64" or _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return _libc.syscall(_SYS_SECCOMP, _SET_MODE_FILTER, _SPEC_ALLOW, ctypes.byref(_FILTER)) == 0


def possible() -> bool:
    """Whether :func:`keep_private` works on this machine: a child tries it."""
    child = os.fork()
    if child == 0:
        os._exit(0 if keep_private() else 1)
    return os.waitpid(child, 0)[1] == 0
