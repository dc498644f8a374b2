"""Recorded figures: those that were published, each with its source and hardware, and nothing made up."""

from __future__ import annotations

import pytest

from helpers.errors import InputError
from helpers.measuring.table import COLUMNS, is_recorded, recorded, rows_of
from helpers.plots.performance import series_of
from tests.support.measured_rows import row


def test_every_row_says_where_it_comes_from() -> None:
    for each in rows_of(recorded()):
        assert tuple(each)[: len(COLUMNS) + 1] == (*COLUMNS, "variant") and set(each) <= {*COLUMNS, "variant", "turns"}
        assert each["source"].startswith("recorded: ") and len(each["source"]) > 30 and each["device"]
        assert is_recorded(each)
        figures = [value for name, value in each.items() if name.endswith(("_us", "_per_s")) and value is not None]
        # perf_analyzer gives whole µs: what a fast client receives in less can be 0.
        measured = "this course" in each["source"]
        assert figures and all(value > 0 or (measured and value == 0 and each["client_recv_us"] == 0) for value in figures), (
            "a missing figure is None"
        )
    assert set(row()) <= {*COLUMNS, "variant"}, "the same columns as a measured row"


def test_the_p100_adds_up() -> None:
    (one,) = rows_of(recorded("P100"))
    assert (one["model"], one["batch"], one["throughput_infer_per_s"], one["latency_p95_us"]) == ("particlenet_PT", 10, 2608.5, 3938)
    server = sum(one[name] for name in ("queue_us", "compute_input_us", "compute_infer_us", "compute_output_us"))
    assert server + 48 == pytest.approx(3584, abs=2), "the server's own sum, with its overhead"
    assert server + one["network_us"] == 3791
    # Little's law: one request of ten jets under way.
    assert one["throughput_infer_per_s"] / 10 * one["latency_avg_us"] / 1e6 == pytest.approx(1, abs=0.02)


def test_the_t4_knows_no_latency() -> None:
    rows = rows_of(recorded("T4", "particlenet_AK4_PT"))
    assert [(each["batch"], each["throughput_infer_per_s"]) for each in rows] == [(1, 806), (4, 2721), (16, 4716), (64, 5417)]
    assert all(each["latency_p95_us"] is None and each["concurrency"] == 4 for each in rows)


def test_choosing() -> None:
    assert set(recorded("t4", "particlenet_AK4")["variant"]) == {"ONNX", "ONNX with TensorRT"}
    assert len(recorded("T4", "particlenet_AK4", "ONNX")) == 4
    assert recorded("A100")["throughput_infer_per_s"].tolist() == [54, 84, 25.5]
    assert recorded("CPU", "ExaTrk").iloc[0]["latency_avg_us"] == 4.14e6
    changed = recorded("P100")
    changed["model"] = "changed"
    assert recorded("P100").iloc[0]["model"] == "particlenet_PT", "a caller's change stays with the caller"


def test_it_shows_itself_with_its_source() -> None:
    rows = recorded("T4", "particlenet_AK4")
    said = repr(rows)
    assert said.startswith("Recorded: CMS SONIC study")
    assert "Tesla T4" in said and "ONNX with TensorRT" in said and "CMS SONIC study" in rows._repr_html_()


def test_what_there_is_not() -> None:
    with pytest.raises(InputError, match=r"'H100'.*Tesla P100.*Tesla T4"):
        recorded("H100")
    with pytest.raises(InputError, match=r"'T4' and 'resnet'.*deeptau_nosplit"):
        recorded("T4", "resnet")


def test_a_gpu_of_the_course_is_drawn_under_its_name() -> None:
    rows = rows_of(recorded("H200", "particlenet_AK4_PT"))
    assert [row["batch"] for row in rows] == [1, 8, 32, 128] and {row["concurrency"] for row in rows} == {1}
    ((name, _),) = series_of(rows, "batch", always=("variant", "inputs", "concurrency"))
    assert name == "particlenet_AK4_PT, concurrency 1, inputs random"
