"""What the log of tritonserver tells: why a model was not loaded, where its index gives no reason, and how a server ended."""

from __future__ import annotations

import re
from collections.abc import Mapping

from helpers.server.isolation import manner

# Lines of the server's log that an error message quotes, and those that stand beside the news that the server has ended.
LOG_TAIL_LINES, LAST_WORDS_LINES = 15, 5
RESTART = "Type: server = server.restart()"
LOST = "It is no longer running; requests that were under way are lost."

# The sentences in which tritonserver 2.51 says that a model stays out.
_SENTENCES = re.compile(
    r"\"(?:Poll failed for model directory '(?P<folder>[^']+)'|failed to load model '(?P<model>[^']+)'|"
    r"failed to load '(?P<name>[^']+)' version \d+): (?P<reason>.*)\"\s*$"
)
_ENSEMBLE = re.compile(r"ensemble '(?P<name>[^']+)' (?P<reason>(?:depends on|contains) .*)\"\s*$")
# The parser's own line comes just before and has what the sentence lacks: line, column and fault.
_PARSER = re.compile(r"Error parsing text-format inference\.ModelConfig: (?P<line>\d+):(?P<column>\d+): (?P<fault>.*)$")
_STAGE = re.compile(r"depends on '(?P<stage>[^']+)' which has no loaded version$")
# What helps no reader, and other words for it.
_PLAINLY = (
    # What Triton and Python put around a backend's own words: which load failed, the kind of the error, the line that raised it.
    (r"^(load failed for model '[^']+': version \d+ is at UNAVAILABLE state: )?Internal: TritonModelException: ", ""),
    (r" At: /\S+\.py\(\d+\): \w+$", ""),
    # The words that Triton 2.51 adds are, as often as not, memory that it has freed before.
    (r"(?<=which has no loaded version)\. Model '[^']+' loading failed with error:.*", ""),
    (
        r"whose required version 0 is not loaded",
        "in version 0, because its step names no version. Write: model_version: -1, which means the latest",
    ),
    (
        r"unable to find backend library for backend '(tensorflow[^']*)', try specifying runtime on the model configuration",
        r"this server has no backend '\1'; images since 25.03 have none either. Convert the model to ONNX",
    ),
    (
        r"unable to find backend library for backend '([^']+)', try specifying runtime on the model configuration",
        r"this server has no backend '\1'. The embedded runtime has 'python', 'onnxruntime' and 'pytorch'",
    ),
)
# Lines that say what went wrong: tritonserver's own errors, Python's, of its arguments, and the last words of a program that aborts.
_TROUBLE = re.compile(
    r"^E\d{4} |\b(error|unrecognized|failed|invalid|no space|denied|cannot|terminate called|aborted|core dumped|segmentation fault"
    r"|corrupt\w*|double free|stack smashing|signal \(?\d+)\b|^\s*what\(\):|Error:|Exception:|(malloc|free|realloc)\(\):",
    re.IGNORECASE,
)


def reasons(log: str) -> dict[str, str]:
    """Return the last reason that a server's log gives for each model that was not loaded, by the model's name, each one line."""
    found: dict[str, str] = {}
    parser = ""
    for line in log.splitlines():
        if match := _PARSER.search(line):
            parser = f"config.pbtxt line {match['line']}, column {match['column']}: {match['fault']}"
        elif match := _SENTENCES.search(line):
            syntax = "failed to read text proto" in match["reason"] and parser
            found[match["folder"] or match["model"] or match["name"]] = parser if syntax else plain(match["reason"])
            parser = ""
        elif match := _ENSEMBLE.search(line):
            found[match["name"]] = f"it {plain(match['reason'])}"
    return {name: with_stage(reason, found) for name, reason in found.items()}


def with_stage(reason: str, reasons: Mapping[str, str]) -> str:
    """Return the reason for an ensemble, from :func:`plain`, followed by the one for its stage."""
    stage = _STAGE.search(reason)
    why = reasons.get(stage["stage"], "") if stage else ""
    return f"{reason} ({stage['stage']}: {with_stage(why, reasons)})" if stage and why else reason


def plain(reason: str) -> str:
    """Return a reason in one line, without line breaks that the log has written out; what helps no reader is said in other words."""
    text = " ".join(reason.replace("\\n", " ").split()).rstrip("; ")
    for words, plainer in _PLAINLY:
        text = re.sub(words, plainer, text)
    return text


def instances_begun(log: str, model: str) -> int:
    """Return how often an instance of a model has begun so far; those of an instance group with a name of its own are not recognised."""
    return len(re.findall(rf"TRITONBACKEND_ModelInstanceInitialize: {re.escape(model)}_\d+_\d+ ", log))


def starting(log: str) -> str:
    """Return what a server does that does not answer yet, by its log: how many of its models are loaded."""
    begun, done = (len({*re.findall(pattern, log)}) for pattern in (r'"loading: ([^:"]+)', r"successfully loaded '([^']+)'"))
    return f"starting the server, {done} of {begun} models loaded" if begun else "starting the server"


def meaningful(log: str, lines: int = LOG_TAIL_LINES) -> str:
    """Return the last lines that say what went wrong, or simply the last lines when none does."""
    every = log.splitlines()
    # The help text that follows an unknown option speaks of errors too: what comes before it is the reason.
    usage = next((number for number, line in enumerate(every) if line.startswith("Usage:")), len(every))
    trouble = [line for line in every[:usage] if _TROUBLE.search(line)]
    # The half of a table says nothing.
    spoken = [line for line in every if line.strip() and not line.startswith(("+-", "| "))]
    return "\n".join((trouble or spoken)[-lines:])


def how(returncode: int | None) -> str:
    """Return one sentence on the end of a process: negative for a signal, None where its end was not seen."""
    return f"It ended unexpectedly, {'together with the process that owned it' if returncode is None else manner(returncode)}."


def explain(returncode: int | None, log: str) -> str:
    """Return how a server, or the front of a fleet, ended, as :func:`how` does, and the end of its log, in a few lines."""
    words = meaningful("\n".join(log.splitlines()[-LOG_TAIL_LINES:]), LAST_WORDS_LINES)
    return f"{how(returncode)} The end of its log:\n{words}\n" if words else f"{how(returncode)} Its log is empty. "
