"""The demo's short measurement: two taggers at two batch sizes, with perf_analyzer, and the figure of them."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

from helpers import settings
from helpers.server import Server
from helpers.sweep import Sweep, sweep

# One network in two formats.
MODELS = ("particlenet_AK4", "particlenet_AK4_PT")


def measure(server: Server, ready: Iterable[str], folder: Path) -> tuple[Sweep, bytes] | None:
    """Measure those of the two that are READY.

    Args:
        server: the demo's.
        ready: names of the models that are READY.
        folder: where the tables go.

    Returns:
        The rows, and the figure as PNG; None when neither is READY.

    Raises:
        CourseError: it cannot be measured, for example because no perf_analyzer runs here.
    """
    models = [model for model in MODELS if model in set(ready)]
    if not models:
        return None
    result = sweep(server, models, settings.DEMO_BATCHES, output=folder, max_seconds=settings.DEMO_POINT_S, again=True, silent=True)
    import matplotlib as mpl

    mpl.use("agg")
    from helpers.plots.performance import sweep_figure

    buffer = io.BytesIO()
    sweep_figure(result).savefig(buffer, format="png", dpi=80)
    return result, buffer.getvalue()
