"""How good the chain is on events that training never saw, stage by stage."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from helpers.physics.tracks import Event, edge_quality, quality

from . import served, stages
from .networks import Embedding, Filter, InteractionNetwork
from .stages import Cuts

STAGES = ("embedding", "graph", "filter", "gnn", "tracks")


def evaluate(networks: tuple[Embedding, Filter, InteractionNetwork], cuts: Cuts, events: Sequence[Event]) -> dict[str, Any]:
    """Figures of merit of one sample.

    Args:
        networks: Embedding, filter and interaction network.
        cuts: The thresholds.
        events: Events that neither training nor choice of thresholds saw.

    Returns:
        Quality of the graphs behind each stage (means over events), of the tracks (sums over events), and seconds per stage in
        PyTorch on one thread.
    """
    graphs: dict[str, list[dict[str, float]]] = {"radius graph": [], "behind the filter": [], "above the last cut": [], "walked": []}
    labels, seconds = [], np.zeros(len(STAGES))
    for event in events:
        found = run(networks, cuts, event)
        labels.append(found["labels"])
        seconds += found["seconds"]
        for name in graphs:
            graphs[name].append(edge_quality(event, found[name]))
    tracks = quality(events, labels)
    return {
        "events": len(events),
        "hits": float(np.mean([event.n_hits for event in events])),
        "to be found": float(np.mean([event.target.sum() for event in events])),
        "graphs": {name: {key: float(np.nanmean([row[key] for row in rows])) for key in rows[0]} for name, rows in graphs.items()},
        "tracks": tracks.table.to_dict("records"),
        **{f"efficiency against {variable}": tracks.against(variable).to_dict("records") for variable in ("pt", "eta")},
        "seconds": dict(zip(STAGES, (seconds / len(events)).tolist(), strict=True)),
    }


def run(networks: tuple[Embedding, Filter, InteractionNetwork], cuts: Cuts, event: Event) -> dict[str, Any]:
    """All that the stages make of one event, and the seconds that each took."""
    embedding, edge_filter, interaction = networks
    clock = [time.perf_counter()]
    with torch.no_grad():
        points = embedding(torch.from_numpy(event.features)).numpy()
    clock.append(time.perf_counter())
    edges = served.graph.radius_graph(points, served.graph.outwards(event.features), cuts.radius, stages.MAX_NEIGHBOURS, stages.MAX_EDGES)
    clock.append(time.perf_counter())
    kept = edges[:, stages.scores(edge_filter, event, edges) >= cuts.filter]
    clock.append(time.perf_counter())
    follows, same = stages.scores(interaction, event, kept).T
    clock.append(time.perf_counter())
    labels = served.tracks.build_tracks(event.features, kept, follows, same, cuts.walk, cuts.mend, cuts.min_hits)
    clock.append(time.perf_counter())
    above = follows >= cuts.walk
    partner = served.tracks.best_partners(*kept[:, above], follows[above], event.n_hits)
    walked = np.flatnonzero(partner >= 0)
    return {
        "radius graph": edges,
        "behind the filter": kept,
        "above the last cut": kept[:, above],
        "walked": np.stack([walked, partner[walked]]),
        "labels": labels,
        "seconds": np.diff(clock),
    }


def text(name: str, figures: dict[str, Any]) -> str:
    """The figures of one sample as Markdown."""
    lines = [
        f"### {name}: {figures['events']} events, {figures['hits']:.0f} hits and {figures['to be found']:.0f} particles to find in each",
        "",
    ]
    lines += ["| graph | edges | efficiency | purity |", "|---|---|---|---|"]
    lines += [
        f"| {graph} | {row['edges']:.0f} | {row['efficiency']:.4f} | {row['purity']:.4f} |" for graph, row in figures["graphs"].items()
    ]
    lines += ["", "| tracks | value | 68 % interval | of |", "|---|---|---|---|"]
    lines += [
        f"| {row['quantity']} | {row['value']:.4f} | {row['low']:.4f} – {row['high']:.4f} | {row['total']} |" for row in figures["tracks"]
    ]
    return "\n".join(lines)
