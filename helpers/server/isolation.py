"""Start a program whose secret arguments and shared memory no other user can read. Standard library only, Linux.

Every user can read every command line, but only the owner can read a process's environment. So the program is started with place-holders
in its arguments and the real ones in its environment; while it is still stopped before its first instruction, the pointers in its ``argv``
are turned to the text there. The program sees the real arguments; ``ps`` shows the place-holders.

tritonserver and its Python models hand each other tensors by files in ``/dev/shm``, which a library makes readable for everybody by
``fchmod``, which no umask reaches. So the program runs under a filter of system calls in which just this call, with just this mode, does
nothing; then the umask decides, which the supervisor has set (x86-64 alone).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import signal
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

try:
    import resource
except ImportError:  # on Windows, where no server runs, this module is only imported
    resource = None  # type: ignore[assignment]

# What a server's log has where the key, or the tensors of Python models, could not be hidden.
KEY_SEEN = "Other users of this machine can read the administration key, since tracing is not allowed here."
MEMORY_SEEN = "Other users of this machine can read the tensors of Python models, since filters are not allowed here."
# Bytes of stack. tritonserver puts 16 bytes for each chunk of a request's body on the stack of the thread that reads it (CVE-2025-23310):
# under the usual 8 MB half a million chunks end it. No limit of memory: a server that is refused memory ends, so one request could end it.
_STACK_B = 1 << 30
# Open files: thousands of idle connections do no harm then. No more, since some programs close every number up to the limit.
_FILES = 65536
_PTRACE_TRACEME, _PTRACE_DETACH = 0, 17
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
# Number of the field in /proc/PID/stat that tells where the kernel put argc and argv, counted behind the program's name.
_STARTSTACK = 28 - 3
_WORD = struct.calcsize("P")
_PLACE_HOLDER, _VARIABLE = "--private-argument-", "COURSE_PRIVATE_ARGUMENT_"

_SYS_SECCOMP, _SYS_FCHMOD, _X86_64 = 317, 91, 0xC000003E
# The second flag: without it, older kernels slow down all of a filtered program's loads and stores.
_SET_MODE_FILTER, _SPEC_ALLOW = 1, 1 << 2
# Instructions of the kernel's filter language: load a word, compare it with a number, return.
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
# "Fail with error 0": the call is not made, and its caller believes that it was.
_ALLOW, _DO_NOTHING = 0x7FFF0000, 0x00050000
# Where the filter finds the number of the call, the processor's kind, and the call's second argument.
_CALL, _PROCESSOR, _MODE = 0, 4, 24
_STEPS = (
    (_LOAD, 0, 0, _PROCESSOR),
    (_IF_EQUAL, 0, 5, _X86_64),
    (_LOAD, 0, 0, _CALL),
    (_IF_EQUAL, 0, 3, _SYS_FCHMOD),
    (_LOAD, 0, 0, _MODE),
    (_IF_EQUAL, 0, 1, 0o644),
    (_RETURN, 0, 0, _DO_NOTHING),
    (_RETURN, 0, 0, _ALLOW),
)
# Made once, before any fork: between fork and exec as little as possible should happen.
_PROGRAM = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in _STEPS))
_FILTER = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(_STEPS), ctypes.addressof(_PROGRAM)))
if hasattr(os, "fork"):  # on Windows, where no server runs, this module is only imported
    _libc = ctypes.CDLL(None, use_errno=True)
    # Pointers and process ids need their full width: the default of ctypes is a C int.
    _libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    _libc.ptrace.restype = ctypes.c_long


def _before_exec(own_memory: bool, is_server: bool, traced: bool) -> None:
    # The kernel kills the server when the process that owns it is killed.
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # A new program inherits which signals are ignored, and the supervisor ignores the one that ends a server.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if is_server:
        _raise_limits()
    if own_memory:
        _keep_private()
    # The new program stops before its first instruction.
    if traced and _libc.ptrace(_PTRACE_TRACEME, 0, None, None) != 0:
        raise OSError(ctypes.get_errno(), "ptrace is not allowed here")


def start(
    command: Sequence[str],
    private: Sequence[str],
    environment: Mapping[str, str],
    output: IO[bytes] | None = None,
    stdin: int = subprocess.DEVNULL,
    new_session: bool = True,
    own_memory: bool = False,
    is_server: bool = False,
) -> tuple[subprocess.Popen[bytes], list[str]]:
    """Start a program; return its process, and what could not be hidden from other users, as sentences.

    The process dies with the thread that calls this (``PR_SET_PDEATHSIG``): call it from the main thread. ``own_memory`` keeps other users
    out of its shared memory, too; ``is_server`` raises its limits.
    """
    options: dict[str, Any] = {"stdin": stdin, "stdout": output, "start_new_session": new_session}
    options["stderr"] = None if output is None else subprocess.STDOUT
    can = own_memory and _can_keep_private()
    seen = [MEMORY_SEEN] if own_memory and not can else []
    holders = [f"{_PLACE_HOLDER}{number}" for number in range(len(private))]
    hidden = {f"{_VARIABLE}{number}": text for number, text in enumerate(private)}
    with contextlib.suppress(OSError, subprocess.SubprocessError):  # the second is what _before_exec has raised: no tracing here
        before = partial(_before_exec, can, is_server, True)
        process = subprocess.Popen([*command, *holders], env={**environment, **hidden}, preexec_fn=before, **options)
        os.waitpid(process.pid, 0)  # returns when the new program is loaded and stopped
        try:
            _redirect(process.pid, len(private))
        except OSError:
            process.kill()
            _libc.ptrace(_PTRACE_DETACH, process.pid, None, None)
            process.wait()
            raise
        _libc.ptrace(_PTRACE_DETACH, process.pid, None, None)
        return process, seen
    before = partial(_before_exec, can, is_server, False)
    process = subprocess.Popen([*command, *private], env=dict(environment), preexec_fn=before, **options)
    return process, [*seen, KEY_SEEN] if private else seen


def start_through(command: Sequence[str], private: Sequence[str], environment: Mapping[str, str], **options: Any) -> subprocess.Popen[str]:
    """The same from a process with threads, which must not trace children: through a process of its own, which ends as the program ends."""
    through = subprocess.Popen([sys.executable, "-I", __file__], stdin=subprocess.PIPE, env=dict(environment), text=True, **options)
    assert through.stdin is not None
    with contextlib.suppress(BrokenPipeError), through.stdin as pipe:
        json.dump({"command": list(command), "private": list(private)}, pipe)
    # It was read to its end; communicate() must not look for it.
    through.stdin = None
    return through


def main() -> int:
    """Start the program that standard input describes, pass interrupts on to it, and end as it ends."""
    wanted = json.load(sys.stdin)
    process, _ = start(wanted["command"], wanted["private"], os.environ)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: process.send_signal(received))
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    code = process.wait()
    return code if code >= 0 else 128 - code


def _redirect(pid: int, count: int) -> None:
    """Turn the last ``count`` pointers of a stopped process's argv to the texts in its environment."""
    stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:

        def word(at: int) -> int:
            memory.seek(at)
            return int(struct.unpack("P", memory.read(_WORD))[0])

        argc_at = int(stat[_STARTSTACK])
        argc = word(argc_at)
        # Where the values of our variables lie, by what stands before them.
        texts: dict[str, int] = {}
        at = argc_at + _WORD * (argc + 2)
        while pointer := word(at):
            memory.seek(pointer)
            name = memory.read(len(_VARIABLE) + 8).split(b"=", 1)[0].decode("utf-8", "replace") + "="
            texts[name] = pointer + len(name)
            at += _WORD
        for number in range(count):
            memory.seek(argc_at + _WORD * (1 + argc - count + number))
            memory.write(struct.pack("P", texts[f"{_VARIABLE}{number}="]))


def _keep_private() -> bool:
    """Put this process, and all that it starts, under the filter; False where the kernel does not allow it.

    It cannot be undone, and programs that change their user, such as sudo, do not work any more: call it between fork and exec.
    """
    if platform.machine() != "x86_64" or _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(_libc.syscall(_SYS_SECCOMP, _SET_MODE_FILTER, _SPEC_ALLOW, ctypes.byref(_FILTER)) == 0)


def _can_keep_private() -> bool:
    """True if the filter works on this machine: a child tries it."""
    child = os.fork()
    if child == 0:
        os._exit(0 if _keep_private() else 1)
    return os.waitpid(child, 0)[1] == 0


def _raise_limits() -> None:
    """Raise the limits of this process, as far as it may, for the program that it becomes."""
    wanted = [(resource.RLIMIT_NOFILE, _FILES)]
    with contextlib.suppress(OSError):
        # Addresses are reserved without memory, but under ``ulimit -v``, and where the system counts what is reserved.
        free = resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
        if free and Path("/proc/sys/vm/overcommit_memory").read_text().strip() != "2":
            wanted.append((resource.RLIMIT_STACK, _STACK_B))
    for limit, most in wanted:
        soft, hard = resource.getrlimit(limit)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        if limit == resource.RLIMIT_STACK or (soft != resource.RLIM_INFINITY and soft < most):
            resource.setrlimit(limit, (most, hard))


def collect_orphans(server: subprocess.Popen[bytes] | None) -> None:
    """Collect a server's orphans, which become children of this process; the server itself is left to Popen."""
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
            if server is not None and found.si_pid == server.pid:
                return
            os.waitpid(found.si_pid, 0)


def manner(returncode: int) -> str:
    """How a process ended, to stand behind "it ended"; ``returncode`` is :class:`subprocess.Popen`'s, negative for a signal."""
    if returncode >= 0:
        return f"with status {returncode}"
    if -returncode == signal.SIGKILL:
        return "by signal 9 (SIGKILL): somebody killed it, or the system did because memory ran out"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = "unknown"
    return f"by signal {-returncode} ({name}): it crashed, or was ended"


if __name__ == "__main__":
    sys.exit(main())
