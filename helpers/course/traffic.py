"""What a measurement sent: its inputs and how long they were. Shorter jets are answered sooner, so gains count with the same ones."""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Mapping
from typing import Any

from helpers.course.judge import CannotTell
from helpers.measuring.perf_analyzer import INPUT_DATA
from helpers.measuring.recorded import shapes_in
from helpers.paths import find
from helpers.physics.jets import plain_name
from helpers.plot_rows import Row

Shapes = dict[str, tuple[int, ...]]


def shapes(row: Row) -> Shapes:
    """Shapes of the inputs of a row without the batch axis, by input name without the position that TorchScript needs.

    Args:
        row: a measured or recorded row; its command names the shapes, or the file that has them.

    Returns:
        Empty where every axis has a fixed length, and where the file is not there.
    """
    entries = _entries(row)
    if entries is None:
        named = (text.rpartition(":") for text in shapes_in(row.get("command") or ""))
        return {plain_name(name): tuple(map(int, lengths.split(","))) for name, _, lengths in named}
    return {name: tuple(tensor["shape"]) for name, tensor in entries[0].items()} if entries else {}


def candidates(row: Row) -> int | None:
    """The length to which the jets of a row were padded or cut."""
    found = shapes(row).get("pf_points")
    return found[-1] if found else None


def unlike(baseline: Row, best: Row) -> str:
    """What differs between the inputs of two rows, in a sentence; empty when they sent the same.

    Raises:
        CannotTell: their files have different names, and one of them is not there.
    """
    sent = [row.get("inputs") for row in (baseline, best)]
    kinds = [each if each in INPUT_DATA else "real" for each in sent]
    if kinds[0] != kinds[1]:
        return f"`best` was measured with {kinds[1]} inputs, and the baseline with {kinds[0]} ones."
    before, after = shapes(baseline), shapes(best)
    for name, shape in before.items():
        if name in after and after[name] != shape:
            return f"`best` was measured with a `{name}` of {list(after[name])}, and the baseline with {list(shape)}."
    if kinds[0] != "real" or sent[0] == sent[1]:
        return ""
    entries = [_entries(row) for row in (baseline, best)]
    if None in entries:
        raise CannotTell(f"The inputs `{sent[0]}` and `{sent[1]}` cannot be compared: a file is not there. Measure both with one file.")
    return (
        "" if entries[0] == entries[1] else f"`best` was measured with the jets of `{sent[1]}`, and the baseline with those of `{sent[0]}`."
    )


def _entries(row: Row) -> list[Mapping[str, Any]] | None:
    """The entries of a row's file, names as in :func:`shapes`; None where there is no such file."""
    words = shlex.split(row.get("command") or "")
    named = next((value for word, value in itertools.pairwise(words) if word == "--input-data"), "random")
    path = None if named in INPUT_DATA else find(named)
    if path is None:
        return None
    try:
        return [{plain_name(name): tensor for name, tensor in entry.items()} for entry in json.loads(path.read_text())["data"]]
    except (OSError, ValueError, KeyError, AttributeError):
        return None
