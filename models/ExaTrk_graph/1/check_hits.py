"""Refuse events that cannot be right, and say in one sentence what is wrong with them. NumPy only."""

import numpy as np

# The generic detector with a little room: metres, units of pi, metres.
R_RANGE = (0.025, 1.1)
PHI_LIMIT = 1.000001
Z_LIMIT = 3.2
WANTED = "each hit must be (r in m, phi / pi, z in m)"
# Factor to metres and the name of the unit that people use by mistake.
LENGTH_UNITS = ((1e-3, "millimetres", "divide them by 1000"), (1e-2, "centimetres", "divide them by 100"))
# Largest value and what it means.
ANGLE_UNITS = ((2.000001, "from 0 to 2 pi", "bring it to the range from -pi to pi, then divide it by pi"),
               (2 * np.pi + 1e-4, "in radians", "divide it by pi"), (360.001, "in degrees", "divide it by 180"))  # fmt: skip


class BadHits(ValueError):
    """The event cannot be right; the text says why."""


def check_hits(features, max_hits):
    """Check the hits of one event.

    Args:
        features: (n, 3) r in m, phi / pi, z in m.
        max_hits: how many there may be.

    Raises:
        BadHits: too many, not finite, in wrong units, or outside the detector.
    """
    if features.ndim != 2 or features.shape[1] != 3:
        raise BadHits(f"the hits have the shape {list(features.shape)}, and [n, 3] was expected: {WANTED}.")
    if len(features) > max_hits:
        raise BadHits(
            f"the event has {len(features)} hits, and this server takes at most {max_hits} (parameter max_hits of the model ExaTrk_graph)."
        )
    if not len(features):
        return
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise BadHits(f"hit {np.argmin(finite)} holds a value that is no finite number{_as_do(~finite)}: {WANTED}.")
    r, phi, z = features.T
    # Where x, y and z were sent, the second number is no angle at all: what it looks like would only mislead.
    cartesian = (r < 0).any()
    wrong = [text for text in (_wrong_length(r, z), "" if cartesian else _wrong_angle(phi)) if text]
    if wrong:
        raise BadHits(f"{', and '.join(wrong)}: {WANTED}.")


def check_twins(features, order):
    """Refuse an event in which a hit stands twice.

    Args:
        features: (n, 3) hits.
        order: (n,) an order in which equal hits follow each other.

    Raises:
        BadHits: two hits are equal in all three numbers.
    """
    twins = (features[order[1:]] == features[order[:-1]]).all(axis=1)
    if twins.any():
        first, second = sorted((int(order[:-1][twins][0]), int(order[1:][twins][0])))
        raise BadHits(
            f"hits {first} and {second} are the same point, and {int(twins.sum())} hit(s) in all were sent twice: send each hit once."
        )


def _inside(r, z):
    return (r >= R_RANGE[0]) & (r <= R_RANGE[1]) & (np.abs(z) <= Z_LIMIT)


def _wrong_length(r, z):
    """What is wrong with r or z, or an empty text."""
    inside = _inside(r, z)
    if inside.all():
        return ""
    for factor, unit, cure in LENGTH_UNITS:
        if _inside(r * factor, z * factor).all():
            return f"r and z look like {unit}, so {cure}"
    if (r < 0).any():
        return "r is negative, as if x, y and z had been sent, so compute r = hypot(x, y) and phi = arctan2(y, x)"
    worst = int(np.argmin(inside))
    return f"hit {worst} lies outside the detector (r = {r[worst]:.4g}, z = {z[worst]:.4g}){_as_do(~inside)}"


def _as_do(wrong):
    """How many others are wrong besides the one that was named; nothing if it is alone."""
    others = int(wrong.sum()) - 1
    return f", as {'does 1 other' if others == 1 else f'do {others} others'}" if others else ""


def _wrong_angle(phi):
    """What is wrong with phi, or an empty text."""
    largest = np.abs(phi).max()
    if largest <= PHI_LIMIT:
        return ""
    for limit, form, cure in ANGLE_UNITS:
        if largest <= limit:
            return f"phi seems to be {form}, so {cure}"
    return f"phi goes up to {largest:.4g}, which is no angle"
