"""What must be true of a notebook that ran from top to bottom: solved, or with its blanks."""

from __future__ import annotations

import re

from helpers.terminal import MARK
from tests.course.running import Run, text_of

# The errors that notebooks show on purpose, in order, each by words that the text beside it relies on.
ERRORS = {
    "03": ("unknown model", "failed to connect", "restricted"),
    "05": ("millimetres",),
    "10": ("Only the owner of the server",),
    "11": ("what torch.save() writes",),
}
# What a check may say of a right answer on a machine that is busy with something else: what these checks do with each kind of measurement
# is tested as tables.
_CANNOT_TELL = "? Cannot tell: "
BY_SPEED = {
    "6.5": ("✘ Not yet: ",),
    "7.4": (_CANNOT_TELL,),
    "8.4": (_CANNOT_TELL, "✘ Not yet: Batch size 4 at concurrency 2"),
    "9.3": (_CANNOT_TELL,),
    "9.6": (_CANNOT_TELL, "✘ Not yet: Your entry"),
    "11.4": (_CANNOT_TELL,),
}
# In notebook 10 a fleet takes the place of the server; in notebook 01 the student kills it, and the blank is the call that brings it back.
_ENDED = """
ended = globals()["fleet" if "fleet" in globals() else "server"]
assert ended.state() == "{state}", ended
assert all(server.state() in ("stopped", "died") for server in getattr(ended, "servers", [])), ended
"""


def ended(number: str, *, blanks: bool = False) -> str:
    """Python that finds out whether the server of a notebook has ended as it should."""
    return _ENDED.format(state="died" if number == "01" and blanks else "stopped")


# Calls that say what they do when they take long, and seconds after which one of them must have: a line is there after two.
_TELLING = re.compile(
    r"\b(launch_server|launch_fleet|measure|measure_in_turn|sweep|tune|tag_files|by_concurrency|under_load|catch_up|infer_many)\("
    r"|\bprecision\.make\(|\.(tag|load|reload|stop)\("
)
_SILENT_S = 20


def silent(done: Run) -> list[str]:
    """The cells that took long, call what should tell, and showed nothing meanwhile."""
    long = [(done.notebook.cells[index], seconds) for index, seconds in done.seconds.items() if seconds > _SILENT_S]
    telling = [(cell, seconds) for cell, seconds in long if cell.cell_type == "code" and _TELLING.search(cell.source)]
    return [
        f"{seconds:.0f} s: {cell.source}"
        for cell, seconds in telling
        if not any(output.get("metadata", {}).get(MARK) or output.output_type == "stream" for output in cell.outputs)
    ]


def checks_of(done: Run) -> dict[str, str]:
    """What the check of each exercise says."""
    found = {cell.metadata["exercise"]: text_of(cell) for cell in done.tagged("check")}
    assert found
    return found


def assert_healthy(done: Run, number: str) -> None:
    """No error but those on purpose, which say what the text says, and nothing on stderr."""
    assert done.stray_errors() == []
    assert done.stray_stderr() == []
    expected, failing = ERRORS.get(number, ()), done.tagged("raises-exception")
    assert len(failing) == len(expected)
    for cell, words in zip(failing, expected, strict=True):
        error = next(output for output in cell.outputs if output.output_type == "error")
        assert words in error.evalue
        assert len(re.sub(r"\x1b\[[\d;]*m", "", "\n".join(error.traceback)).splitlines()) <= 3, "short tracebacks"


def assert_untouched(done: Run, number: str) -> None:
    """Healthy, and every check says that nothing was attempted."""
    assert_healthy(done, number)
    for exercise, said in checks_of(done).items():
        assert said.startswith("○ Not attempted yet"), f"{exercise}: {said}"
