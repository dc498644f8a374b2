"""What a demo leaves behind: a log, a picture, and a page that holds everything and can be sent to somebody."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import helpers
from helpers import settings
from helpers.perf_table import Rows
from helpers.tables import as_html

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from helpers.demo import Record

# Parts of a request's time inside the server, in the order in which they pass: column, word, colour (apart for colour-blind eyes, too).
_PARTS = (
    ("overhead_us", "overhead", "#b9ac70"),
    ("queue_us", "queue", "#bd1f01"),
    ("compute_input_us", "input", "#ffa90e"),
    ("compute_infer_us", "inference", "#3f90da"),
    ("compute_output_us", "output", "#832db6"),
)
_MARKERS = {"grpc": ("o", "gRPC", "#3f90da"), "http": ("s", "HTTP", "#bd1f01")}
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a;background:#fff}
table{border-collapse:collapse;margin:1rem 0}th,td{padding:.25rem .75rem;border-bottom:1px solid #ccc}img{max-width:100%;height:auto}
caption{padding:.25rem 0}.scroll{overflow-x:auto}.problem{border-left:.3rem solid #d4351c;padding-left:1rem}
"""


class Log:
    """Says things in the terminal and keeps them in a file.

    Args:
        path: the file; an old one is replaced.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_text(f"{datetime.now():%Y-%m-%d %H:%M} make demo\n", encoding="utf-8")

    def say(self, *lines: str) -> None:
        """Print lines and keep them."""
        text = "\n".join(lines)
        print(text, flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def write(record: Record, folder: Path) -> Path:
    """Write ``picture.png``, ``measured.png`` where something was measured, and ``index.html``; returns the page."""
    png = picture(record)
    (folder / "picture.png").write_bytes(png)
    if record.figure:
        (folder / "measured.png").write_bytes(record.figure)
    page = folder / "index.html"
    page.write_text(_page(record, png), encoding="utf-8")
    return page


def picture(record: Record) -> bytes:
    """The picture as PNG: latency seen by the client, and where the time went inside the server."""
    # Here, not above: drawing takes a second to import, which a server that does not start should not cost.
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    import mplhep

    models = list(dict.fromkeys(model for model, _ in record.latencies_us))
    with plt.style.context(
        [
            mplhep.style.CMS,
            {"font.size": 17, "axes.labelsize": 19, "legend.fontsize": 15, "ytick.minor.visible": False, "ytick.major.size": 0},
        ]
    ):
        # Both kinds of bars need room for their names.
        height = 3.6 + 1.0 * max(len(models), 1)
        figure, (left, right) = plt.subplots(1, 2, figsize=(17, height), sharey=True, layout="constrained")
        _draw_latency(left, record, models)
        _draw_parts(right, record, models)
        left.set_yticks(range(len(models)), models)
        left.set_ylim(len(models) - 0.4, -1.1)
        left.set_title("Triton course", loc="left", fontweight="bold", fontsize=20)
        right.set_title(record.machine.split(";")[0], loc="right", fontsize=15)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=80)
        plt.close(figure)
    return buffer.getvalue()


def _draw_latency(axes: Axes, record: Record, models: list[str]) -> None:
    for (model, protocol), latencies in record.latencies_us.items():
        if not latencies:
            continue
        marker, label, colour = _MARKERS[protocol]
        low, middle, high = np.percentile(latencies, [5, 50, 95]) / 1000
        row = models.index(model) + (-0.15 if protocol == "grpc" else 0.15)
        first = model == models[0]
        axes.errorbar(
            middle,
            row,
            xerr=[[middle - low], [high - middle]],
            fmt=marker,
            color=colour,
            markersize=10,
            capsize=4,
            label=label if first else None,
        )
    axes.set_xscale("log")
    # 0.5 and 20, not powers of ten.
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:.0e}"[0] in "25" else "")
    axes.tick_params(axis="x", which="minor", labelsize=14)
    axes.set_xlabel("Latency seen by the client [ms]")
    axes.legend(loc="upper right", ncols=2, title="median, 5 to 95 %", title_fontsize=14)


def _draw_parts(axes: Axes, record: Record, models: list[str]) -> None:
    rows = {row["model"]: row for row in record.counted.requests} if record.counted else {}
    begin = np.zeros(len(models))
    for column, label, colour in _PARTS:
        width = np.array([_share(rows.get(model, {}), column) for model in models])
        axes.barh(range(len(models)), width, left=begin, height=0.5, color=colour, label=label, edgecolor="white")
        begin += width
    axes.set_xlabel("Where its time inside the server goes [%]")
    axes.set_xlim(0, 100)
    axes.legend(loc="upper right", ncols=5, columnspacing=0.8, handlelength=1.0)


def _share(row: Mapping[str, Any], column: str) -> float:
    """Part of a request's time in the server, in %: models differ by factors of a hundred, the shares can be compared."""
    total = sum(max(row.get(part) or 0.0, 0.0) for part, _, _ in _PARTS)
    return 100 * max(row.get(column) or 0.0, 0.0) / total if total else 0.0


def _measured(record: Record) -> str:
    """The short measurement: figure and table; nothing where there was none."""
    if not record.figure:
        return ""
    alt = "Throughput and 95th percentile of the latency against batch size, and below them their ratios to the first model."
    return f"""<h2>Measured with perf_analyzer</h2>
<img alt="{alt}" src="data:image/png;base64,{base64.b64encode(record.figure).decode()}">
<div class="scroll">{Rows(record.measured)._repr_html_()}</div>"""


def _page(record: Record, png: bytes) -> str:
    problems = "".join(f"<p class='problem'>{html.escape(problem)}</p>" for problem in [*record.problems, *record.notes])
    names = ", ".join(row["model"] for row in record.models if row["state"] == "READY")
    alt = f"Left: latency of requests to {names} over gRPC and HTTP. Right: the time of a request inside the server, part by part."
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Triton course: demo</title><style>{_STYLE}</style></head><body>
<h1>A Triton server on this machine</h1>
<p>{datetime.now():%Y-%m-%d %H:%M}. Triton {settings.EMBEDDED_TRITON}, course {helpers.__version__}. {html.escape(record.machine)}.
The server was ready after {record.ready_s:.1f} s.</p>{problems}
<img alt="{html.escape(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">
<p>Left: what a client waits for, one request after the other. Right: where the part of it that passes inside the server goes, by the
server's own counters.</p>
<h2>Models</h2><div class="scroll">{as_html(record.models)}</div>
<h2>What the client saw</h2><div class="scroll">{as_html(record.requests)}</div>
<h2>What the server counted</h2><div class="scroll">{record.counted._repr_html_() if record.counted else ""}</div>
{_measured(record)}<p>Next: <code>make lab</code> opens the first notebook.</p></body></html>
"""
