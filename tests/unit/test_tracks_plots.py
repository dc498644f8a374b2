"""The figures of track finding: what they draw, not how pretty they are."""

from __future__ import annotations

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.collections import LineCollection

from helpers.physics.tracks import Event, load_events, quality, true_edges
from helpers.plots import efficiency_plot, embedding_display, event_display, graph_display


@pytest.fixture(autouse=True)
def no_window() -> Iterator[None]:
    with mpl.rc_context({"backend": "agg"}):
        yield


@pytest.fixture(scope="module")
def event() -> Event:
    return load_events()[0]


def lines(axes: mpl.axes.Axes) -> list[LineCollection]:
    return [collection for collection in axes.collections if isinstance(collection, LineCollection)]


def test_tracks_are_drawn_as_they_were_found(event: Event):
    """Every kind of line shows what is in the labels, not what is true."""
    labels = event.particle.astype(np.int64)
    hardest = np.flatnonzero(event.target)[np.argsort(-event.hits_of_particle[event.target], kind="stable")]
    missed, split, one, other = hardest[:3], hardest[3], *hardest[4:6]
    labels[np.isin(labels, missed)] = -1
    # The outer four hits of one particle are a track of their own.
    outer = np.flatnonzero(event.particle == split)[np.argsort(event.r[event.particle == split])[-4:]]
    labels[outer] = event.pt.size
    # Four hits of each of two particles are a track of nobody.
    mixed = np.concatenate([np.flatnonzero(event.particle == particle)[:4] for particle in (one, other)])
    labels[mixed] = event.pt.size + 1
    figure = event_display(event, labels)
    of_track = np.unique(labels[labels >= 0], return_counts=True)[1]
    for axes in figure.axes:
        tracks, second, fake, missing = (len(collection.get_segments()) for collection in lines(axes))
        assert (second, fake) == (4 - 1, 8 - 1)
        assert tracks == (of_track - 1).sum() - second - fake
        assert missing == (event.hits_of_particle[missed] - 1).sum()
        styles = [collection.get_linestyles()[0][1] for collection in lines(axes)]
        assert styles[0] is None and None not in styles[1:] and len({tuple(style) for style in styles[1:]}) == 3
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[1:4] == ["second tracks (1)", "fakes (1)", "missed (3)"]
    assert texts[0] == f"tracks ({of_track.size - 2})"
    assert "mm" in figure.axes[0].get_xlabel() and "mm" in figure.axes[1].get_ylabel()


def test_without_labels_only_hits(event: Event):
    figure = event_display(event)
    assert not lines(figure.axes[0]) and figure.axes[0].lines[0].get_xdata().size == event.n_hits


def test_graphs_count_their_edges(event: Event):
    good = true_edges(event)
    wrong = good[::-1, :7]
    figure = graph_display(event, {"one": np.concatenate([good, wrong], axis=1), "two": good, "none": good[:, :0]})
    assert [len(collection.get_segments()) for collection in lines(figure.axes[0])] == [7, good.shape[1]]
    assert figure.axes[1].get_title() == f"two\n{good.shape[1]} edges, 100% true"
    assert "0 edges" in figure.axes[2].get_title()


def test_embedding_tells_particles_apart_by_marker(event: Event):
    figure = embedding_display(event, event.features)
    markers = [line.get_marker() for line in figure.axes[1].lines[1:]]
    assert len(markers) == len(set(markers)) == 8


@pytest.mark.parametrize("variable", ["pt", "eta"])
def test_efficiencies_have_axes_with_units_and_a_legend_with_the_value(event: Event, variable: str):
    found = quality([event], [event.particle])
    figure = efficiency_plot({"first": found, "second": found}, variable)
    axes = figure.axes[0]
    assert ("GeV" in axes.get_xlabel()) == (variable == "pt")
    assert axes.get_ylabel() == "Efficiency"
    assert [text.get_text().split(":")[0] for text in axes.get_legend().get_texts()] == ["first", "second"]
    assert len({container.lines[0].get_marker() for container in axes.containers}) == 2, "told apart without colour"
