"""Start a program whose secret arguments and shared memory no other user can read. Standard library only, Linux.

Every user can read every command line, but only the owner can read a process's environment. So a secret is a variable of the environment,
and arguments have its name, as in ``--key=$COURSE_ADMIN_KEY``. The program is started with these, and while it is still stopped before its
first instruction, the pointers in its ``argv`` are turned to the whole text, which is in its environment. The program sees the real
arguments; ``ps`` shows the names.

tritonserver and its Python models hand each other tensors by files in ``/dev/shm``, which a library makes readable for everybody by
``fchmod``, which no umask reaches. So the program runs under a filter of system calls in which just this call, with just this mode, does
nothing; then the umask decides, which the supervisor has set (x86-64 alone).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

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
# Numbers of the fields in /proc/PID/stat that tell where argc with argv, and the environment, lie; counted behind the program's name.
_STARTSTACK, _ENV_START = 28 - 3, 50 - 3
# A secret in an argument, by its variable, and the variables in which the program gets its whole private arguments.
_SECRET = re.compile(r"\$(COURSE_[A-Z0-9_]+)")
_VARIABLE = "COURSE_PRIVATE_ARGUMENT_"

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
    environment: Mapping[str, str],
    output: IO[bytes] | None = None,
    stdin: int = subprocess.DEVNULL,
    new_session: bool = True,
    is_server: bool = False,
    hides: bool = True,
) -> tuple[subprocess.Popen[bytes], list[str]]:
    """Start a program; return its process, and what could not be hidden from other users, as sentences.

    The process dies with the thread that calls this (``PR_SET_PDEATHSIG``): call it from the main thread. ``is_server`` keeps other users
    out of its shared memory, too, and raises its limits. Without ``hides`` the arguments stay as they are, with the names of secrets.
    """
    options: dict[str, Any] = {"stdin": stdin, "stdout": output, "start_new_session": new_session}
    options["stderr"] = None if output is None else subprocess.STDOUT
    can = is_server and _can_keep_private()
    seen = [MEMORY_SEEN] if is_server and not can else []
    names = secrets_of(command) if hides else set()
    private = [number for number, part in enumerate(command) if hides and _SECRET.search(part)]
    whole = [_SECRET.sub(lambda found: environment.get(found[1], found[0]), part) if hides else part for part in command]
    # The secrets alone are nothing that the program, and the code of models in it, should find.
    others = {name: value for name, value in environment.items() if name not in names}
    with contextlib.suppress(OSError, subprocess.SubprocessError):  # the second is what _before_exec has raised: no tracing here
        hidden = {f"{_VARIABLE}{number}": whole[number] for number in private}
        before = partial(_before_exec, can, is_server, True)
        process = subprocess.Popen(list(command), env=others | hidden, preexec_fn=before, **options)
        os.waitpid(process.pid, 0)  # returns when the new program is loaded and stopped
        try:
            _redirect(process.pid, private)
        except OSError:
            process.kill()
            raise
        finally:
            _libc.ptrace(_PTRACE_DETACH, process.pid, None, None)
        return process, seen
    process = subprocess.Popen(whole, env=others, preexec_fn=partial(_before_exec, can, is_server, False), **options)
    return process, [*seen, KEY_SEEN] if private else seen


def secrets_of(command: Sequence[str]) -> set[str]:
    """Return the variables that a command needs for its secrets."""
    return {name for part in command for name in _SECRET.findall(part)}


def start_through(command: Sequence[str], **options: Any) -> subprocess.Popen[str]:
    """The same from a process with threads, which must not trace children: through a process of its own, which ends as the program ends."""
    return subprocess.Popen([sys.executable, "-I", __file__, *command], **options)


def main() -> int:
    """Start the program in the arguments, pass interrupts on to it, and end as it ends."""
    process, _ = start(sys.argv[1:], os.environ)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: process.send_signal(received))
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    code = process.wait()
    return code if code >= 0 else 128 - code


def _redirect(pid: int, arguments: Sequence[int]) -> None:
    """Turn the pointers to these arguments of a stopped process to the texts in its environment."""
    stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    argc_at, environment_at = int(stat[_STARTSTACK]), int(stat[_ENV_START])
    environment = b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        for number in arguments:
            name = f"{_VARIABLE}{number}=".encode()
            memory.seek(argc_at + struct.calcsize("P") * (1 + number))
            memory.write(struct.pack("P", environment_at + environment.index(b"\0" + name) + len(name)))


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
        _, hard = resource.getrlimit(limit)
        resource.setrlimit(limit, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


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
    killed = "somebody killed it, or the system did because memory ran out"
    return f"by signal {-returncode} ({signal.strsignal(-returncode)}): {killed if returncode == -9 else 'it crashed, or was ended'}"


if __name__ == "__main__":
    sys.exit(main())
