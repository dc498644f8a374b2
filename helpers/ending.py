"""How a server ended that nobody had told to, for the person who has to bring it back: by what, and the last words of its log."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from helpers import loadlog, settings

if TYPE_CHECKING:
    from helpers.server import Server

RESTART = "Type: server = server.restart()"


def how(returncode: int | None) -> str:
    """One sentence on the end of a process.

    Args:
        returncode: as :class:`subprocess.Popen` has it, negative for a signal; None where nobody saw the end.
    """
    if returncode is None:
        return "It ended without being told to, together with the process that owned it."
    if returncode >= 0:
        return f"It ended without being told to, with status {returncode}."
    if -returncode == signal.SIGKILL:
        return "It ended without being told to: somebody killed it, or the system did because memory ran out (signal 9)."
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = "unknown"
    return f"It ended without being told to: it crashed, or was ended, by signal {-returncode} ({name})."


def last_words(log: str) -> str:
    """The lines near the end of a log that say what went wrong, else simply the last ones."""
    return loadlog.meaningful("\n".join(log.splitlines()[-settings.LOG_TAIL_LINES :]), settings.LAST_WORDS_LINES)


def explain(server: Server) -> str:
    """How this server ended and the end of its log, in a few lines."""
    words = last_words(server.log(lines=0))
    return f"{how(server.returncode)}" + (f" The end of its log:\n{words}\n" if words else " Its log is empty.")
