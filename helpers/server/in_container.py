"""The first process in a container: starts the server with its key and its tensors hidden, and ends it when the launcher is gone.

Standard library only, for the image's own Python (3.10 or newer). Secrets come in the environment, since every user of the host sees the
command lines of containers, too. With ``--lifeline`` before the command, the server ends when standard input closes: a container outlives
the engine's client that started it, whatever killed that one.
"""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import time
from pathlib import Path

if __name__ == "__main__":  # started as a script: its own folder is no place for modules, the course's is
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from helpers.server import isolation

LIFELINE = "--lifeline"
# Options of newer servers, by the version of tritonserver that first knows them; an older one would not start with them.
SINCE = {"--allow-client-shm": (2, 68)}
# Seconds between two looks at the server.
_TICK_S = 0.1
# Seconds after which a server whose lifeline is closed gets its signal again (while it starts, it can miss the first one), and is killed.
_AGAIN_S, _KILL_S = 2.0, 12.0


def start(command: list[str], has_lifeline: bool) -> int:
    """Run the server until it ends; returns its exit status, as a shell gives it."""
    # For the server, with what it and its Python models write.
    os.umask(0o077)
    # The same session: who kills all of it on the host gets the server and its Python models along.
    process, seen = isolation.start(command, os.environ, new_session=False, is_server=True)
    for sentence in seen:
        print(f"course: {sentence}", flush=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: process.send_signal(received))
    lifeline: list[int] = [0] if has_lifeline else []
    cut_at = told_at = 0.0
    while process.poll() is None:
        readable, _, _ = select.select(lifeline, [], [], _TICK_S)
        now = time.monotonic()
        if readable and not os.read(0, 4096):
            lifeline, cut_at = [], now
        if cut_at and now - told_at > _AGAIN_S:
            told_at = now
            process.send_signal(signal.SIGINT if now - cut_at < _KILL_S else signal.SIGKILL)
        isolation.collect_orphans(process)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def known(command: list[str], version: str) -> list[str]:
    """The command without options that a tritonserver of this version does not know yet; whole where the image names no version."""
    found = re.match(r"(\d+)\.(\d+)\.", version)
    has = (int(found[1]), int(found[2])) if found else (sys.maxsize, 0)
    return [part for part in command if SINCE.get(part.partition("=")[0], has) <= has]


def main(command: list[str]) -> int:
    """Start the command; 2 when a secret of it is missing."""
    has_lifeline = command[:1] == [LIFELINE]
    # In every image of NVIDIA's: the version of its tritonserver, such as 2.74.0.
    command = known(command[1:] if has_lifeline else command, os.environ.get("TRITON_SERVER_VERSION", ""))
    for name in sorted(isolation.secrets_of(command)):
        if not os.environ.get(name):
            print(f"{name} is empty. Type: export {name}=$(openssl rand -hex 24)", file=sys.stderr)
            return 2
    return start(command, has_lifeline)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
