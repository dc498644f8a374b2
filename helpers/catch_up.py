"""For students who came late: one cell that brings a notebook's kernel to where the class is.

Typical use, in a cell of the notebook::

    from helpers.catch_up import catch_up
    catch_up("4.3")            # as if everything above exercise 4.3 had been run, with the right answers

It runs the solution notebook's own cells in the kernel, without its checks (nothing is counted as solved) and without the errors that are
shown on purpose.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers import settings
from helpers.errors import InputError, SetupError
from helpers.wording import quoted

# Cells with one of these tags are left out.
_LEFT_OUT = {"check", "raises-exception"}


@dataclass(frozen=True)
class Way:
    """What has to be run to be at an exercise.

    Attributes:
        exercise: its number.
        title: its heading.
        code: the code of each cell, in order.
    """

    exercise: str
    title: str
    code: tuple[str, ...]


def way_to(exercise: str) -> Way:
    """The cells in front of an exercise.

    Args:
        exercise: its number, such as ``"4.3"``.

    Raises:
        InputError: there is no such exercise; the message lists those of the same notebook.
    """
    wanted = str(exercise).strip()
    number = wanted.partition(".")[0]
    file = next(iter(sorted((settings.root() / "notebooks" / "solutions").glob(f"{number.zfill(2)}_*.ipynb"))), None)
    cells = _cells(file) if file and number.isdecimal() else []
    code: list[str] = []
    for cell in cells:
        if cell["metadata"].get("exercise") == wanted:
            title = re.search(r"^#+ (.+)$", "".join(cell["source"]), re.MULTILINE)
            return Way(wanted, title[1] if title else wanted, tuple(code))
        if cell["cell_type"] == "code" and not _LEFT_OUT & set(cell["metadata"].get("tags", [])):
            code.append("".join(cell["source"]))
    known = list(dict.fromkeys(cell["metadata"]["exercise"] for cell in cells if "exercise" in cell["metadata"]))
    raise InputError(
        f"There is no exercise {wanted!r}.",
        f"This notebook has {quoted(known)}." if known else "A number looks like 4.3: notebook, then exercise.",
        'Type for example: catch_up("4.3")',
    )


def _cells(file: Path) -> list[dict[str, Any]]:
    return json.loads(file.read_text(encoding="utf-8"))["cells"]


def catch_up(exercise: str) -> None:
    """Run everything in front of an exercise in this kernel; what the cells print and show is left out.

    Args:
        exercise: its number, such as ``"4.3"``.

    Raises:
        InputError: there is no such exercise.
        SetupError: this is no notebook, or a cell failed; the error of that cell stands above.
    """
    from IPython import get_ipython
    from IPython.utils.capture import capture_output

    shell = get_ipython()
    if shell is None:
        raise SetupError("catch_up works in a notebook only.", "It runs cells in the notebook's kernel.", "Type: make lab")
    way = way_to(exercise)
    for number, code in enumerate(way.code, 1):
        with capture_output() as shown:
            result = shell.run_cell(code, store_history=False, silent=True)
        if not result.success:
            shown.show()
            raise SetupError(
                f"Cell {number} of {len(way.code)} before exercise {way.exercise} failed: "
                f"{result.error_in_exec or result.error_before_exec}.",
                "",
                "Type: make doctor   (or restart the kernel, and run this cell once more)",
            )
    print(f"You are there: {len(way.code)} cells were run. Next: {way.title}")
