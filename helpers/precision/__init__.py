"""Fewer bits: variants of a model in lower precision, served beside it, and what they cost in physics.

Typical use::

    from helpers import precision
    precision.make("particlenet_AK4")                 # work/models/particlenet_AK4_fp16, …_int8, …_int8_static
    precision.make("particlenet_AK4_PT")              # work/models/particlenet_AK4_PT_frozen
    server = launch_server("work/models", load=precision.family("particlenet_AK4"))
    costs = precision.cost(server, ["particlenet_AK4_fp16"], reference="particlenet_AK4")
    plots.precision_figure(speeds, costs)             # with its speed
"""

from __future__ import annotations

from helpers.precision.variants import CALIBRATION_JETS, METHODS, cost, family, make

__all__ = ["CALIBRATION_JETS", "METHODS", "cost", "family", "make"]
