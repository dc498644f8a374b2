"""One exercise of each notebook, answered as a student does: wrong at first. The right answers are those of the solution notebooks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import nbformat

from helpers import settings


@dataclass(frozen=True)
class Answer:
    """A usual wrong answer to an exercise.

    Attributes:
        exercise: its number.
        right: a line of the solution.
        wrong: what stands in its place.
        words: what the check says about it.
        needs: words of cells that run again first, because the notebook's last cell has stopped the server.
    """

    exercise: str
    right: str
    wrong: str
    words: str
    needs: tuple[str, ...] = ()

    def solution(self) -> str:
        """The text of the exercise's last code cell before its check, with the answer."""
        file = next((settings.root() / "notebooks" / "solutions").glob(f"{self.exercise.split('.')[0].zfill(2)}_*.ipynb"))
        return _starter(file, self.exercise)

    def mistaken(self) -> str:
        """The same with the wrong answer."""
        text = self.solution()
        assert text.count(self.right) == 1, f"the solution of {self.exercise} has {self.right!r} no more"
        return text.replace(self.right, self.wrong)


def _starter(file: Path, exercise: str) -> str:
    cells = nbformat.read(file, as_version=4).cells
    mine = [cell for cell in cells if cell.metadata.get("exercise") == exercise and "starter" in cell.metadata.get("tags", [])]
    assert len(mine) == 1, exercise
    return mine[0].source


_SERVER = "server = launch_server("
ANSWERS = {
    "00": Answer("0.1", "z_mass = 91", "z_mass = 80", "80 GeV is the W boson"),
    "01": Answer("1.3", '"docker"', '"podman"', "Podman is much like Docker, but this node has Docker"),
    "02": Answer("2.1", 'reported["default_model_filename"]', '"config.pbtxt"', "Look for `default_model_filename`", (_SERVER,)),
    "03": Answer("3.3", '"shape": [16]', '"shape": [1, 16]', "The server says:", (_SERVER,)),
    "04": Answer("4.3", "np.mean(of_higgs >= cut)", "np.mean(of_higgs < cut)", "the fraction below the cut"),
    "05": Answer("5.2", "part = total[slowest] / sum(total.values())", "part = total[slowest]", "time in milliseconds", (_SERVER,)),
    "06": Answer("6.1", 'model="particlenet_AK4"', 'model="add_sub"', "That is the line of `add_sub`", (_SERVER, "page = requests.get(")),
    "07": Answer("7.2", 'hundred["latency_p95_us"]', 'by_batch[10]["latency_p95_us"]', "from 1 to 10 jets"),
    "08": Answer("8.1", '["latency_p95_us"] / 1000', '["latency_p95_us"]', "The knee is right"),
    "09": Answer("9.5", "safe = [name for name in variants if lowest[name] > -0.001]", 'safe = ["fp8"]', "`fp8` is no variant"),
    "10": Answer(
        "10.2", "plan(traffic, best_of_one, budget_ms).servers", "40", "keep the budget, too, and cost less", ("fleet = launch_fleet(",)
    ),
}
