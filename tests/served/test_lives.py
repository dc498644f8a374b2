"""The life of single requests, by Triton's trace: right against the server's own counters, and drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from helpers import plots, scrape, trace, tracks
from helpers.client import Client
from helpers.course import ____, exercise
from helpers.course.judge import Kind
from helpers.errors import ServerError
from helpers.metrics import lives as lives_module
from helpers.plots.style import words
from helpers.server import Server, launch_server

MODEL = "particlenet_AK4"
# Part of the life -> between which timestamps.
PARTS = {
    "queue": ("QUEUE_START", "COMPUTE_START"),
    "compute_input": ("COMPUTE_START", "COMPUTE_INPUT_END"),
    "compute_infer": ("COMPUTE_INPUT_END", "COMPUTE_OUTPUT_START"),
    "compute_output": ("COMPUTE_OUTPUT_START", "COMPUTE_END"),
}

MOMENTS = (PARTS["queue"], ("REQUEST_START", "REQUEST_END"))


@pytest.fixture(scope="module")
def traced(work: Any, free_base_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    file = tmp_path_factory.mktemp("trace") / "trace.json"
    argument = f"--trace-config=triton,file={file}"
    with launch_server("models", load=[MODEL, "ExaTrk"], base_port=free_base_port(), name="lives", extra_arguments=[argument]) as running:
        yield running


@pytest.mark.parametrize("number", [1, 8])
def test_the_parts_are_those_of_the_counters(traced: Server, number: int) -> None:
    with Client(traced) as client:
        ten = client.example(MODEL, 10)
        before = scrape(traced)
        lives = trace(traced, lambda: client.infer_many(MODEL, [ten] * number, max_in_flight=8), number)
        change = scrape(traced) - before
    counted_ms = {part: change.value(f"nv_inference_{part}_duration_us", model=MODEL) / 1000 for part in ("request", *PARTS)}
    assert change.value("nv_inference_request_success", model=MODEL) == len(lives) == number
    seen_ms = {part: float((lives[end] - lives[begin]).sum()) for part, (begin, end) in PARTS.items()}
    for part, ms in seen_ms.items():
        assert ms == pytest.approx(counted_ms[part], rel=0.05, abs=0.01 * number), part
    assert sum(seen_ms.values()) == pytest.approx(sum(counted_ms[part] for part in PARTS), rel=0.05)
    # A request lives a moment before its queue and after its output, too.
    assert float((lives["REQUEST_END"] - lives["REQUEST_START"]).sum()) == pytest.approx(counted_ms["request"], rel=0.05)
    assert lives["REQUEST_START"].min() == 0 and lives["REQUEST_START"].is_monotonic_increasing
    assert words(plots.lives_figure(lives)).startswith("Figure: Time since the first request came (ms), whole request")


def test_stages_stand_below_their_event(traced: Server) -> None:
    events = [{"FEATURES": event.features} for event in tracks.load_events()[:3]]
    with Client(traced) as client:
        lives = trace(traced, lambda: client.infer_many("ExaTrk", events, max_in_flight=3), 3)
    asked = lives[lives["parent"] == -1]
    assert list(asked["model"]) == ["ExaTrk"] * 3
    for number, row in asked.iterrows():
        stages = lives[lives["parent"] == number]
        assert [name.removeprefix("ExaTrk_") for name in stages["model"]] == ["embedding", "graph", "filter", "gnn", "tracks"]
        assert stages["REQUEST_START"].min() >= row["REQUEST_START"] and stages["REQUEST_END"].max() <= row["REQUEST_END"]
    axes = plots.lives_figure(lives).axes[0]
    names = [label.get_text().strip() for label in axes.get_yticklabels()]
    assert names == [name for number in (1, 2, 3) for name in (f"{number}: ExaTrk", *stages["model"])]


def test_6_4_on_a_live_server(traced: Server) -> None:
    with Client(traced) as client:
        ten = client.example(MODEL, 10)
        before = scrape(traced)
        lives = trace(traced, lambda: client.infer_many(MODEL, [ten] * 8, max_in_flight=8), 8)
    waited, lived, network = (float((lives[end] - lives[begin]).sum()) for begin, end in (*MOMENTS, PARTS["compute_infer"]))
    for answer, kind, said in (
        (waited / lived, Kind.CORRECT, "ms in 8 requests"),
        (round(waited / lived, 2), Kind.CORRECT, "were waiting"),
        (100 * waited / lived, Kind.NOT_YET, "in percent"),
        (network / lived, Kind.NOT_YET, "Take the queue of all requests"),
        (2.0, Kind.NOT_YET, "Take the queue of all requests"),
        (None, Kind.NOT_YET, "should be one number"),
        (____, Kind.NOT_ATTEMPTED, "blank"),
    ):
        outcome = exercise("6.4").judge(traced, before, answer)
        assert outcome.kind is kind and said in outcome.text, outcome
    outcome = exercise("6.4").judge(traced, scrape(traced), waited / lived)
    assert outcome.kind is Kind.CANNOT_TELL and "counted 0 requests since" in outcome.text


def test_what_is_no_trace_is_said(traced: Server, models_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServerError, match="without a file for its trace"):
        trace(models_server, lambda: None)
    monkeypatch.setattr(lives_module, "_WRITTEN_S", 0.3)
    with pytest.raises(ServerError, match="wrote no trace of 2 requests"):
        trace(traced, lambda: None, 2)
