"""CPU time of each step of an analysis, for each jet, in one process without Dask."""

from __future__ import annotations

import itertools
import statistics
import time
from pathlib import Path

import numpy as np

from helpers import jets
from helpers.client import Client
from helpers.measuring.perf_analyzer import LENGTHS
from helpers.physics.jets import flatten
from helpers.scaling.analysis import CHUNK_JETS, IN_FLIGHT, chunks, entries, write_scores

__all__ = ["entries", "table"]

# Chunks that are looked at, and jets in each, at most.
_CHUNKS = 5


def table(server: object, model: str, file: Path, folder: Path, batch: int) -> str:
    """One line for each step.

    Args:
        server: where the model is.
        model: the tagger.
        file: ROOT file of jets.
        folder: for the scores.
        batch: jets in each request.
    """
    lengths = LENGTHS
    names = ("reading the ROOT file", "tensors from branches", "requests and answers, with checks and copies", "writing the ROOT file")
    parts = chunks([file], folder / "stages", min(CHUNK_JETS, entries(file) // 2))[: _CHUNKS + 1]
    rows: list[list[float]] = []
    with Client(server) as client:
        tagger = jets.Tagger(client, model)
        for part in parts:
            clock = [time.process_time()]
            sample = jets.read(part.source, part.start, part.stop)
            clock.append(time.process_time())
            flat = flatten(sample, tagger.table)
            tensors = [flat.pad(group, lengths) for group in jets.by_length(flat, batch)]
            clock.append(time.process_time())
            answers = client.infer_many(model, tensors, max_in_flight=IN_FLIGHT)
            clock.append(time.process_time())
            write_scores(part, sample, tagger.scores({"softmax": np.concatenate([answer["softmax"] for answer in answers])}))
            clock.append(time.process_time())
            rows.append([1e6 * (after - before) / len(part) for before, after in itertools.pairwise(clock)])
    # The first one is slower: much is imported and compiled when it is first needed.
    medians = [statistics.median(column) for column in zip(*(rows[1:] or rows), strict=True)]
    lines = [f"| {name} | {value:.0f} |" for name, value in zip((*names, "together"), (*medians, sum(medians)), strict=True)]
    return "\n".join(["| step | µs |", "|---|--:|", *lines])
