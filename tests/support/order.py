"""Which tests one worker runs one after the other, and in which order these groups begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

# Tests that share what takes long to start; beginnings of their ids below tests/. All others are in a group with the rest of their file.
_SOLVED = "course/test_notebooks.py::test_a_student_solves_it"
_TOGETHER = {
    "jupyterlab 2": tuple(f"{_SOLVED}[{number}" for number in ("06", "07", "08", "09", "10", "11")),
    "jupyterlab": ("course/test_lab.py", _SOLVED, "course/test_shutdown.py"),
    "backends": ("served/backends/",),
    "optimise": ("served/optimise/",),
}
# These share nothing, so any worker takes the next one.
_ALONE = "course/test_notebooks.py::test_blanks"
# Long groups first, so that no worker is left alone with one in the end; what measures comes last.
_FIRST = ("jupyterlab 2", "jupyterlab", _ALONE, "backends", "course/", "faults/", "install/", "optimise")
_LAST = ("served/test_perf", "served/test_sweep", "served/test_experiments", "served/test_precision", "served/test_tune")


def group(test: str) -> str:
    """Return the group of the test with this id."""
    test = test.removeprefix("tests/")
    if test.startswith(_ALONE):
        return test
    return next((name for name, beginnings in _TOGETHER.items() if test.startswith(beginnings)), test.partition("::")[0])


def _place(name: str) -> int:
    first = (place for place, beginning in enumerate(_FIRST) if name.startswith(beginning))
    return next(first, len(_FIRST) + name.startswith(_LAST))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the groups in order, each in that of its files; what is for the night is slow, too, since ``-m`` knows one expression."""
    for item in items:
        if item.get_closest_marker("nightly"):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: _place(group(item.nodeid)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Hand out whole groups, in order. The marks of pytest-xdist 3.8's own ``--dist loadgroup`` do not reach pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling  # the environment of the training has no pytest-xdist

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    config.option.loadscopereorder = False
    return Groups(config, log)
