"""From what perf_analyzer says when it fails to an error that says what happened and what to do."""

from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from typing import Any

from helpers import settings
from helpers.client import problems, way_to
from helpers.client.client import explain
from helpers.client.endpoint import Address, parse_address
from helpers.client.problems import Refused, Unreachable, without_id
from helpers.errors import AccessError, CourseError, InputError, ModelError, RequestError, SetupError
from helpers.perf_command import INPUT_DATA, Run
from helpers.watch import manner

# The tool ends with this when its windows did not agree, and with 99 after any other failure.
UNSTABLE = 2
# Nobody answered, or somebody stopped answering.
_LOST = re.compile(
    r"failed to connect|connection refused|socket closed|couldn't connect|failure when receiving|connection reset|resolv|upstream", re.I
)
# What a server of the course says when the token is missing or wrong; proxies say what they like.
_WANTS_TOKEN = f"{settings.TOKEN_HEADER}'"
# Words in front of what matters.
_FRONT = re.compile(
    r"^(cb::)?error: |^Thread \[\d+\] had error: |^failed to get model (metadata|config): |^HTTP client failed: ", re.IGNORECASE
)
_NOISE = ("Failed to maintain requested inference load", "Unable to unregister", "Failed to obtain stable", "WARNING", "Received exit")


def reason(said: str) -> str:
    """The sentence in the tool's output that says what went wrong, without the words around it."""
    lines = [line.strip() for line in said.splitlines() if line.strip() and not line.strip().startswith(_NOISE)]
    told = next((line for line in lines if "had error:" in line), None) or next((line for line in lines if _FRONT.match(line)), None)
    text = told or (lines[0] if lines else "it gave no reason")
    while _FRONT.match(text):
        text = _FRONT.sub("", text)
    return without_id(text)


def explain_failure(code: int, said: str, run: Run, server: Any = None) -> CourseError:
    """The error to raise for a run that ended badly.

    Args:
        code: its exit status.
        said: what it wrote to its standard error.
        run: what was run.
        server: the Server object, where there is one.
    """
    why = reason(said)
    scheme = run.protocol + "s" * run.secure
    address = replace(parse_address(run.url), secure=run.secure, scheme=scheme)
    if (run.secure or run.access.headers or _WANTS_TOKEN in why) and (problem := _not_let_in(address, run)):
        return problem
    if _LOST.search(why) and (problem := problems.encryption(address, why, run.access)):
        return problem
    if "unsupported protocol" in why.lower():
        port = "HTTP" if run.protocol == "http" else "gRPC"
        return RequestError(
            f"What answers at {run.url} does not speak {port}.",
            "By the course's convention HTTP has the base port (9000), gRPC the next (9001) and metrics the one after (9002).",
            "Type the port that belongs to the protocol.",
        )
    if _LOST.search(why):
        return explain(Unreachable(why), run.model, address, run.protocol, server)
    if "unknown model" in why or "is not found" in why:
        return explain(Refused(why, "unknown"), run.model, address, run.protocol, server)
    if "batch-size must be" in why or "does not support batching" in why:
        return InputError(f"The model {run.model!r} takes no batch of {run.batch}: {_sentence(why)}", "", "Ask for a smaller batch.")
    if "dynamic shape" in why or "unexpected shape" in why:
        return InputError(
            f"The shapes do not fit the model {run.model!r}: {_sentence(why.split(' NOTE:')[0])}",
            "An axis of any length (-1) needs a length, and the others are as the model says.",
            f"Look at the inputs: server.metadata({run.model!r})",
        )
    if "protocol is restricted" in why:
        return RequestError(
            f"The server lets only its owner do this: {_sentence(why)}",
            "Shared memory needs the key of the server's owner, which is sent along for servers of your own on this machine.",
            "Leave --shared-memory out, or measure a server that you have launched.",
        )
    if "--input-data" in why or "json" in why.lower():
        return InputError(f"The inputs {run.inputs} cannot be used: {_sentence(why)}", "Expected 'random', 'zero' or a JSON file.")
    if code in (126, 127) or "error while loading shared libraries" in said:
        return SetupError(f"perf_analyzer does not start: {_sentence(why)}", "", "Type: python -m helpers install-server")
    if f"'{run.model}'" in why or "had error:" in said:
        return ModelError(
            f"The model {run.model!r} failed under this load: {_sentence(why)}",
            "Random and zero inputs are no physics, and some models refuse them." if run.inputs in INPUT_DATA else "",
            "Try a file of real inputs (helpers.load_inputs), and look at server.log().",
        )
    return RequestError(
        f"perf_analyzer failed, it ended {manner(128 - code if code > 128 else code)}: {_sentence(why)}",
        "",
        f"To see all that it says, type: {run}",
    )


def _not_let_in(address: Address, run: Run) -> CourseError | None:
    """Why we are not let in, which the server tells us more plainly than the tool does; None when we are."""
    try:
        with closing(way_to(run.protocol, address, run.access)) as way, problems.plainly(way):
            way.is_live()
    except AccessError as problem:
        return problem
    except CourseError:
        return None
    return None


def _sentence(text: str) -> str:
    text = " ".join(text.split())[:400]
    return text if text.endswith((".", "!", "?")) else f"{text}."
