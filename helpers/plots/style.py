"""What all figures of the course share: a style, that of CMS's figures, but never under its name, and words for who does not see them."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib.pyplot as plt
import mplhep
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

# Figures by others, and whatever is there for comparison only; the style's own grey is left out of the cycle for them.
GREY = "#767676"
COLOURS = tuple(colour for colour in mplhep.style.CMS["axes.prop_cycle"].by_key()["color"] if colour != "#9c9ca1")
# Lines and markers stay apart without colour.
LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
# Size of text in points, and no text is smaller: 12 pixels on a projector of 1280 × 720 at 125 %, which makes the widest figures smaller.
SMALL = 13
STYLE = {**mplhep.style.CMS, "font.size": 15, "axes.labelsize": 16, "legend.fontsize": 13, "xtick.labelsize": 14, "ytick.labelsize": 14}
STYLE |= {"figure.dpi": 80, "savefig.dpi": 150, "lines.linewidth": 2.2, "figure.figsize": (7.5, 6), "axes.labelpad": 7}
STYLE |= {"xtick.major.size": 7, "xtick.minor.size": 4, "ytick.major.size": 7, "ytick.minor.size": 4, "axes.linewidth": 1.4}
# Of bars one below the other: names instead of ticks.
BARS = {**STYLE, "ytick.minor.visible": False, "ytick.right": False, "ytick.major.size": 0, "hatch.linewidth": 0.8}
EDGE: dict[str, Any] = {"edgecolor": "black", "linewidth": 0.9}
# The legend below a figure, and words beside a point.
BELOW: dict[str, Any] = {"loc": "outside lower center", "columnspacing": 1.2, "handlelength": 1.6, "title_fontsize": SMALL}
NOTE: dict[str, Any] = {"textcoords": "offset points", "fontsize": SMALL}
# A rise or fall by less than this fraction is none.
_LEVEL = 0.1


class Picture(Figure):
    """A figure that has the course's style wherever it is saved, and shows itself in a notebook with an alternative text."""

    def savefig(self, *args: Any, **kwargs: Any) -> None:
        """Save it as matplotlib does, with all of its labels at any dpi."""
        with plt.rc_context(STYLE):
            super().savefig(*args, **{"bbox_inches": "tight", **kwargs})

    def _ipython_display_(self) -> None:
        # IPython asks the object itself; its own display of figures knows no such text.
        from IPython.display import display

        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=self.dpi)
        picture, alt = base64.b64encode(buffer.getvalue()).decode("ascii"), words(self)
        page = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{picture}">'
        display({"image/png": picture, "text/html": page, "text/plain": alt}, raw=True)  # type: ignore[no-untyped-call]


def series_style(number: int) -> dict[str, Any]:
    """Return colour, line and marker of a series, which is numbered from 0; the first forty differ in at least one of line and marker."""
    colour, line, marker = (each[number % len(each)] for each in (COLOURS, LINES, MARKERS))
    return {"color": colour, "linestyle": line, "marker": marker, "markersize": 9}


def named_bars(axes: Axes, names: Sequence[str]) -> None:
    """Name bars one below the other, the first at the top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)


def heading(axes: Axes, bold: str, italic: str = "", right: str = "", right_axes: Axes | None = None) -> None:
    """Say above the axes, where a CMS figure says CMS, the one word that matters most, what qualifies it, and at the right end the device.

    With several axes side by side, that end is on ``right_axes``.
    """
    first = axes.annotate(bold, (0, 1), xytext=(0, 5), xycoords="axes fraction", **{**NOTE, "fontsize": 17, "fontweight": "bold"})
    axes.annotate(italic, (1, 1), xytext=(5, 5), xycoords=(first, "axes fraction"), fontstyle="italic", **NOTE)
    (right_axes or axes).annotate(right, (1, 1), xytext=(0, 5), xycoords="axes fraction", ha="right", **NOTE)


def decades(axis: Axis) -> None:
    """Plain numbers at 1, 2 and 5 of each decade of a logarithmic axis: less than a decade has no power of ten to read."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


@contextmanager
def drawing(rows: int = 1, columns: int = 1, style: Any = STYLE, **options: Any) -> Iterator[tuple[Picture, Any]]:
    """Make a figure and its axes, or an array of them, with the options of pyplot's ``subplots``; a notebook shows it as a cell's value."""
    with plt.rc_context(style):
        figure, axes = plt.subplots(rows, columns, FigureClass=Picture, **{"layout": "constrained", **options})
        try:
            yield figure, axes
        finally:
            plt.close(figure)  # else pyplot would show it, too


# --- alternative text ------------------------------------------------------------------------------------------------------


def words(figure: Figure) -> str:
    """Return a sentence for each panel: what is drawn against what, which series there are, and how each of them goes."""
    shown = [panel for panel in map(_panel, figure.axes) if panel]
    names = ", ".join(_plain(text.get_text()) for legend in figure.legends for text in legend.get_texts())
    count = f"Figure with {len(shown)} panels" if len(shown) > 1 else "Figure"
    return f"{count}: {'; '.join(shown)}." + (f" Series: {names}." if names else "")


def _panel(axes: Axes) -> str:
    # The label of the axis below, where panels share it.
    across = next((label for each in (axes, *axes.get_shared_x_axes().get_siblings(axes)) if (label := each.get_xlabel())), "")
    against = " against ".join(filter(None, map(_plain, (axes.get_ylabel(), across))))
    drawn: list[Any] = [*axes.containers, *axes.get_lines()]
    trends = [_trend(axes, each) for each in drawn if not str(each.get_label()).startswith("_")]
    return ", ".join(filter(None, [_plain(axes.get_title()), against, *trends]))


def _trend(axes: Axes, drawn: Any) -> str:
    """How a series goes, from its first to its last point, or from where to where bars go; nothing for what is no series."""
    name = _plain(str(drawn.get_label()))
    if isinstance(drawn, BarContainer):
        widths = [bar.get_width() for bar in drawn]
        return f"{name} {min(widths):.3g} to {max(widths):.3g}"
    line = drawn.lines[0] if isinstance(drawn, ErrorbarContainer) else drawn
    values = np.asarray(line.get_ydata(orig=False), dtype=float)
    values = values[np.isfinite(values)]
    # A line across the axes, such as a budget, is no series.
    if values.size < 2 or line.get_transform() != axes.transData:
        return ""
    first, last = values[0], values[-1]
    level = abs(last - first) <= _LEVEL * np.abs(values).max()
    return f"{name} {'stays level' if level else 'rises' if last > first else 'falls'} from {first:.3g} to {last:.3g}"


def _plain(text: str) -> str:
    return " ".join(re.sub(r"\\(mathrm|mathbf|rm)\b|[$\\{}]", "", text).split())
