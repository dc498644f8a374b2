"""Limits that a server needs and most shells do not give. Standard library only, Linux.

tritonserver puts 16 bytes for each chunk of a request's body on the stack of the thread that reads it (CVE-2025-23310), and under the usual
8 MB half a million chunks end it. Threads get stacks as large as the limit at their program's start, and 2 MB where there is none.
Nothing of it is used before it is needed: tritonserver with 500 threads has the same resident memory with either limit.

A limit of memory is not set: a server that is refused memory ends (``std::bad_alloc``), so one large request could end it then.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

try:
    import resource
except ImportError:  # on Windows, where no server runs, this module is only imported
    resource = None  # type: ignore[assignment]

# Bytes of stack: 64 million chunks, which need 60 GB of memory besides.
STACK_B = 1 << 30
# Open files: thousands of idle connections do no harm then. No more, since some programs close every number up to the limit.
FILES = 65536


def raise_soft() -> None:
    """Raise the limits of this process, as far as it may, for the program that it becomes: call it between fork and exec."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if _reserving_is_free():
        resource.setrlimit(resource.RLIMIT_STACK, (STACK_B if hard == resource.RLIM_INFINITY else min(STACK_B, hard), hard))


def give_stack_back(pid: int) -> bool:
    """Give a program that was started with :func:`raise_soft` the stack limit of this process again, for what it starts; True when done.

    To be asked again and again: the program's own threads keep their size from its start, so it must have begun its second one.
    """
    with contextlib.suppress(OSError):  # it has ended
        if len(os.listdir(f"/proc/{pid}/task")) < 2:
            return False
        resource.prlimit(pid, resource.RLIMIT_STACK, resource.getrlimit(resource.RLIMIT_STACK))
    return True


def _reserving_is_free() -> bool:
    """Whether addresses may be reserved without memory: not under ``ulimit -v``, nor where the system counts what is reserved."""
    if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
        return False
    try:
        return Path("/proc/sys/vm/overcommit_memory").read_text().strip() != "2"
    except OSError:
        return False
