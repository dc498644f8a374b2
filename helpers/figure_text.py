"""Words for a figure: what people hear who do not see it, as the alternative text of the picture in a notebook."""

from __future__ import annotations

import base64
import functools
import html
import io
import re
from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
