"""Checkers of notebook 11, Serve a network of your own: the live server's model and its answers, so any network will do."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from helpers import paths
from helpers.client import Client
from helpers.course import judge
from helpers.course.judge import CannotTell, NotYet, Outcome, checker, correct, not_yet
from helpers.course.model_card import facts
from helpers.errors import ConfigError, CourseError, InputError, quoted
from helpers.measuring.experiments import Experiments
from helpers.measuring.statistics import CANNOT_TELL, FASTER, verdict
from helpers.measuring.table import LATENCY_ENDS, latency_words
from helpers.repository.configs import instances_of
from helpers.repository.syntax import parse
from helpers.server import Server

# What exercise 11.2 asks for, and what a 16-bit number rounds by: a tolerance as wide as that notices nothing.
_JETS, _HALF = 64, 2.0**-11
_OURS = "jet_transformer/exported.onnx"
# Batches and lengths that are tried where the model takes any.
_BATCHES, _LENGTHS = (1, 2), (3, 7)
# Words of a sentence that says something.
_WORDS = 5


def _try(server: Server, model: str, batch: int, length: int) -> None:
    """Send one request of made-up numbers, or "not yet" with what the server said of it."""
    with Client(server) as client:
        try:
            answer = client.infer(model, client.signature(model).example(batch, length))
        except CourseError as error:
            raise NotYet(f"A request of {batch} with a length of {length} failed: {error}") from error
    for name, array in answer.items():
        if array.shape[:1] != (batch,):
            raise NotYet(f"`{name}` has the shape {list(array.shape)} for a request of {batch}; its first axis should count them.")


@checker("11.1")
def exported(server: Any, model: Any, done: Any, script: Any) -> Outcome:
    """The server's model takes batches and lengths of any size; and it is what the script exported, not the stand-in."""
    about = judge.must_be_server(server).metadata(model)
    # Another file, also another format, is the student's own: then it does not matter what became of the script.
    file = server.repository / model / about["versions"][-1] / "model.onnx"
    if done.returncode and file.is_file() and file.read_bytes() == (paths.root() / "notebooks" / "data" / _OURS).read_bytes():
        last = done.stderr.strip().splitlines()[-1]
        if "No module named 'torch'" in last:
            raise CannotTell("The server's environment has no PyTorch, so this is the course's own export. Type: make setup TORCH=yes")
        return not_yet(f"Your script ended with an error, so the server has the course's own export. Its last line: `{last[:300]}`")
    for each in about["inputs"]:
        fixed = [f"axis {axis} is {size}" for axis, size in enumerate(each["shape"]) if axis in (0, 2) and size > 0]
        if fixed and (each["shape"][0] > 0 or each["name"].endswith(("_mask", "_features"))):
            return not_yet(f"`{each['name']}` has the shape {each['shape']}: {' and '.join(fixed)} for ever. Name that axis in the export.")
    for batch, length in zip(_BATCHES, _LENGTHS, strict=True):
        _try(server, model, batch, length)
    shapes = ", ".join(f"`{each['name']}` {each['shape']}" for each in about["inputs"])
    return correct(f"The server has {shapes}, and answered requests of other sizes than the example's.")


@checker("11.2")
def configured(server: Any, model: Any, text: Any) -> Outcome:
    """The file is complete, the server has taken it, and a full request is answered."""
    about, served = judge.must_be_server(server).metadata(model), server.config(model)["max_batch_size"]
    try:
        written = parse(str(text))
    except ConfigError as error:
        return not_yet(str(error))
    if reason := server.refusals.get(model):
        return not_yet(f"The server refused your config, and still has the one from before. It said: {reason.rstrip('.')}.")
    for role, entries in (("input", written.input), ("output", written.output)):
        if missing := {each["name"] for each in about[f"{role}s"]} - {entry.name for entry in entries}:
            return not_yet(f"Your file has no {role} {quoted(sorted(missing))}, which the model has. Write it by hand.")
    if written.max_batch_size != served:
        return not_yet(f"Your file says {written.max_batch_size} in a request, and the server still {served}. Reload.")
    if served < _JETS:
        return not_yet(f"`max_batch_size` is {served}; up to {_JETS} in a request were asked for.")
    _try(server, model, _JETS, _LENGTHS[1])
    return correct(f"The server has your config, and answered {_JETS} in one request.")


@checker("11.3")
def agrees(server: Any, model: Any, inputs: Any, local: Any, tolerance: Any) -> Outcome:
    """The live server's answers and the local ones differ by less than a tolerance that notices mistakes."""
    judge.must_be_server(server)
    given = judge.must_be_number("tolerance", tolerance)
    with Client(server) as client:
        served = client.infer(model, inputs)
    seen = max(float(np.abs(served[name] - local[name]).max() / np.abs(local[name]).max()) for name in served)
    if not seen <= _HALF:
        return not_yet(f"The answers differ by {seen:.1e} of the largest one. That is no rounding: are they of the same file and inputs?")
    if given >= _HALF:
        return not_yet(f"`tolerance` is {given:.1e}. A network that computes with 16 bits would pass: those round by {_HALF:.0e}.")
    if given < seen:
        return not_yet(f"`tolerance` is {given:.1e}, and the rounding seen is {seen:.1e}. How many additions are there?")
    return correct(f"{seen:.1e} seen, {given:.1e} allowed; 16-bit numbers would round by {_HALF:.0e}.")


def _row(table: Any, name: Any) -> dict[str, Any]:
    judge.must_be_made("table", table, Experiments, "the cell that makes it")
    try:
        return dict(table[name])
    except InputError as error:
        raise NotYet(f"{error.happened} {error.expected}") from error


@checker("11.4")
def batch_chosen(table: Any, best: Any) -> Outcome:
    """Inside the budget, and no other row inside it is faster for certain."""
    chosen = _row(table, best)
    low, high = (chosen.get(end) for end in LATENCY_ENDS)
    budget, waits = table.budget_ms, f"`{best}` has a 95th percentile of {latency_words(chosen, 95)} ms"
    if None in (low, high):
        raise CannotTell(f"{waits}, whose interval is not known. Measure it again.")
    if low > 1e3 * budget:
        return not_yet(f"{waits}, over the budget of {budget} ms.")
    for row in table.rows:
        ends = row.get(LATENCY_ENDS[1])
        inside = row["model"] == chosen["model"] and ends is not None and ends <= 1e3 * budget
        if inside and row["experiment"] != best and verdict(chosen, row).answer == FASTER:
            return not_yet(f"`{row['experiment']}` is inside the budget, too, and faster. {verdict(chosen, row).text}")
    if high > 1e3 * budget:
        raise CannotTell(f"{waits}: that may be over {budget} ms or not. Choose one that is clearly inside, or measure again.")
    return correct(f"{waits}, within {budget} ms, and no row inside the budget is faster for certain.")


@checker("11.5")
def instances_kept(server: Any, model: Any, table: Any, count: Any) -> Outcome:
    """The live server runs what the verdict supports."""
    served = instances_of(judge.must_be_server(server).config(model))
    two, asked = _row(table, "2 instances"), judge.must_be_number("count", count, "1 or 2")
    seen = table.judged("2 instances")
    # Where its interval reaches over the budget, it may be inside or not: then either will do.
    sides = {two.get(end) is not None and two[end] <= 1e3 * table.budget_ms for end in LATENCY_ENDS}
    possible = {2 if inside else 1 for inside in sides} if seen.answer == FASTER else {1}
    if asked not in possible:
        return not_yet(f"`count` is {judge.plain(asked)}. {seen} {'Take the simpler one.' if seen.answer == CANNOT_TELL else ''}".strip())
    if served != asked:
        return not_yet(f"`count` is right, and the server runs {served}. Write it into `config.pbtxt`, and reload.")
    return correct(f"The server runs {served}. {seen}")


@checker("11.6")
def card_handed_in(server: Any, model: Any, card: Any, purpose: Any, limits: Any) -> Outcome:
    """The card says what is true of the live server now, and its author's two sentences."""
    judge.must_be_server(server)
    for name, text in (("purpose", purpose), ("limits", limits)):
        if not isinstance(text, str) or len(re.findall(r"\w+", text)) < _WORDS:
            return not_yet(f"`{name}` is `{text}`. Say it in a sentence, of {_WORDS} words at least.")
    if purpose.strip() == limits.strip():
        return not_yet("`purpose` and `limits` are the same sentence. Where does the purpose end?")
    written = (server.repository / model / "MODEL_CARD.md").read_text(encoding="utf-8")
    for what, value in (("purpose", purpose), ("limits", limits), *facts(server, model)):
        if value not in written:
            return not_yet(f"The card does not have the {what} as it is now: {value}. Make the card again.")
    return correct("`MODEL_CARD.md`, in the model's folder, agrees with the server.")
