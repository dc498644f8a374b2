"""What all figures of the course share: a style, that of CMS's figures, but never under its name, and words for who does not see them.

Typical use::

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(layout="constrained")
        axes.plot(x, y, label="one", **series_style(0))
        heading(axes, "Measured", "perf_analyzer 2.51.0", "CPU: AMD EPYC")
        return finished(figure)
"""

from __future__ import annotations

import base64
import functools
import html
import io
import re
from collections.abc import Iterable
from typing import Any

import matplotlib.pyplot as plt
import mplhep
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Lines and markers that stay apart without colour; the colours are Petroff's, which people with weak colour vision tell apart.
COLOURS = ("#3f90da", "#bd1f01", "#000000", "#832db6", "#a96b59")
LINES = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
# Figures by others, and whatever is there for comparison only.
GREY = "#767676"
# Characters at the right end of a heading.
_ROOM = 36
# Size of text in points: legible at the back of a lecture room when the figure fills half of a projector's width.
STYLE = {**mplhep.style.CMS, "font.size": 15, "axes.labelsize": 16, "legend.fontsize": 13, "xtick.labelsize": 14, "ytick.labelsize": 14}
# Named, and not as "sans-serif": what that means is looked up when a figure is drawn, and then the style is gone.
STYLE |= {"font.family": "TeX Gyre Heros", "mathtext.fontset": "dejavusans"}
STYLE |= {"figure.dpi": 80, "savefig.dpi": 150, "lines.linewidth": 2.2, "figure.figsize": (7.5, 6), "axes.labelpad": 7}


def series_style(number: int) -> dict[str, Any]:
    """Colour, line and marker of a series; the first forty differ in at least one of line and marker.

    Args:
        number: of the series, from 0.
    """
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": LINES[number % len(LINES)],
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 9,
    }


def heading(axes: Axes, bold: str, italic: str = "", right: str = "", right_axes: Axes | None = None) -> None:
    """Say above the axes what one sees and where it comes from, where a CMS figure says CMS.

    Args:
        axes: the (left) axes.
        bold: the one word that matters most.
        italic: what qualifies it.
        right: at the right end, such as the device or the energy.
        right_axes: the axes with that right end, where there are several side by side.
    """
    first = axes.text(0, 1.015, bold, transform=axes.transAxes, fontweight="bold", fontsize=16, va="bottom")
    if italic:
        # One word's width further, whatever the word and the width of the axes are.
        place = {"xycoords": first, "xytext": (7, 0), "textcoords": "offset points", "annotation_clip": False}
        axes.annotate(italic, (1, 0), fontstyle="italic", fontsize=13, va="bottom", **place)
    end = right_axes or axes
    # A long name gets smaller letters: beside the words at the left there is room for about so many.
    size = 13 * min(1.0, _ROOM / max(len(right), 1))
    end.text(1, 1.015, right, transform=end.transAxes, fontsize=size, va="bottom", ha="right")


def finished(figure: Figure) -> Figure:
    """The figure, laid out while the style is there, and closed for pyplot, so that a notebook shows it once, as the value of the cell."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    plt.close(figure)
    return described(figure)


# --- alternative text --------------------------------------------------------------------------------------------------------

# Series that are named at most; more would not help anybody who listens.
_MOST_SERIES = 8


def words(figure: Figure) -> str:
    """One sentence for each panel: what is drawn against what, and which series there are."""
    shown = [panel for panel in map(_panel, figure.axes) if panel]
    legends = _names(text.get_text() for legend in figure.legends for text in legend.get_texts())
    count = f"Figure with {len(shown)} panels" if len(shown) > 1 else "Figure"
    return ". ".join([f"{count}: {'; '.join(shown)}", *([f"Series: {legends}"] if legends else [])]) + "."


def _panel(axes: Axes) -> str:
    across, up = _plain(axes.get_xlabel()) or _plain(_shared_label(axes)), _plain(axes.get_ylabel())
    title = next((title for where in ("left", "center", "right") if (title := _plain(axes.get_title(loc=where)))), "")
    against = " against ".join(label for label in (up, across) if label)
    legend = axes.get_legend()
    series = _names(text.get_text() for text in legend.get_texts()) if legend else ""
    return ", ".join([part for part in (title, against) if part] + ([f"for {series}"] if series else []))


def _shared_label(axes: Axes) -> str:
    """The label of the axis below, where panels share it."""
    return next((label for other in axes.get_shared_x_axes().get_siblings(axes) if (label := other.get_xlabel())), "")


def _names(names: Iterable[str]) -> str:
    known = [name for name in map(_plain, names) if name]
    return ", ".join(known[:_MOST_SERIES]) + (f" and {len(known) - _MOST_SERIES} more" if len(known) > _MOST_SERIES else "")


def _plain(text: str) -> str:
    return " ".join(re.sub(r"\\(mathrm|mathbf|rm)\b|[$\\{}]", "", text).split())


def described(figure: Figure) -> Figure:
    """The figure, which shows itself in a notebook as a picture with an alternative text."""
    # IPython asks the object itself; its own display of figures knows no such text.
    figure._ipython_display_ = functools.partial(_display, figure)
    return figure


def _display(figure: Figure) -> None:
    from IPython.display import display

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi, bbox_inches="tight")
    picture, alt = base64.b64encode(buffer.getvalue()).decode("ascii"), words(figure)
    page = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{picture}">'
    display({"image/png": picture, "text/html": page, "text/plain": alt}, raw=True)
