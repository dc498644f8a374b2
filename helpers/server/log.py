"""What tritonserver says: why a model was not loaded, how a start goes on, and how a server ended."""

from __future__ import annotations

import re

from helpers.server.isolation import manner

# Lines of the server's log that an error message quotes, and those that stand beside the news that the server has ended.
LOG_TAIL_LINES, LAST_WORDS_LINES = 15, 5
RESTART = "Type: server = server.restart()"
LOST = "It is no longer running; requests that were under way are lost."

# The sentences in which tritonserver 2.51 says that a model stays out; of some its index does not.
_MODEL = re.compile(r"\"(?:Poll failed for model directory|failed to load model) '([^']+)': (.*)\"\s*$", re.MULTILINE)
_ENSEMBLE = re.compile(r"ensemble '([^']+)' ((?:depends on|contains) [^.\"]*)")
# What helps no reader, and other words for it.
_PLAINLY = (
    # What Triton and Python put around a backend's own words: which load failed, the kind of the error, the line that raised it.
    (r"^(load failed for model '[^']+': version \d+ is at UNAVAILABLE state: )?Internal: TritonModelException: ", ""),
    (r" At: /\S+\.py\(\d+\): \w+$", ""),
    # The words that Triton 2.51 adds are, as often as not, memory that it has freed before.
    (r"(?<=which has no loaded version)\. Model '[^']+' loading failed with error:.*", ""),
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
    """Return the last reason that a server's log gives for each model that was not loaded."""
    return dict(_MODEL.findall(log)) | {name: f"it {why}" for name, why in _ENSEMBLE.findall(log)}


def plain(reason: str) -> str:
    """Return a reason in one line, without line breaks that the log has written out; what helps no reader is said in other words."""
    text = " ".join(reason.replace("\\n", " ").split()).rstrip("; ")
    for words, plainer in _PLAINLY:
        text = re.sub(words, plainer, text)
    return text


def starting(log: str) -> str:
    """Return what a server does that does not answer yet, by its log: how many of its models are loaded."""
    begun, done = (len({*re.findall(pattern, log)}) for pattern in (r'"loading: ([^:"]+)', r"successfully loaded '([^']+)'"))
    return f"starting the server, {done} of {begun} models loaded" if begun else "starting the server"


def meaningful(log: str, lines: int = LOG_TAIL_LINES) -> str:
    """Return the last lines that say what went wrong, or simply the last lines when none does."""
    # The help text that follows an unknown option speaks of errors too: what comes before it is the reason.
    every = log.partition("\nUsage:")[0].splitlines()
    return "\n".join(([line for line in every if _TROUBLE.search(line)] or every)[-lines:])


def how(returncode: int | None) -> str:
    """Return one sentence on the end of a process: negative for a signal, None where its end was not seen."""
    return f"It ended unexpectedly, {'together with the process that owned it' if returncode is None else manner(returncode)}."


def explain(returncode: int | None, log: str) -> str:
    """Return how a server, or the front of a fleet, ended, as :func:`how` does, and the end of its log, in a few lines."""
    words = meaningful("\n".join(log.splitlines()[-LOG_TAIL_LINES:]), LAST_WORDS_LINES)
    return f"{how(returncode)} The end of its log:\n{words}\n" if words else f"{how(returncode)} Its log is empty. "
