"""How a server ended that nobody had told to, for the person who has to bring it back: by what, and the last words of its log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from helpers.server import log as server_log
from helpers.server.log import LOG_TAIL_LINES
from helpers.server.watch import manner

if TYPE_CHECKING:
    from helpers.fleet.fleet import Fleet
    from helpers.server.server import Server

# The same, where they stand beside the news that the server has ended: those that say something, for a card.
LAST_WORDS_LINES = 5

RESTART = "Type: server = server.restart()"
HUNG = "Its process is still there, but has not answered for a while: it hangs, or gets no time on this machine."


def how(returncode: int | None) -> str:
    """One sentence on the end of a process.

    Args:
        returncode: as :class:`subprocess.Popen` has it, negative for a signal; None where nobody saw the end.
    """
    if returncode is None:
        return "It ended without being told to, together with the process that owned it."
    return f"It ended without being told to, {manner(returncode)}."


def last_words(log: str) -> str:
    """The lines near the end of a log that say what went wrong, else simply the last ones."""
    return server_log.meaningful("\n".join(log.splitlines()[-LOG_TAIL_LINES:]), LAST_WORDS_LINES)


def explain(server: Server | Fleet) -> str:
    """How this server, or this front of a fleet, ended and the end of its log, in a few lines."""
    words = last_words(server.log(lines=0))
    return f"{how(server.returncode)}" + (f" The end of its log:\n{words}\n" if words else " Its log is empty. ")
