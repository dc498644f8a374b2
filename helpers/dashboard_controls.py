"""The dashboard's widgets: buttons, check boxes and sliders of ipywidgets' own, so that VS Code and Colab show them too."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets

# Ends of its two sliders. A model may allow more; on a CPU one such request takes a second or so.
DASHBOARD_MAX_BATCH = 64
DASHBOARD_MAX_CONCURRENCY = 16


class Controls:
    """Everything that is on the screen.

    The CSS classes ``course-…`` are there for tests, and for people who want another look.

    Args:
        loaded: the models that can be chosen.
        shown: those that are chosen at first.
        load: the model that gets the load at first, or None for no load at all.
        largest_batch: the end of the slider for that model.

    Attributes:
        start: the button.
        stop: the button.
        boxes: a check box for each model, by its name.
        load_model: which model gets the load.
        batch: entries in each of its requests.
        concurrency: its requests under way at once.
        whole: all of it.
    """

    def __init__(self, loaded: Sequence[str], shown: Sequence[str], load: str | None, largest_batch: int) -> None:
        self.start = _marked(widgets.Button(description="Start", icon="play", layout={"width": "7em"}), "course-start")
        self.stop = _marked(widgets.Button(description="Stop", icon="stop", layout={"width": "7em"}), "course-stop")
        self._state = _marked(widgets.HTML(), "course-state")
        self.boxes = {
            name: widgets.Checkbox(value=name in shown, description=name, indent=False, layout={"width": "auto", "margin": "0 14px 0 0"})
            for name in loaded
        }
        style = {"description_width": "9em"}
        wide = {"width": "26em"}
        self.load_model = widgets.Dropdown(
            options=list(loaded), value=load, description="Send requests to", style=style, layout={"width": "26em"}
        )
        self.batch = widgets.IntSlider(1, 1, largest_batch, description="Batch", continuous_update=False, style=style, layout=wide)
        self.concurrency = widgets.IntSlider(
            1, 0, DASHBOARD_MAX_CONCURRENCY, description="Concurrency", continuous_update=False, style=style, layout=wide
        )
        for name, widget in {"load-model": self.load_model, "batch": self.batch, "concurrency": self.concurrency}.items():
            _marked(widget, f"course-{name}")
        self._load_state = _marked(widgets.HTML(), "course-load-state")
        self._table = _marked(widgets.HTML(), "course-table")
        wrap = {"flex_flow": "row wrap", "align_items": "center"}
        loading = [
            self.load_model,
            widgets.HBox([self.batch, self.concurrency], layout=wrap),
            self._load_state,
        ]
        self.whole = widgets.VBox(
            [
                widgets.HBox([self.start, self.stop, self._state], layout=wrap),
                widgets.HBox([widgets.Label("Models", layout={"margin": "0 14px 0 2px"}), *self.boxes.values()], layout=wrap),
                *(loading if load else []),
                self._table,
            ]
        )

    def connect(self, start: Callable[[], None], stop: Callable[[], None], load: Callable[..., None], models: Callable[[], None]) -> None:
        """Say what is called when somebody touches a widget: ``load`` with the name of a setting and its new value."""
        self.start.on_click(lambda _: start())
        self.stop.on_click(lambda _: stop())
        for name, widget in (("model", self.load_model), ("batch", self.batch), ("concurrency", self.concurrency)):
            widget.observe(lambda change, name=name: load(**{name: change["new"]}), names="value")
        for box in self.boxes.values():
            box.observe(lambda _: models(), names="value")

    @property
    def chosen(self) -> list[str]:
        """The models to show."""
        return [name for name, box in self.boxes.items() if box.value]

    def show_state(self, mark: str, text: str, running: bool) -> None:
        """The line beside the buttons; it is announced by screen readers."""
        self.start.disabled, self.stop.disabled = running, not running
        self._state.value = f'<span role="status"><span aria-hidden="true">{mark}</span> {html.escape(text)}</span>'

    def forget(self) -> None:
        """Show no old numbers while new ones are on their way."""
        self.show_load("Beginning to send.")
        self.show_table("Waiting for the first two readings.")

    def show_load(self, text: str) -> None:
        """The line below the load's sliders."""
        self._load_state.value = f'<div style="line-height:1.3;margin-left:9.6em">{html.escape(text)}</div>'

    def show_table(self, page: str) -> None:
        """The table."""
        self._table.value = page

    def leave_only_state(self) -> None:
        """Take away everything but the line that says what has become of it."""
        rest = [widget for widget in _all(self.whole) if widget not in (self.whole, self._state)]
        self.whole.children = (self._state,)
        for widget in rest:
            widget.close()

    def close(self) -> None:
        """Take everything away."""
        for widget in _all(self.whole):
            widget.close()


def _marked(widget: Any, name: str) -> Any:
    widget.add_class(name)
    return widget


def _all(widget: Any) -> list[Any]:
    """A widget with all that is in it; layouts and styles, too, are objects in the browser."""
    inner = [part for child in getattr(widget, "children", ()) for part in _all(child)]
    styles = [part for part in (getattr(widget, "layout", None), getattr(widget, "style", None)) if isinstance(part, widgets.Widget)]
    return [*inner, *styles, widget]
