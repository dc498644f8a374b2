"""The figures of measurements: what they draw, what they call it, and what they refuse."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from helpers.errors import CourseError, InputError
from helpers.measuring.table import hardware, recorded
from helpers.plots import (
    drawing,
    latency_split_figure,
    scale_figure,
    sweep_figure,
    throughput_latency_figure,
)
from helpers.plots import style as plot_style
from helpers.plots.performance import series_of
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


def bars(axes: Axes) -> list[tuple[float, float, float]]:
    """Each vertical error bar: where, from, to. Nothing else is drawn as an area or a bar: between sizes nobody measured."""
    assert all(isinstance(drawn, LineCollection) for drawn in axes.collections)
    segments = [segment for drawn in axes.collections for segment in drawn.get_segments()]
    assert all(len(segment) == 2 and segment[0, 0] == segment[1, 0] for segment in segments)
    return [(segment[0, 0], segment[0, 1], segment[1, 1]) for segment in segments]


def test_error_bars_are_the_intervals_and_nothing_is_drawn_between_sizes() -> None:
    figure = sweep_figure([row(ONNX[1], batch=1), row(ONNX[4], batch=4)])
    assert bars(figure.axes[0]) == [pytest.approx((1, 193 - 34, 193 + 34)), pytest.approx((4, 508 - 9, 508 + 9))]
    assert bars(figure.axes[1])[0] == pytest.approx((1, (10990 - 4239) / 1e3, (10990 + 4239) / 1e3))


def test_a_ratio_has_the_error_of_its_own_series_alone() -> None:
    """That of the denominator stands on the points of the first series, and would be counted twice on the others."""
    _, _, throughput, latency = sweep_figure(sweep_rows()).axes
    first, second = bars(throughput)[:4], bars(throughput)[4:]
    assert first[0] == pytest.approx((1, 1 - 34 / 193, 1 + 34 / 193))
    assert second[0] == pytest.approx((1, (81 - 12) / 193, (81 + 12) / 193))
    assert bars(latency)[7] == pytest.approx((64, (203000 - 14000) / 117424, (203000 + 14000) / 117424))


def test_an_interval_below_zero_is_drawn_to_the_axis() -> None:
    ((_, low, high),) = bars(sweep_figure(row((100, 150, 9e3, 0))).axes[0])
    assert 0 < low < 2 and high == 250


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
    assert names[2] == "recorded: particlenet_AK4, variant ONNX, concurrency 4, inputs 100 candidates + 10 vertices, Tesla T4"
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
    apart = [name.partition("variant ")[2].partition(",")[0] for name in legend(figure)]
    assert apart == ["ONNX", "ONNX with TensorRT"] and all("T4" in name for name in legend(figure))
    assert not lines(figure.axes[1]), "no latencies were published"


@pytest.mark.parametrize("factor", [1.2, 200.0])
def test_the_kind_of_an_axis_does_not_depend_on_the_values(factor: float) -> None:
    """The same cell must not look otherwise on another machine."""
    rows = [row((10, 1, 9e4, 1e3), batch=1), row((10 * factor, 9, 9e4 * factor, 1e3), batch=64, concurrency=2)]
    assert {axes.get_yscale() for axes in sweep_figure(rows).axes} == {"log"}
    (axes,) = throughput_latency_figure(rows).axes
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "linear") and axes.get_xlim()[0] == axes.get_ylim()[0] == 0


def test_one_heading_one_unit_and_letters_that_can_be_read() -> None:
    fleet = [row(servers=1, concurrency=concurrency, queue_us=9e3) for concurrency in (1, 2)]
    figures = [sweep_figure(sweep_rows()), throughput_latency_figure(concurrency_rows()), scale_figure(fleet)]
    for figure in (*figures, latency_split_figure(sweep_rows())):
        assert {"Measured", "perf_analyzer 2.51.0", "CPU: AMD EPYC"} <= set(said(figure).split(" | ")), said(figure)
        labels = {axes.get_xlabel() for axes in figure.axes} | {axes.get_ylabel() for axes in figure.axes}
        assert all("(inferences/s)" in label for label in labels if label.startswith("Throughput")) and "jets/s" not in said(figure)
        texts = [text for text in figure.findobj(plt.Text) if text.get_text()]
        # On a projector of 1280 × 720 at 125 % a notebook shows pictures 824 pixels wide at most.
        scale = min(1, 824 / (figure.get_figwidth() * figure.dpi))
        assert min(text.get_fontsize() for text in texts) * figure.dpi / 72 * scale >= 12


def test_experiments_are_points_with_their_names() -> None:
    tries = [row((100 * n, 5, 9000 + 100 * n, 300), experiment=f"try {n}") for n in (1, 2, 3)]
    figure = throughput_latency_figure(tries, budget_ms=12)
    assert {"try 1", "try 2", "try 3", "budget 12 ms"} <= set(said(figure).split(" | ")) and "number" not in said(figure)


def test_no_label_is_cut_at_any_dpi() -> None:
    rows = [row(model=f"a_model_with_a_rather_long_name_{n}", batch=64, cpu="A Processor With A Long Name, 128 cores") for n in range(3)]
    figures = latency_split_figure(rows), throughput_latency_figure(rows), sweep_figure(rows)
    for figure, dpi in itertools.product(figures, (50, 220)):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi)
        picture = plt.imread(io.BytesIO(buffer.getvalue()))[..., :3]
        rim = np.concatenate([picture[:2].ravel(), picture[-2:].ravel(), picture[:, :2].ravel(), picture[:, -2:].ravel()])
        assert rim.min() == 1, "nothing reaches the rim"


def test_a_series_alone_is_black_as_data_are() -> None:
    assert {line.get_color() for line in lines(sweep_figure(sweep_rows()[:4]).axes[0])} == {"black"}
    assert [line.get_color() for line in lines(sweep_figure(sweep_rows()).axes[0])] == list(plot_style.COLOURS[:2])


def test_the_alternative_text_says_how_the_series_go() -> None:
    words = plot_style.words(sweep_figure(sweep_rows(), budget_ms=50))
    assert "Throughput (inferences/s) against Batch size, particlenet_AK4 rises from 193 to 629, particlenet_AK4_PT rises" in words
    assert "budget" not in words
    words = plot_style.words(throughput_latency_figure(concurrency_rows()))
    assert "particlenet_AK4 rises from 17.4 to 107" in words
    with drawing() as (figure, axes):
        axes.plot([500, 10, 90, 10], label="first")
        axes.plot([10, 10.1, 10], label="second")
        axes.axhline(10, label="median")
    assert plot_style.words(figure) == "Figure: first falls from 500 to 10, second stays level from 10 to 10."
    assert "compute 7.51 to 82.2" in plot_style.words(latency_split_figure([row(), row(ONNX[64], batch=64)]))


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
    assert legend(sweep_figure(rows))[:2] == [
        "particlenet_AK4, concurrency 1, protocol grpc",
        "particlenet_AK4, concurrency 1, protocol http",
    ]
    tuned = [row(config=config, instances=instances) for config, instances in (("0a1b", 1), ("2c3d", 2))]
    assert legend(sweep_figure(tuned)) == ["particlenet_AK4, instances 1", "particlenet_AK4, instances 2"]
    ((name, _),) = series_of(rows[:1], "batch")
    assert name == "particlenet_AK4"


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
    assert legend(sweep_figure(sweep, reference=recorded("P100")))[0] == "particlenet_AK4"
    assert len(lines(sweep_figure([sweep, row(batch=8, model="other")]).axes[0])) == 3


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "not one row"),
        ([3], "type int"),
        ("rows.csv", "type str"),
        (None, "type NoneType"),
        ([row(throughput_infer_per_s=None)], "'throughput_infer_per_s'"),
        ([row(), row(batch=None)], "has no batch"),
    ],
)
def test_rows_that_cannot_be_drawn(rows: Any, words: str) -> None:
    with pytest.raises(CourseError, match=words):
        sweep_figure(rows)


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
    assert "(ms)" in figure.axes[0].get_xlabel()
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()][1] == "particlenet_AK4\nbatch 64, concurrency 1"
    hatches = {container.patches[0].get_hatch() for container in figure.axes[0].containers[1:4]}
    assert len(hatches) == 3, "told apart without colour"


def test_shares_add_up() -> None:
    figure = latency_split_figure([row(), row(ONNX[64], batch=64)], share=True)
    assert [sum(widths) for widths in zip(*_bars(figure).values(), strict=True)] == pytest.approx([100, 100])
    assert "(%)" in figure.axes[0].get_xlabel() and f"{0.88e-3 * 117424:.0f} ms" in said(figure)


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


def test_a_part_that_is_missing_is_no_zero() -> None:
    """A request of 7 ms whose inference is not told is not one of 0.4 ms: it is not drawn."""
    lacking = row(batch=8, compute_infer_us=None, latency_avg_us=7000.0)
    (label,) = latency_split_figure([row(), lacking]).axes[0].get_yticklabels()
    assert "batch 4" in label.get_text()
    for nothing in (lacking, recorded("T4", "particlenet_AK4")):
        with pytest.raises(InputError, match=r"No row has a value for .* and the split of the latency needs it"):
            latency_split_figure(nothing)
