"""The checkers of notebook 10 with right, wrong and untouched answers; a real fleet counts the requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import jets, paths
from helpers.client import Client
from helpers.course import ____
from helpers.course.judge import Kind
from helpers.fleet import Fleet, launch_fleet
from helpers.measuring.table import Rows
from helpers.metrics import scrape
from helpers.physics.flavour import Scores
from helpers.scaling.analysis import Analysis, Chunk, chunks, replicate, write_scores
from helpers.scaling.capacity import Traffic, plan
from tests.support.judging import is_judged as _is
from tests.support.measured_rows import row

pytestmark = pytest.mark.slow

MODEL = "particlenet_AK4"
RATES = {1: (520, 5), 2: (600, 5), 4: (610, 5), 8: (605, 5)}
# When 8 are under way, 7 wait.
QUEUE_US = 7 * 8 / 605 * 1e6


def _rows(rates: dict[int, tuple[float, float]] = RATES, **changes: Any) -> list[dict[str, Any]]:
    made = [row((*figures, 1e6 * n * 8 / figures[0], 0), batch=8, concurrency=n, servers=1, requests=1) for n, figures in rates.items()]
    return [each | {"queue_us": (each["concurrency"] - 1) / 7 * QUEUE_US} | changes for each in made]


@pytest.fixture(scope="module")
def fleet(free_base_port: Callable[[], int]) -> Iterator[Fleet]:
    with launch_fleet(paths.models_dir(), servers=2, load=[MODEL], base_port=free_base_port(), name="checkers-10") as running:
        yield running


# --- 10.1 ------------------------------------------------------------------------------------------------------------------


def test_saturation(fleet: Fleet) -> None:
    rows = _rows()
    _is("10.1", Kind.CORRECT, "Saturated from 2 on. With 8 under way, 7.0 stood in the queue", fleet, rows, 2, 7.0)
    _is("10.1", Kind.CORRECT, "each for 93 ms", fleet, rows[::-1], "2", np.float64(7.05))
    _is("10.1", Kind.CORRECT, "Saturated from 2 on", fleet, Rows.of(rows), np.int64(2), 7.0)
    _is("10.1", Kind.NOT_ATTEMPTED, "2 blanks", fleet, rows, ____, ____)
    _is("10.1", Kind.NOT_YET, "A smaller one, 2, is at 90 %", fleet, rows, 4, 7.0)
    _is("10.1", Kind.NOT_YET, "reaches 85 % of the highest throughput; 90 % was asked", fleet, rows, 1, 7.0)
    _is("10.1", Kind.NOT_YET, "should be one of 1, 2, 4, 8, and it is `600`", fleet, rows, 600, 7.0)
    _is("10.1", Kind.NOT_YET, "`in_queue` should be one number", fleet, rows, 2, None)
    wrong = {56.0: "counts jets: a request has 8", 7e6: "by seconds in the queue", 3: "from the row with concurrency 8"}
    for number, words in wrong.items():
        _is("10.1", Kind.NOT_YET, words, fleet, rows, 2, number)


def test_saturation_within_the_spread(fleet: Fleet) -> None:
    near = _rows({1: (540, 30), 2: (600, 30), 4: (610, 30), 8: (605, 30)})
    _is("10.1", Kind.CORRECT, "Saturated from 1 on", fleet, near, 1, 7.0)
    _is("10.1", Kind.CORRECT, "Saturated from 2 on", fleet, near, 2, 7.0)
    _is("10.1", Kind.NOT_YET, "A smaller one, 2, is at 90 %", fleet, near, 8, 7.0)


def test_rows_that_say_nothing_about_this_fleet(fleet: Fleet) -> None:
    _is("10.1", Kind.CANNOT_TELL, "it is another fleet", fleet, _rows(requests=10**7), 2, 7.0)
    _is("10.1", Kind.CANNOT_TELL, "No row has a value for 'queue_us'", fleet, _rows(queue_us=None), 2, 7.0)
    _is("10.1", Kind.CANNOT_TELL, "Expected measured rows for the check", fleet, "rows", 2, 7.0)
    _is("10.1", Kind.CANNOT_TELL, "needs `fleet`", fleet.servers[0], _rows(), 2, 7.0)


# --- 10.2 ------------------------------------------------------------------------------------------------------------------


def test_number_of_servers(fleet: Fleet) -> None:
    rows, traffic, budget_ms = _rows(), Traffic(40, 1.2 * 610 / 40 / 8, 8), 10 * 8 / 610 * 1000
    assert plan(traffic, rows, budget_ms).servers == 2
    _is("10.2", Kind.CORRECT, "`servers` is 2. They can do 1210 jets/s, and 732 come; 95 of 100", fleet, rows, traffic, budget_ms, 2)
    _is("10.2", Kind.CORRECT, "Your fleet has 2 now", fleet, rows, traffic, budget_ms, "2")
    _is("10.2", Kind.CORRECT, "within", fleet, Rows.of(rows), traffic, budget_ms, np.int64(2))
    _is("10.2", Kind.NOT_ATTEMPTED, "blank", fleet, rows, traffic, budget_ms, ____)
    _is("10.2", Kind.NOT_YET, "They can do 605 jets/s, and 732 come: the queue grows without end", fleet, rows, traffic, budget_ms, 1)
    _is("10.2", Kind.NOT_YET, "but 2 keep the budget, too, and cost less", fleet, rows, traffic, budget_ms, 3)
    _is("10.2", Kind.NOT_YET, "`servers` is 1.2. It should be a whole number", fleet, rows, traffic, budget_ms, 1.2)
    _is("10.2", Kind.NOT_YET, "should be a whole number", fleet, rows, traffic, budget_ms, 0)
    _is("10.2", Kind.NOT_YET, "should be a whole number", fleet, rows, traffic, budget_ms, None)
    _is("10.2", Kind.NOT_YET, "732 come, but 95 of 100 requests take up to 59 ms, and the budget is 45", fleet, rows, traffic, 45, 2)
    _is("10.2", Kind.CANNOT_TELL, "stumbled", fleet, rows, 732, budget_ms, 2)


def test_numbers_of_servers_that_the_spread_allows(fleet: Fleet) -> None:
    rough = _rows({1: (520, 90), 4: (610, 140), 8: (605, 90)})
    traffic = Traffic(40, 1.2 * 610 / 40 / 8, 8)
    assert plan(traffic, rough, 60).servers_interval == (2, 3)
    for number in (2, 3):
        _is("10.2", Kind.CORRECT, f"`servers` is {number}. They can", fleet, rough, traffic, 60, number)
    _is("10.2", Kind.NOT_YET, "3 keep the budget, too", fleet, rough, traffic, 60, 4)


# --- 10.3 ------------------------------------------------------------------------------------------------------------------


def _send(fleet: Fleet, *numbers: int) -> list[Any]:
    """So many requests to each server, past the front; returns the counters before."""
    before = [scrape(server) for server in fleet.servers]
    for server, number in zip(fleet.servers, numbers, strict=True):
        with Client(server) as client:
            inputs = client.example(MODEL)
            for _ in range(number):
                client.infer(MODEL, inputs)
    return before


def test_shares(fleet: Fleet) -> None:
    before = _send(fleet, 6, 4)
    _is("10.3", Kind.CORRECT, "6 : 4 requests: shared. A server", fleet, before, [0.6, 0.4])
    _is("10.3", Kind.CORRECT, "6 : 4", fleet, before, np.array([0.6, 0.4]))
    _is("10.3", Kind.NOT_ATTEMPTED, "blank", fleet, before, ____)
    wrong: dict[str, Sequence[Any]] = {
        "in percent": [60, 40],
        "the numbers of requests": [6, 4],
        "rose by 6 and 4": [0.5, 0.5],
        "`shares[1]` should be one number, and it is nothing": [0.6, None],
        "`shares` has no `1`. Expected 2 numbers": [0.6],
    }
    for words, given in wrong.items():
        _is("10.3", Kind.NOT_YET, words, fleet, before, given)
    _is("10.3", Kind.CANNOT_TELL, "a reading `before` of each", fleet, before[:1], [0.6, 0.4])
    _is("10.3", Kind.CANNOT_TELL, "needs `before`", fleet, None, [0.6, 0.4])
    _is("10.3", Kind.CANNOT_TELL, "seen a request since", fleet, [scrape(server) for server in fleet.servers], [0.6, 0.4])


# --- 10.4 ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Chunk]:
    """Scores of 300 jets in three files, each jet once."""
    folder = tmp_path_factory.mktemp("analysis")
    made = chunks(replicate("ak4", 300, jets_per_file=300, folder=folder / "jets"), folder / "scores", 100)
    for part in made:
        _write(part, list(range(100)))
    return made


def _write(part: Chunk, which: list[int]) -> None:
    sample = jets.read(part.source, part.start, part.stop)[which]
    write_scores(part, sample, Scores(MODEL, ("probb", "probg"), np.zeros((len(which), 2), np.float32)))


def _analysis(parts: Sequence[Chunk], tagged: int = 0) -> Analysis:
    done = [{"chunk": "one", "jets": tagged, "requests": 1, "seconds": 1.0, "worker": "0"}] if tagged else []
    return Analysis(MODEL, tuple(parts), done, 1.0)


def test_nothing_lost(fleet: Fleet, parts: list[Chunk]) -> None:
    before = _analysis(parts)
    _is("10.4", Kind.CORRECT, "300 jets, 0 lost, 0 doubled; your fleet's counters saw", fleet, before, 0, 0)
    _is("10.4", Kind.CORRECT, "your fleet's counters saw", fleet, _analysis(parts, tagged=1), 0, "0")
    _is("10.4", Kind.NOT_ATTEMPTED, "2 blanks", fleet, before, ____, ____)
    _is("10.4", Kind.NOT_YET, "`lost` is 300. In the files it is 0", fleet, before, 300, 0)
    _is("10.4", Kind.NOT_YET, "`doubled` is 1. In the files it is 0", fleet, before, 0, 1)
    _is("10.4", Kind.NOT_YET, "`lost` should be one number", fleet, before, {4, 5}, 0)
    _is("10.4", Kind.CANNOT_TELL, "stumbled", fleet, None, 0, 0)
    _is("10.4", Kind.CANNOT_TELL, "were tagged by another one", fleet, _analysis(parts, tagged=10**7), 0, 0)


def test_a_jet_lost_and_one_doubled(fleet: Fleet, parts: list[Chunk], tmp_path: Path) -> None:
    """The number of jets is right, and nothing else."""
    spoilt = Chunk(parts[1].source, parts[1].start, parts[1].stop, str(tmp_path / "spoilt.root"))
    _write(spoilt, [*range(99), 98])
    done = _analysis([parts[0], spoilt, parts[2]])
    _is("10.4", Kind.CORRECT, "300 jets, 1 lost, 1 doubled", fleet, done, 1, 1)
    _is("10.4", Kind.NOT_YET, "`lost` is 0. In the files it is 1", fleet, done, 0, 0)
    Path(spoilt.target).unlink()
    _is("10.4", Kind.CANNOT_TELL, "stumbled over this answer (FileNotFoundError", fleet, done, 1, 1)


def test_a_fleet_that_is_gone_is_no_wrong_answer(fleet: Fleet) -> None:
    """The last test here: it stops the fleet."""
    fleet.stop()
    _is("10.1", Kind.CANNOT_TELL, "Type `fleet = fleet.restart()`", fleet, _rows(), 2, 7.0)
