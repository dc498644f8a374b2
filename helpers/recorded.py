"""Figures that others measured, and this course's own for those that cannot measure: as rows, never without their source.

Typical use::

    sweep_figure(rows, reference=recorded("T4", "particlenet_AK4"))
    latency_split_figure(recorded("P100"))

``notebooks/data/recorded.json`` holds the figures by others as they published them. A figure that they did not publish is None.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from helpers import perf_results, settings
from helpers.errors import InputError
from helpers.wording import quoted

# What a measured row has, and so every recorded one, and which variant of the model it was.
COLUMNS = (*perf_results.COLUMNS, "variant")


def recorded(hardware: str = "", model: str = "", variant: str = "") -> list[dict[str, Any]]:
    """Figures by others, as rows like measured ones.

    Each row says in ``source`` who measured it and in ``device`` on what; ``variant`` tells apart what the model's name does not, such as
    a file format or TensorRT.

    Args:
        hardware: a part of the device's name, such as ``"P100"``, ``"T4"``, ``"A100"`` or ``"CPU"``; all by default.
        model: the model's name; all by default.
        variant: the exact variant, such as ``"ONNX"``; all by default.

    Returns:
        The rows, new ones with each call.

    Raises:
        InputError: there is no such figure; the message lists what there is.
    """
    rows = [
        dict(row)
        for row in _published()
        if hardware.casefold() in row["device"].casefold() and model in ("", row["model"]) and variant in ("", row["variant"])
    ]
    if rows:
        return rows
    near = [row for row in _published() if hardware.casefold() in row["device"].casefold()]
    of_model = f" for {quoted(sorted({row['model'] for row in near}))}" if near else ""
    devices = quoted(sorted({row["device"] for row in (near or _published())}))
    asked = ", ".join(repr(word) for word in (hardware, model, variant) if word)
    raise InputError(f"There is no recorded figure for {asked}.", f"There are some on {devices}{of_model}.")


@functools.cache
def _published() -> tuple[dict[str, Any], ...]:
    groups = json.loads((settings.root() / "notebooks" / "data" / "recorded.json").read_text(encoding="utf-8"))
    empty = dict.fromkeys(COLUMNS)
    return tuple(empty | group["common"] | point for group in groups for point in group["points"])
