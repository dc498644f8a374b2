"""What the networks should answer: which hits belong together, and which follow each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from helpers.physics.tracks import Event, is_true

from . import settings

FALSE, IGNORED, TRUE, SKIPPING = 0, 1, 2, 3
"""Kinds of an edge: of two particles; of a particle too soft to care about; consecutive hits of a particle; not consecutive ones."""


def kinds(event: Event, edges: NDArray[np.int64]) -> NDArray[np.int8]:
    """The kind of each edge.

    Args:
        event: The event.
        edges: (2, n_edges) hit indices, inner hit first.
    """
    particle = event.particle[edges]
    same = particle[0] == particle[1]
    kind = np.where(is_true(event, edges), TRUE, np.where(same, SKIPPING, FALSE)).astype(np.int8)
    kind[same & (event.pt[particle[0]] < settings.LOSS_MIN_PT_GEV)] = IGNORED
    return kind
