"""Which tensor of the config is which argument or output of a TorchScript module: the native backend's naming rules."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from course_backend.faults import ModelFault

INDEXED = re.compile(r".*?__(\d+)")


def input_places(names: Sequence[str], arguments: Sequence[str], warn: Callable[[str], None]) -> dict[str, int]:
    """The place of each input among the arguments of ``forward()``.

    All names are arguments of ``forward()``: by name. Else all have the form ``NAME__INDEX``: by index. Else: by the order in the config.

    Args:
        names: the inputs of the config, in its order.
        arguments: the arguments of ``forward()``.
        warn: writes a warning into the server's log.

    Raises:
        ModelFault: the numbers differ, or two inputs claim one place.
    """
    if len(names) != len(arguments):
        raise ModelFault(
            f"the config has {len(names)} inputs ({', '.join(names)}), and forward() takes {len(arguments)} ({', '.join(arguments)})."
        )
    if set(names) <= set(arguments):
        return {name: arguments.index(name) for name in names}
    places = _indexed_or_in_order("input", names, warn)
    if sorted(places.values()) != list(range(len(arguments))):
        raise ModelFault(
            f"inputs {', '.join(names)}: the indices behind '__' must be 0 to {len(arguments) - 1}, each once, "
            "for the arguments of forward()."
        )
    return places


def output_places(names: Sequence[str], warn: Callable[[str], None]) -> dict[str, int]:
    """The place of each output among what ``forward()`` returns: by index, when all have the form ``NAME__INDEX``; else by order."""
    return _indexed_or_in_order("output", names, warn)


def _indexed_or_in_order(role: str, names: Sequence[str], warn: Callable[[str], None]) -> dict[str, int]:
    matches = {name: INDEXED.fullmatch(name) for name in names}
    if all(matches.values()):
        return {name: int(match.group(1)) for name, match in matches.items() if match}
    if any("__" in name for name in names):
        warn(f"{role}s {', '.join(names)} are not all named NAME__INDEX: their order in the config decides")
    return {name: place for place, name in enumerate(names)}
