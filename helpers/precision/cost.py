"""What lower precision costs in physics: the change of a tagger's area under the curve, on jets that nothing was calibrated on.

Typical use::

    costs = cost(server, ["particlenet_AK4_fp16", "particlenet_AK4_int8"], reference="particlenet_AK4")
    costs                                              # a table
    plots.precision_figure(speeds, costs)              # with its speed
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from helpers.client import Client
from helpers.errors import InputError
from helpers.physics.flavour import DISCRIMINANTS, GROUPS, Scores, auc_change, truth
from helpers.precision.variants import CALIBRATION_JETS
from helpers.tables import as_html, as_text

# Standard deviations of a 95 % interval.
_TWO_SIDED_95 = 1.96


class Costs(list[dict[str, Any]]):
    """Rows that show themselves as a table; a list of dictionaries otherwise.

    Args:
        rows: what :func:`cost` works out.
        caption: a sentence above the table.
    """

    def __init__(self, rows: Sequence[dict[str, Any]] = (), caption: str = "") -> None:
        super().__init__(rows)
        self.caption = caption

    def _table(self) -> list[dict[str, Any]]:
        return [
            {
                "model": row["model"],
                "discriminant": row["discriminant"],
                "AUC": f"{row['auc']:.4f} ± {row['auc_uncertainty']:.4f}",
                "change of AUC": f"{row['auc_change']:+.4f} ± {row['auc_change_half_width']:.4f}",
                "largest change of a probability": f"{row['largest_change']:.2g}",
            }
            for row in self
        ]

    def __repr__(self) -> str:
        return "\n".join([self.caption, as_text(self._table())])

    def _repr_html_(self) -> str:
        return as_html(self._table(), caption=self.caption)


def cost(server: Any, models: Sequence[str], reference: str, jets: Any = None) -> Costs:
    """Tag the same jets with each model and compare with the reference.

    Args:
        server: a :class:`~helpers.server.Server`, or its address.
        models: the variants; the reference may be among them.
        reference: the model in full precision.
        jets: with truth; by default all of the sample but those that static calibration has seen.

    Returns:
        A row for each model and discriminant: ``auc`` and ``auc_uncertainty`` (one standard deviation, of the finite number of jets),
        ``auc_change`` from the reference and ``auc_change_half_width`` (of its 95 % interval; small, because the jets are the same),
        ``largest_change`` and ``mean_change`` of a probability, and ``n_jets``.

    Raises:
        InputError: a model is no tagger of these jets.
    """
    from helpers.physics import jets as course_jets

    with Client(server) as client:
        taggers = {name: course_jets.Tagger(client, name) for name in dict.fromkeys([reference, *models])}
        if jets is None:
            jets = course_jets.read(course_jets.sample_for(taggers[reference]))[CALIBRATION_JETS:]
        scores = {name: tagger.tag(jets) for name, tagger in taggers.items()}
    first = scores[reference]
    if wrong := [name for name, each in scores.items() if each.labels != first.labels]:
        raise InputError(f"{wrong[0]!r} has other classes than {reference!r}.", "Expected variants of one network.")
    rows = [_row(scores[name], first, discriminant, jets) for name in scores for discriminant in first.discriminants]
    return Costs(rows, f"{len(jets)} jets, the same for all; the change of AUC is with its 95 % interval.")


def _row(scores: Scores, reference: Scores, name: str, jets: Any) -> dict[str, Any]:
    signal, background = (truth(jets, *GROUPS[group]) for group in DISCRIMINANTS[name])
    sides = [(each[name][signal], each[name][background]) for each in (reference, scores)]
    change, deviation = auc_change(*sides)
    area = scores.roc(name, jets)
    apart = np.abs(scores.probabilities - reference.probabilities)
    return {
        "model": scores.model,
        "discriminant": name,
        "auc": area.auc,
        "auc_uncertainty": area.auc_uncertainty,
        "auc_change": change,
        "auc_change_half_width": _TWO_SIDED_95 * deviation,
        "largest_change": float(apart.max()),
        "mean_change": float(apart.mean()),
        "n_jets": len(scores),
    }
