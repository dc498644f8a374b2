"""Why a model was not loaded, from the log of tritonserver: its index gives no reason for faults that it meets before loading."""

from __future__ import annotations

import re
from collections.abc import Collection

from helpers import watch

# The three sentences in which tritonserver 2.51 says that a model stays out.
_SENTENCES = re.compile(
    r"\"(?:Poll failed for model directory '(?P<folder>[^']+)'|failed to load model '(?P<model>[^']+)'|"
    r"failed to load '(?P<name>[^']+)' version \d+): (?P<reason>.*)\"\s*$"
)
# The parser's own line comes just before and has what the sentence lacks: line, column and fault.
_PARSER = re.compile(r"Error parsing text-format inference\.ModelConfig: (?P<line>\d+):(?P<column>\d+): (?P<fault>.*)$")


def reasons(log: str) -> dict[str, str]:
    """The last reason given for each model that was not loaded.

    Args:
        log: text of the server's log.

    Returns:
        Reasons by model name, each one line.
    """
    found: dict[str, str] = {}
    parser = ""
    for line in log.splitlines():
        if match := _PARSER.search(line):
            parser = f"config.pbtxt line {match['line']}, column {match['column']}: {match['fault']}"
        elif match := _SENTENCES.search(line):
            name = match["folder"] or match["model"] or match["name"]
            syntax = "failed to read text proto" in match["reason"] and parser
            found[name] = parser if syntax else one_line(match["reason"])
            parser = ""
    return found


# By these it knows whose processes have ended (the sentence is that of helpers.watch), and whose began since.
_ENDED = re.compile(r"^course: the model process '(?P<process>.+?)' has ended (?P<manner>.*)$")
_BEGUN = re.compile(r"^course: the model process '(?P<again>.+?)' runs again$|ModelInstanceInitialize: (?P<instance>.+?) \(")


def processes_ended(log: str, models: Collection[str]) -> dict[str, str]:
    """How the processes of models have ended that have none of their own since, by the model's name.

    Args:
        log: text of the server's log.
        models: names of the models.
    """
    ended: dict[str, str] = {}
    for line in log.splitlines() if "course: the model process" in log else ():
        if match := _ENDED.search(line):
            ended[watch.owner(match["process"], models)] = match["manner"]
        elif match := _BEGUN.search(line):
            ended.pop(watch.owner(match["again"] or match["instance"], models), None)
    return ended


def instances_begun(log: str, model: str) -> int:
    """How often an instance of a model has begun so far; those of an instance group with a name of its own are not recognised."""
    return len(re.findall(rf"TRITONBACKEND_ModelInstanceInitialize: {re.escape(model)}_\d+_\d+ ", log))


def one_line(reason: str) -> str:
    """A reason without line breaks, neither real ones nor those that the log has written out."""
    return " ".join(reason.replace("\\n", " ").split())


# Lines that say what went wrong: tritonserver's own errors, Python's, and what the program says of its arguments.
# Also the last words of a program that aborts: those of C++, of the C library, and Triton's own signal handler's.
_TROUBLE = re.compile(
    r"^E\d{4} |\b(error|unrecognized|failed|invalid|no space|denied|cannot|terminate called|aborted|core dumped|segmentation fault"
    r"|corrupt\w*|double free|stack smashing|signal \(?\d+)\b|^\s*what\(\):|Error:|Exception:|(malloc|free|realloc)\(\):",
    re.IGNORECASE,
)


def meaningful(log: str, lines: int) -> str:
    """The last lines that say what went wrong, or simply the last lines when none does."""
    every = log.splitlines()
    # The help text that follows an unknown option speaks of errors too: what comes before it is the reason.
    usage = next((number for number, line in enumerate(every) if line.startswith("Usage:")), len(every))
    trouble = [line for line in every[:usage] if _TROUBLE.search(line)]
    return "\n".join((trouble or every)[-lines:])
