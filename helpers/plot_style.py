"""The style that all figures of the course share: that of CMS's figures, but never under its name.

Typical use::

    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(layout="constrained")
        axes.plot(x, y, label="one", **series_style(0))
        heading(axes, "Measured", "perf_analyzer 2.51.0", "CPU: AMD EPYC")
        return finished(figure)
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import mplhep
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from helpers.figure_text import described

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
