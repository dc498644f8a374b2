"""Requests that run together, for both backends: one batch where shapes allow, and no request harms another."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.server import Server
from tests.served.backends.asking import Asker

BACKENDS = ["onnx", "torch"]


@pytest.fixture(scope="module", params=BACKENDS)
def asker(request: pytest.FixtureRequest) -> Asker:
    """Requests to the server of each backend in turn."""
    server: Server = request.getfixturevalue(f"{request.param}_server")
    return Asker(server)


def names(asker: Asker) -> tuple[str, str, str, str]:
    """Model that looks up a row, its input; model that sums, its input."""
    return (
        ("lookup", "i__0", "row_sum", "x__0")
        if "lookup" in {state.name for state in asker.server.models()}
        else ("table", "i", "row_sum", "x")
    )


def rows(answer: dict[str, np.ndarray] | str) -> list[list[float]]:
    """The only output of an answer that must not be an error."""
    assert isinstance(answer, dict), answer
    (array,) = answer.values()
    return array.tolist()


def test_requests_of_eight_clients_run_as_one_batch_and_each_gets_its_own(asker: Asker) -> None:
    model, tensor, _, _ = names(asker)
    before = asker.counts(model)
    answers = asker.ask_together(model, tensor, [np.array([[i]], np.int64) for i in range(8)])
    assert [rows(answer) for answer in answers] == [[[2.0 * i, 2.0 * i + 1]] for i in range(8)]
    # One batch of eight; a second one only where the machine was too busy to send all within the queue delay.
    assert asker.executions_since(before, model, inferences=8) <= 2


def test_requests_of_different_sizes_are_cut_apart_again(asker: Asker) -> None:
    model, tensor, _, _ = names(asker)
    sizes = [3, 1, 4]
    answers = asker.ask_together(model, tensor, [np.full((size, 1), size, np.int64) for size in sizes])
    assert [rows(answer) for answer in answers] == [[[2.0 * size, 2.0 * size + 1]] * size for size in sizes]


def test_only_the_guilty_request_of_a_batch_fails(asker: Asker) -> None:
    model, tensor, _, _ = names(asker)
    before = asker.counts(model)
    answers = asker.ask_together(model, tensor, [np.array([[i]], np.int64) for i in (0, 1, 99, 3, 4, 5, 6, 7)])
    assert asker.executions_since(before, model, inferences=8) <= 2
    guilty = answers.pop(2)
    assert isinstance(guilty, str)
    assert f"model '{model}'" in guilty
    assert "out of" in guilty
    assert [rows(answer)[0][0] for answer in answers] == [0, 2, 6, 8, 10, 12, 14]


def test_shapes_that_do_not_match_run_in_groups(asker: Asker) -> None:
    _, _, model, tensor = names(asker)
    lengths = [2, 5, 2, 7, 5, 2]
    answers = asker.ask_together(model, tensor, [np.full((1, length), place + 1, np.float32) for place, length in enumerate(lengths)])
    assert [rows(answer) for answer in answers] == [[[(place + 1) * length]] for place, length in enumerate(lengths)]
