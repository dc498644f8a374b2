"""Which tests one worker runs one after the other, and in which order these groups begin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling
    from xdist.workermanage import WorkerController

# Tests that share what takes long to start; beginnings of their ids below tests/. All others are in a group with the rest of their file.
_SOLVED = "course/test_notebooks.py::test_a_student_solves_it"
_TOGETHER = {
    "jupyterlab 2": tuple(f"{_SOLVED}[{number}" for number in ("06", "07", "08", "09", "10", "11")),
    "jupyterlab": ("course/test_lab.py", _SOLVED, "course/test_shutdown.py"),
    "backends": ("served/backends/",),
    "optimise": ("served/optimise/",),
}
# A server of a whole run, which takes long to start or many processes: each worker of these groups has one of its own, so they go to few.
_SERVERS = {
    "the course's models": (
        *("served/models/", "served/test_analysis", "served/test_bridges", "served/test_exercises_checkers", "served/test_jets_checkers"),
        *("served/test_metrics_checkers", "served/test_perf", "served/test_private", "served/test_server_launch"),
        *("served/test_server_security", "served/test_sweep_checkers", "served/test_tracks_checks"),
    ),
    "models for tests": (
        *("served/test_client.", "served/test_commands_client", "served/test_dashboard"),
        *("served/test_lives", "served/test_load", "served/test_metrics.", "served/test_perf.", "served/test_proxy_and_pages"),
        *("served/test_remote_tls", "served/test_server_for_a_class", "served/test_sweep."),
    ),
}
# Workers with such a server, at most.
_WORKERS = 2
# These share nothing, so any worker takes the next one.
_ALONE = "course/test_notebooks.py::test_blanks"
# Long groups first and many short ones last, so that no worker is left alone with one in the end.
_FIRST = (
    *("jupyterlab 2", "jupyterlab", _ALONE, "backends", "course/", "faults/", "install/", "optimise"),
    *("served/test_perf", "served/test_tune"),
)
_LAST = "unit/"


def group(test: str) -> str:
    """Return the group of the test with this id."""
    test = test.removeprefix("tests/")
    if test.startswith(_ALONE):
        return test
    return next((name for name, beginnings in _TOGETHER.items() if test.startswith(beginnings)), test.partition("::")[0])


def servers(name: str) -> set[str]:
    """Return the servers of a whole run that a group of tests asks."""
    return {server for server, beginnings in _SERVERS.items() if name.startswith(beginnings)}


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
        started: dict[str, set[WorkerController]] = {}  # noqa: RUF012 there is one

        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

        def _assign_work_unit(self, node: WorkerController) -> None:
            def costs_nothing(name: str) -> bool:
                return all(node in (there := self.started.get(server, set())) or len(there) < _WORKERS for server in servers(name))

            name = next(filter(costs_nothing, self.workqueue), next(iter(self.workqueue)))
            self.workqueue.move_to_end(name, last=False)
            for server in servers(name):
                self.started.setdefault(server, set()).add(node)
            super()._assign_work_unit(node)

    config.option.loadscopereorder = False
    return Groups(config, log)
