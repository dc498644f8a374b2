"""What the log of tritonserver tells: why a model was not loaded, where its index gives no reason, and how a server ended."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from helpers.server import watch

# Lines of the server's log that an error message quotes.
LOG_TAIL_LINES = 15
# The same, where they stand beside the news that the server has ended: those that say something, for a card.
LAST_WORDS_LINES = 5

RESTART = "Type: server = server.restart()"
LOST = "It is no longer running; requests that were under way are lost."
HUNG = "Its process is still there, but has not answered for a while: it hangs, or gets no time on this machine."

# The sentences in which tritonserver 2.51 says that a model stays out.
_SENTENCES = re.compile(
    r"\"(?:Poll failed for model directory '(?P<folder>[^']+)'|failed to load model '(?P<model>[^']+)'|"
    r"failed to load '(?P<name>[^']+)' version \d+): (?P<reason>.*)\"\s*$"
)
_ENSEMBLE = re.compile(r"ensemble '(?P<name>[^']+)' (?P<reason>(?:depends on|contains) .*)\"\s*$")
# The parser's own line comes just before and has what the sentence lacks: line, column and fault.
_PARSER = re.compile(r"Error parsing text-format inference\.ModelConfig: (?P<line>\d+):(?P<column>\d+): (?P<fault>.*)$")


def reasons(log: str) -> dict[str, str]:
    """Return the last reason given for each model that was not loaded.

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
            found[name] = parser if syntax else plain(match["reason"])
            parser = ""
        elif match := _ENSEMBLE.search(line):
            found[match["name"]] = f"it {plain(match['reason'])}"
    return {name: with_stage(reason, found) for name, reason in found.items()}


def with_stage(reason: str, reasons: Mapping[str, str]) -> str:
    """Return the reason for an ensemble, followed by the one for its stage.

    Args:
        reason: from :func:`plain`.
        reasons: of models, by name.
    """
    stage = _STAGE.search(reason)
    why = reasons.get(stage["stage"], "") if stage else ""
    return f"{reason} ({stage['stage']}: {with_stage(why, reasons)})" if stage and why else reason


# By these it knows whose processes have ended (the sentence is that of helpers.server.watch), and whose began since.
_ENDED = re.compile(r"^course: the model process '(?P<process>.+?)' has ended (?P<manner>.*)$")
_BEGUN = re.compile(r"^course: the model process '(?P<again>.+?)' runs again$|ModelInstanceInitialize: (?P<instance>.+?) \(")


def processes_ended(log: str, models: Collection[str]) -> dict[str, str]:
    """Return how the processes of models have ended that have none of their own since, by the model's name.

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
    """Return how often an instance of a model has begun so far; those of an instance group with a name of its own are not recognised."""
    return len(re.findall(rf"TRITONBACKEND_ModelInstanceInitialize: {re.escape(model)}_\d+_\d+ ", log))


def starting(log: str) -> str:
    """Return what a server does that does not answer yet, by its log: how many of its models are loaded."""
    begun, done = (len({*re.findall(pattern, log)}) for pattern in (r'"loading: ([^:"]+)', r"successfully loaded '([^']+)'"))
    return f"starting the server, {done} of {begun} models loaded" if begun else "starting the server"


_NO_BACKEND = re.compile(
    r"unable to find backend library for backend '(?P<backend>[^']+)', try specifying runtime on the model configuration"
)
_NO_PLATFORM = re.compile(r"unexpected (platform type 'torch_aoti' for \S+|'platform' and 'backend' pair, got:\s*torch_aoti, pytorch)")
# The words that Triton 2.51 adds are, as often as not, memory that it has freed before.
_STAGE_ERROR = re.compile(r"(?<=which has no loaded version)\. Model '[^']+' loading failed with error:.*")
# What Triton and Python put around a backend's own words: which load failed, the kind of the error, the line that raised it.
_AROUND = re.compile(
    r"^(load failed for model '[^']+': version \d+ is at UNAVAILABLE state: )?Internal: TritonModelException: | At: /\S+\.py\(\d+\): \w+$"
)
_STAGE = re.compile(r"depends on '(?P<stage>[^']+)' which has no loaded version$")
_VERSION_0 = re.compile(r"whose required version 0 is not loaded")


def plain(reason: str) -> str:
    """Return a reason in one line, without line breaks that the log has written out; what helps no reader is said in other words."""
    text = " ".join(reason.replace("\\n", " ").split()).rstrip("; ")
    text = _STAGE_ERROR.sub("", _AROUND.sub("", text))
    text = _VERSION_0.sub("in version 0, because its step names no version. Write: model_version: -1, which means the latest", text)
    text = _NO_PLATFORM.sub(
        "this Triton does not know the platform 'torch_aoti', which came with release 26.03. Write in its place: backend: \"pytorch\"; "
        "the file, model.pt2, says the rest",
        text,
    )
    return _NO_BACKEND.sub(_no_backend, text)


def _no_backend(found: re.Match[str]) -> str:
    more = (
        'NVIDIA has dropped it, and images since 25.03 have none. Convert the model to ONNX, and write: backend: "onnxruntime"'
        if found["backend"].startswith("tensorflow")
        else "The embedded runtime has 'python', 'onnxruntime' and 'pytorch', NVIDIA's image has more"
    )
    return f"this server has no backend {found['backend']!r}. {more}"


# Lines that say what went wrong: tritonserver's own errors, Python's, and what the program says of its arguments.
# Also the last words of a program that aborts: those of C++, of the C library, and Triton's own signal handler's.
_TROUBLE = re.compile(
    r"^E\d{4} |\b(error|unrecognized|failed|invalid|no space|denied|cannot|terminate called|aborted|core dumped|segmentation fault"
    r"|corrupt\w*|double free|stack smashing|signal \(?\d+)\b|^\s*what\(\):|Error:|Exception:|(malloc|free|realloc)\(\):",
    re.IGNORECASE,
)


def meaningful(log: str, lines: int) -> str:
    """Return the last lines that say what went wrong, or simply the last lines when none does."""
    every = log.splitlines()
    # The help text that follows an unknown option speaks of errors too: what comes before it is the reason.
    usage = next((number for number, line in enumerate(every) if line.startswith("Usage:")), len(every))
    trouble = [line for line in every[:usage] if _TROUBLE.search(line)]
    # The half of a table says nothing.
    spoken = [line for line in every if line.strip() and not line.startswith(("+-", "| "))]
    return "\n".join((trouble or spoken)[-lines:])


def how(returncode: int | None) -> str:
    """Return one sentence on the end of a process.

    Args:
        returncode: as :class:`subprocess.Popen` has it, negative for a signal; None where its end was not seen.
    """
    if returncode is None:
        return "It ended unexpectedly, together with the process that owned it."
    return f"It ended unexpectedly, {watch.manner(returncode)}."


def last_words(log: str) -> str:
    """Return the lines near the end of a log that say what went wrong, else simply the last ones."""
    return meaningful("\n".join(log.splitlines()[-LOG_TAIL_LINES:]), LAST_WORDS_LINES)


def explain(returncode: int | None, log: str) -> str:
    """Return how a server, or the front of a fleet, ended and the end of its log, in a few lines.

    Args:
        returncode: as for :func:`how`.
        log: all of its log.
    """
    words = last_words(log)
    return f"{how(returncode)}" + (f" The end of its log:\n{words}\n" if words else " Its log is empty. ")
