"""The figures of measurements: what they draw, what they call it, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from helpers.errors import CourseError, InputError
from helpers.measuring.recorded import recorded
from helpers.measuring.table import hardware
from helpers.plot_rows import series_of
from helpers.plots import latency_split_figure, sweep_figure, throughput_latency_figure, warm_up_figure
from helpers.plots import style as plot_style
from tests.support.measured_rows import CONCURRENT, ONNX, TORCH, concurrency_rows, row, sweep_rows


@pytest.fixture(autouse=True)
def drawn(tmp_path: Path) -> Any:
    """Each figure that a test makes can be saved without a warning, and pyplot keeps none."""
    yield
    assert not plt.get_fignums()


def said(figure: Figure) -> str:
    return " | ".join(text.get_text() for text in figure.findobj(plt.Text) if text.get_text())


def legend(figure: Figure) -> list[str]:
    (box,) = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    return [text.get_text() for text in box.get_texts()]


def lines(axes: Axes) -> list[Line2D]:
    """The series: what has a marker of ours and more than a legend's empty point."""
    return [line for line in axes.get_lines() if line.get_marker() in plot_style.MARKERS and len(line.get_xdata()) and not line.get_gid()]


def test_sweep_of_two_models(tmp_path: Path) -> None:
    figure = sweep_figure(sweep_rows(), budget_ms=50)
    figure.savefig(tmp_path / "figure.png")
    assert plt.imread(tmp_path / "figure.png").std() > 0.02
    throughput, latency, throughput_ratio, latency_ratio = figure.axes
    assert [line.get_ydata().tolist() for line in lines(throughput)] == [[v[0] for v in model.values()] for model in (ONNX, TORCH)]
    for line, model in zip(lines(latency), (ONNX, TORCH), strict=True):
        assert line.get_ydata() == pytest.approx([figures[2] / 1e3 for figures in model.values()])
    assert lines(throughput_ratio)[1].get_ydata() == pytest.approx([TORCH[b][0] / ONNX[b][0] for b in ONNX])
    assert lines(latency_ratio)[1].get_ydata() == pytest.approx([TORCH[b][2] / ONNX[b][2] for b in ONNX])
    assert lines(latency_ratio)[0].get_ydata().tolist() == [1, 1, 1, 1]
    assert throughput.get_ylabel() == "Throughput (inferences/s)" and latency.get_ylabel() == "Latency, 95th percentile (ms)"
    assert throughput_ratio.get_xlabel() == latency_ratio.get_xlabel() == "Batch size"
    assert [tick.get_text() for tick in latency_ratio.get_xticklabels()] == ["1", "4", "16", "64"]
    assert legend(figure) == ["particlenet_AK4", "particlenet_AK4_PT"]
    assert "CPU: AMD EPYC" in said(figure) and "Measured" in said(figure) and "perf_analyzer 2.51.0" in said(figure)
    assert "budget 50 ms" in said(figure) and "CMS" not in said(figure) and "evt" not in said(figure)


def test_series_differ_without_colour() -> None:
    rows = [row(model=f"model {n}", batch=batch) for n in range(7) for batch in (1, 2)]
    marks = {(str(line.get_linestyle()), str(line.get_marker())) for line in lines(sweep_figure(rows).axes[0])}
    assert len(marks) == 7
    assert len({(str(style["linestyle"]), style["marker"]) for style in map(plot_style.series_style, range(40))}) == 40


def test_bands_are_the_spread() -> None:
    figure = sweep_figure([row(ONNX[1], batch=1), row(ONNX[4], batch=4)])
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == pytest.approx(193 - 34) and band[:, 1].max() == pytest.approx(508 + 9)
    latency = figure.axes[1].collections[0].get_paths()[0].vertices
    assert latency[:, 1].max() == pytest.approx((10990 + 4239) / 1e3)
    assert figure.axes[1].get_ylim()[1] > (10990 + 4239) / 1e3, "the whole band is seen"


def test_the_spread_of_another_percentile_is_not_drawn() -> None:
    figure = sweep_figure(sweep_rows()[:4], percentile=99)
    assert lines(figure.axes[1])[0].get_ydata() == pytest.approx([1.3e-3 * figures[2] for figures in ONNX.values()])
    assert figure.axes[1].get_ylabel() == "Latency, 99th percentile (ms)"
    assert all(not len(band.get_paths()) for band in figure.axes[1].collections)


def test_the_mean_and_its_spread() -> None:
    figure = sweep_figure([row(batch=1, percentile=None), row(batch=2, percentile=None)], percentile=None)
    assert figure.axes[1].get_ylabel() == "Mean latency (ms)" and figure.axes[1].collections[0].get_paths()


def test_one_model_has_no_ratio() -> None:
    assert len(sweep_figure(sweep_rows()[:4]).axes) == 2
    assert len(sweep_figure(row()).axes) == 2, "one point is a figure, too"


def test_an_unstable_point_is_open_and_named() -> None:
    rows = sweep_rows()
    rows[1]["stable"] = False
    figure = sweep_figure(rows)
    for axes in figure.axes:
        (open_,) = [line for line in axes.get_lines() if line.get_gid() == "unstable"]
        assert open_.get_markerfacecolor() == "white" and open_.get_xdata().tolist() == [4]
        assert lines(axes)[0].get_markevery() == [0, 2, 3], "and not closed as well"
    assert legend(figure)[-1] == "open: not stable"
    assert "open: not stable" not in legend(sweep_figure(sweep_rows()))


def test_recorded_rows_are_grey_dashed_and_named_with_their_hardware() -> None:
    figure = sweep_figure(sweep_rows(), reference=recorded("T4", "particlenet_AK4", "ONNX"))
    names = legend(figure)
    assert names[2] == "recorded: particlenet_AK4, ONNX, concurrency 4, inputs: 100 candidates + 10 vertices, Tesla T4"
    line = lines(figure.axes[0])[2]
    assert line.get_linestyle() == "--" and line.get_color() == plot_style.GREY
    assert lines(figure.axes[2])[2].get_ydata() == pytest.approx([881 / 193, 1578 / 508, 2011 / 591, 2208 / 629])
    assert "CPU: AMD EPYC" in said(figure), "the heading is about what was measured"


def test_recorded_rows_among_measured_ones_cannot_hide() -> None:
    mixed = sweep_figure([recorded("P100"), *sweep_rows()])
    assert [name.split(":")[0] for name in legend(mixed)] == ["particlenet_AK4", "particlenet_AK4_PT", "recorded"]
    assert "P100" in legend(mixed)[2]


def test_recorded_rows_alone_say_so() -> None:
    figure = sweep_figure(recorded("T4", "particlenet_AK4"))
    assert "Recorded" in said(figure) and "Measured" not in said(figure) and "Tesla T4" in said(figure)
    assert "these rows have none" in said(figure)
    assert legend(figure) == ["particlenet_AK4, ONNX", "particlenet_AK4, ONNX with TensorRT"]


def test_far_apart_values_get_a_logarithmic_axis() -> None:
    rows = [row((10, 1, 9e4, 1e3), batch=1), row((2000, 9, 9e4, 1e3), batch=64)]
    throughput, latency = sweep_figure(rows).axes
    assert throughput.get_yscale() == "log" and latency.get_yscale() == "linear"
    assert latency.get_ylim()[0] == 0


def test_a_generous_budget_is_still_seen() -> None:
    for figure in (sweep_figure(sweep_rows(), budget_ms=900), throughput_latency_figure(concurrency_rows(), budget_ms=900)):
        shown = [axes for axes in figure.axes if any(line.get_gid() == "budget" for line in axes.get_lines())]
        assert len(shown) == 1 and shown[0].get_ylim()[1] > 900


def test_a_missing_figure_leaves_a_gap() -> None:
    rows = sweep_rows()[:4]
    rows[2]["throughput_infer_per_s"] = None
    rows[2]["throughput_spread_infer_per_s"] = None
    figure = sweep_figure(rows)
    assert lines(figure.axes[0])[0].get_xdata().tolist() == [1, 4, 64]
    assert lines(figure.axes[1])[0].get_xdata().tolist() == [1, 4, 16, 64]


def test_what_sets_series_apart_is_in_the_legend() -> None:
    rows = [row(batch=batch, concurrency=c, protocol=p) for batch in (1, 4) for c in (1, 4) for p in ("grpc", "http")]
    assert legend(sweep_figure(rows))[:2] == ["particlenet_AK4, concurrency 1, grpc", "particlenet_AK4, concurrency 1, http"]
    tuned = [row(config=config, instances=instances) for config, instances in (("0a1b", 1), ("2c3d", 2))]
    assert legend(sweep_figure(tuned)) == ["particlenet_AK4, instances: 1", "particlenet_AK4, instances: 2"]
    named = legend(sweep_figure([row(config="0a1b"), row(config="2c3d")]))
    assert named == ["particlenet_AK4, config 0a1b", "particlenet_AK4, config 2c3d"]
    (one,) = series_of(rows[:1], "batch")
    assert one.name == "particlenet_AK4"


@pytest.mark.parametrize(
    ("device", "cpu", "said"),
    [
        ("CPU", "Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz, 28 cores", "CPU: Intel Xeon E5-2680 v4, 28 cores"),
        ("CPU", "AMD EPYC 7763 64-Core Processor, 2 cores", "CPU: AMD EPYC 7763, 2 cores"),
        ("CPU", None, "CPU"),
        ("NVIDIA H200", "AMD EPYC, 2 cores", "NVIDIA H200"),
        (None, "AMD EPYC, 2 cores", "CPU: AMD EPYC, 2 cores"),
        (None, None, "device not known"),
    ],
)
def test_names_of_hardware(device: str | None, cpu: str | None, said: str) -> None:
    assert hardware(row(device=device, cpu=cpu)) == said


def test_a_sweep_is_taken_as_it_is() -> None:
    sweep = SimpleNamespace(rows=sweep_rows())
    assert legend(sweep_figure(sweep, reference=SimpleNamespace(rows=recorded("P100"))))[0] == "particlenet_AK4"
    assert len(lines(sweep_figure([sweep, row(batch=8, model="other")]).axes[0])) == 3


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "not one row"),
        ([3], "type int"),
        ("rows.csv", "type str"),
        (None, "type NoneType"),
        ([row(throughput_infer_per_s=None)], "'throughput_infer_per_s'"),
        ([row(), row()], "Two rows of 'particlenet_AK4' have batch 4"),
        ([row(), row(batch=None)], "has no batch"),
    ],
)
def test_rows_that_cannot_be_drawn(rows: Any, words: str) -> None:
    with pytest.raises(CourseError, match=words):
        sweep_figure(rows)


@pytest.mark.parametrize("arguments", [{"percentile": 97}, {"percentile": "p95"}, {"budget_ms": -3}, {"budget_ms": "50"}])
def test_arguments_that_make_no_sense(arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"percentile|budget"):
        sweep_figure(sweep_rows(), **arguments)
    plt.close("all")


# --- latency -----------------------------------------------------------------------------------------------------------------


def _bars(figure: Figure) -> dict[str, list[float]]:
    axes = figure.axes[0]
    return {container.get_label(): [bar.get_width() for bar in container] for container in axes.containers}


def test_the_split_is_as_long_as_its_parts() -> None:
    figure = latency_split_figure([row(), row(ONNX[64], batch=64)])
    bars = _bars(figure)
    assert list(bars) == ["client", "network", "queue", "input", "compute", "output"] == legend(figure)
    assert bars["compute"] == pytest.approx([0.7e-3 * 10731, 0.7e-3 * 117424])
    assert bars["client"] == pytest.approx([0.02e-3 * 10731, 0.02e-3 * 117424])
    assert f"{0.88e-3 * 117424:.0f} ms" in said(figure)
    assert "(ms)" in figure.axes[0].get_xlabel() and "PyTorch" not in said(figure)
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()][1] == "particlenet_AK4\nbatch 64, concurrency 1"
    hatches = {container.patches[0].get_hatch() for container in figure.axes[0].containers[1:4]}
    assert len(hatches) == 3, "told apart without colour"


def test_shares_add_up() -> None:
    figure = latency_split_figure([row(), row(ONNX[64], batch=64)], share=True)
    assert [sum(widths) for widths in zip(*_bars(figure).values(), strict=True)] == pytest.approx([100, 100])
    assert "(%)" in figure.axes[0].get_xlabel() and f"{0.88e-3 * 117424:.0f} ms" in said(figure)


def test_where_pytorch_counts_the_time_of_a_gpu() -> None:
    figure = latency_split_figure([row(), recorded("P100")])
    assert "counted as “output”" in said(figure) and "recorded, Tesla P100" in said(figure)
    assert _bars(figure)["compute"][1] == pytest.approx(2.922)
    assert "counted as" not in said(latency_split_figure(row(model="particlenet_PT"))), "not on a CPU"


def test_nothing_to_split() -> None:
    with pytest.raises(InputError, match="where its time went"):
        latency_split_figure(recorded("T4", "particlenet_AK4"))


def test_throughput_against_latency() -> None:
    rows = concurrency_rows()
    rows[3]["stable"] = False
    figure = throughput_latency_figure([rows[2], rows[0], rows[3], rows[1]], budget_ms=100)
    (line,) = lines(figure.axes[0])
    assert line.get_xdata().tolist() == [figures[0] for figures in CONCURRENT.values()], "in the order of the concurrency"
    assert line.get_ydata() == pytest.approx([figures[2] / 1e3 for figures in CONCURRENT.values()])
    numbers = [text.get_text() for text in figure.axes[0].texts]
    assert {"1", "2", "4", "8", "budget 100 ms"} <= set(numbers) and "number: concurrency" in said(figure)
    assert "open: not stable" in legend(figure)
    with pytest.raises(InputError, match="latency_p95_us"):
        throughput_latency_figure(recorded("T4"))


def test_request_rates_instead_of_concurrency() -> None:
    rows = [row(concurrency=None, request_rate_per_s=rate) for rate in (10.0, 50.0)]
    assert "number: requests/s sent" in said(throughput_latency_figure(rows))


def test_warm_up() -> None:
    figure = warm_up_figure({"cold": [5e5, 2e4, 1e4, 1e4, 1e4], "warm": [1e4] * 5})
    assert [line.get_ydata().tolist() for line in lines(figure.axes[0])] == [[500, 20, 10, 10, 10], [10] * 5]
    assert legend(figure) == ["cold", "warm"] and figure.axes[0].get_ylabel() == "Latency (ms)"
    steady = [line for line in figure.axes[0].get_lines() if line.get_marker() == "None"]
    assert [line.get_ydata()[0] for line in steady] == [10, 10]
    assert figure.axes[0].get_legend() is not None and warm_up_figure(np.full(9, 3e3)).axes[0].get_legend() is None


@pytest.mark.parametrize("wrong", [[], {}, {"a": []}, [[1, 2], [3, 4]], ["slow"], [1.0, -1.0], 3.0])
def test_warm_up_of_no_latencies(wrong: Any) -> None:
    with pytest.raises(InputError, match="latenc"):
        warm_up_figure(wrong)


def test_a_part_that_is_missing_is_no_zero() -> None:
    """A request of 7 ms whose inference is not told is not one of 0.4 ms."""
    lacking = row(compute_infer_us=None, latency_avg_us=7000.0, network_us=200.0, queue_us=200.0)
    axes = latency_split_figure([row(), lacking]).axes[0]
    totals = [text.get_text() for text in axes.texts if text.get_text().endswith(" ms")]
    assert totals[1] == "7 ms"
    bars = {container.get_label(): [bar.get_width() for bar in container] for container in axes.containers}
    assert bars["not split"][0] == 0 and 0 < bars["not split"][1] < 7
    assert sum(widths[1] for widths in bars.values()) == pytest.approx(7.0)
    assert "not split" not in {container.get_label() for container in latency_split_figure([row()]).axes[0].containers}
    with pytest.raises(InputError, match="No row says where its time went"):
        latency_split_figure([row(compute_infer_us=None) | {"latency_avg_us": None}])
