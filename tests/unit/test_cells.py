"""Checks after cells that failed, were not run or still have a blank, in a real kernel: no old answer is judged, no raw NameError shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import start_new_kernel

from helpers import paths
from helpers.course import ____, cells
from tests.support.kernels import run
from tests.support.processes import PATIENCE_S


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlockingKernelClient]:
    work = tmp_path_factory.mktemp("cells") / "work"
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(paths.root()), startup_timeout=PATIENCE_S)
    run(client, f"import os; os.environ['COURSE_WORK'] = {str(work)!r}")
    run(client, "from helpers.course import ____, exercise")
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_a_name_that_is_not_there_is_an_outcome(kernel: BlockingKernelClient) -> None:
    shown = run(kernel, 'exercise("0.1").check(z_mass)')
    assert shown.startswith("? Cannot tell: `z_mass` is not there") and "since the kernel started" in shown
    assert "Run All Above" in shown and "NameError" not in shown


def test_other_names_have_their_usual_error(kernel: BlockingKernelClient) -> None:
    assert "NameError" in run(kernel, "print(nothing_of_this_name)")


def test_after_a_cell_that_failed_the_old_answer_is_not_judged(kernel: BlockingKernelClient) -> None:
    run(kernel, "z_mass = 91")
    assert "Correct" in run(kernel, 'exercise("0.1").check(z_mass)')
    assert "ZeroDivisionError" in run(kernel, "# mine\nz_mass = 91 / 0")
    shown = run(kernel, 'exercise("0.1").check(z_mass)')
    assert shown.startswith("? Cannot tell: The cell that makes `z_mass` failed with `ZeroDivisionError: division by zero`")
    assert "Attempt" not in shown
    run(kernel, "z_mass = 80")
    assert "W boson" in run(kernel, 'exercise("0.1").check(z_mass)')


def test_a_cell_that_cannot_be_read_failed_too(kernel: BlockingKernelClient) -> None:
    run(kernel, "z_mass = 91")
    run(kernel, "z_mass = (91")
    assert "The cell that makes `z_mass` failed" in run(kernel, 'exercise("0.1").check(z_mass)')


def test_a_statement_that_is_still_a_blank_is_no_attempt(kernel: BlockingKernelClient) -> None:
    """Of exercise 0.2 the blank is a statement, so no answer holds it; who tried and sent nothing has attempted."""
    run(kernel, "server = None\nbefore = 3\n____")
    assert run(kernel, 'exercise("0.2").check(server, before)').startswith("○ Not attempted")
    run(kernel, "server = None\nbefore = 3\npass")
    assert "needs `server`" in run(kernel, 'exercise("0.2").check(server, before)')


@pytest.mark.parametrize(
    ("source", "names", "blanks"),
    [
        ("a = ____\nb, c = ____, 2", {"a", "b", "c"}, 2),
        ("def f(x):\n    ____\n    return x", {"f"}, 1),
        ("for n in (1, 2):\n    c = n", {"c"}, 0),
        ("a=(____", {"a"}, 1),
        ("print(a == b)\n!ls", set(), 0),
        ("from helpers.course import ____, exercise", set(), 0),
    ],
)
def test_what_a_cell_makes(source: str, names: set[str], blanks: int) -> None:
    assert cells.read(source) == (names, blanks)


def test_the_names_of_a_check_are_those_in_its_brackets(tmp_path: Path) -> None:
    source = 'exercise("5.1").check(server, scan[0], cut=cut)\n# exercise("5.1").hint(1)\nother'
    assert set(cells.asked(source)) == {"server", "scan", "cut"} and cells.asked("scan") == cells.asked("!ls") == []


def test_a_forgotten_bracket_in_1_4_leaves_the_server_alone() -> None:
    """`revived = server.restart` is a function: `server` must stay a server, or the exercise cannot be solved any more."""
    text = (paths.root() / "notebooks" / "source" / "01_launch_a_server.py").read_text()
    rest = text.partition("revived = server.restart()  #: revived = ____\n")[2].partition("\n# %%")[0]

    class Dead:
        pid = 1

        def restart(self) -> None: ...

    for revived, kept in ((Dead().restart, True), (____, True), (None, True), (Dead(), False)):
        names = {"server": (dead := Dead()), "revived": revived}
        exec(rest, names)
        assert (names["server"] is dead) is kept, revived
