"""Requests that run together, for both backends: one batch where shapes allow, and no request harms another."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.server import Server
from tests.served.backends.asking import Asker

# Their servers, with thirty models each, take half a minute to start.
pytestmark = pytest.mark.slow

BACKENDS = ["onnx", "torch"]


class Batching:
    """The models of one backend that look up a row of a table and that sum, each asked by several clients at the same moment."""

    def __init__(self, server: Server) -> None:
        self.asker, self.torch = Asker(server), "lookup" in {state.name for state in server.models()}
        self.model = "lookup" if self.torch else "table"

    def look_up(self, indices: list[np.ndarray]) -> list[list[list[float]] | str]:
        """The rows that each request gets, or its error."""
        if self.torch:
            requests = [{"i__0": index, "x__1": np.zeros((len(index), 1), np.float32)} for index in indices]
            return self._together("lookup", requests, "row__0")
        return self._together("table", [{"i": index} for index in indices], "y")

    def sum(self, arrays: list[np.ndarray]) -> list[list[list[float]] | str]:
        """The sum that each request gets."""
        if self.torch:
            requests = [{"i__0": np.zeros((1, 1), np.int64), "x__1": array} for array in arrays]
            return self._together("lookup", requests, "sum__1")
        return self._together("row_sum", [{"x": array} for array in arrays], "y")

    def _together(self, model: str, requests: list[dict[str, np.ndarray]], output: str) -> list[list[list[float]] | str]:
        answers = self.asker.ask_together(model, requests, [output])
        return [answer if isinstance(answer, str) else answer[output].tolist() for answer in answers]


@pytest.fixture(scope="module", params=BACKENDS)
def batching(request: pytest.FixtureRequest) -> Batching:
    """Requests to the server of each backend in turn."""
    return Batching(request.getfixturevalue(f"{request.param}_server"))


def test_requests_of_eight_clients_run_as_one_batch_and_each_gets_its_own(batching: Batching) -> None:
    before = batching.asker.counts(batching.model)
    assert batching.look_up([np.array([[i]], np.int64) for i in range(8)]) == [[[2.0 * i, 2.0 * i + 1]] for i in range(8)]
    # One batch of eight; a second one only where the machine was too busy to send all within the queue delay.
    assert batching.asker.executions_since(before, batching.model, inferences=8) <= 2


def test_requests_of_different_sizes_are_cut_apart_again(batching: Batching) -> None:
    sizes = [3, 1, 4]
    answers = batching.look_up([np.full((size, 1), size, np.int64) for size in sizes])
    assert answers == [[[2.0 * size, 2.0 * size + 1]] * size for size in sizes]


def test_only_the_guilty_request_of_a_batch_fails(batching: Batching) -> None:
    before = batching.asker.counts(batching.model)
    answers = batching.look_up([np.array([[i]], np.int64) for i in (0, 1, 99, 3, 4, 5, 6, 7)])
    assert batching.asker.executions_since(before, batching.model, inferences=8) <= 2
    guilty = answers.pop(2)
    assert isinstance(guilty, str)
    assert f"model '{batching.model}'" in guilty
    assert "out of" in guilty
    assert answers == [[[2.0 * i, 2.0 * i + 1]] for i in (0, 1, 3, 4, 5, 6, 7)]


def test_shapes_that_do_not_match_run_in_groups(batching: Batching) -> None:
    lengths = [2, 5, 2, 7, 5, 2]
    answers = batching.sum([np.full((1, length), place + 1, np.float32) for place, length in enumerate(lengths)])
    assert answers == [[[(place + 1) * length]] for place, length in enumerate(lengths)]
