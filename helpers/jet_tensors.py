"""Jagged jets to padded tensors with masks: what CMSSW does in C++ before it sends a request, here with awkward and numpy.

No step loops over jets: the values of all candidates of all jets stand in one long array, and padding is one look-up in it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import awkward as ak
import numpy as np

from helpers.errors import InputError
from helpers.jet_table import Group, Table
from helpers.wording import quoted, suggestion

_NAMES = {"pf": "candidates", "sv": "secondary vertices"}
# What decides who stays when a collection is too long: the branch's ending, and in words.
_RANKING = {"pf": ("pt_log", "transverse momentum"), "sv": ("d3dsig", "flight significance")}


class TruncationWarning(UserWarning):
    """Some jets have more candidates than the model takes."""


@dataclass(frozen=True)
class FlatJets:
    """Jets whose inputs are transformed, but not padded yet.

    Attributes:
        table: what the model wants.
        counts: by collection, its size in each jet, ``(n_jets,)``.
        values: by input tensor, transformed values of all jets behind one another, ``(n_variables, n_values + 1)``; the last
            column is the padding.
    """

    table: Table
    counts: dict[str, np.ndarray]
    values: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.counts.values())))

    def lengths(self, jets: np.ndarray) -> dict[str, int]:
        """To which length these jets are padded unless told otherwise: that of the longest, within the table's limits."""
        return {name: max(self.table.shortest(name), int(counts[jets].max(initial=0))) for name, counts in self.counts.items()}

    def pad(self, jets: np.ndarray, lengths: Mapping[str, int | None] | None = None) -> dict[str, np.ndarray]:
        """The tensors of some jets.

        Args:
            jets: their numbers, in the order wanted.
            lengths: padded length by collection; None for the longest jet's.

        Returns:
            By input name, float32 of shape ``(n_jets, n_variables, length)``.

        Raises:
            InputError: a length is less than the model can take.
        """
        chosen = self.lengths(jets) | {name: length for name, length in (lengths or {}).items() if length is not None}
        self._check_lengths(chosen)
        places = {name: self._places(name, jets, length) for name, length in chosen.items()}
        return {
            name: np.ascontiguousarray(self.values[name].take(places[group.collection], axis=1).transpose(1, 0, 2))
            for name, group in self.table.groups.items()
        }

    def _places(self, collection: str, jets: np.ndarray, length: int) -> np.ndarray:
        """Where in the long array each place of the padded one is, ``(n_jets, length)``; the last column for padding."""
        counts = self.counts[collection]
        starts = np.cumsum(counts) - counts
        within = np.arange(length)
        return np.where(within < counts[jets, None], starts[jets, None] + within, counts.sum())

    def _check_lengths(self, lengths: Mapping[str, int]) -> None:
        least = {name: self.table.shortest(name) for name in lengths}
        if sum(lengths.values()) < sum(least.values()):
            raise InputError(
                f"Padding to {_sum(lengths)} gives {sum(lengths.values())} points a jet.",
                f"This network looks for {sum(least.values()) - 1} neighbours of each point, so it needs {sum(least.values())} points at "
                f"least, padding included ({self.table.source}).",
                f"Pad to {_sum(least)} or more, or leave the lengths to the helper.",
            )


def flatten(jets: ak.Array, table: Table) -> FlatJets:
    """Transform all inputs of all jets, as the table says.

    Args:
        jets: one record for each jet, with a jagged field for each branch of the table.
        table: what the model wants.

    Raises:
        InputError: there is no jet, a branch is missing, a jet has no candidate, or a value is not a number.

    Warns:
        TruncationWarning: a jet has more candidates than the model takes.
    """
    if not isinstance(jets, ak.Array) or jets.ndim != 1 or not jets.fields:
        raise InputError(
            f"The jets were given as {type(jets).__name__}.",
            "Expected what jets.read(...) returns, or a slice of it.",
            "One jet: sample[:1]",
        )
    if len(jets) == 0:
        raise InputError("There is no jet in this selection.", "Expected at least one.", "Look at the cut that you made before.")
    _check_branches(jets, table)
    counts, columns = {}, {}
    for collection in table.collections:
        counts[collection], found = _columns(jets, table, collection)
        columns |= found
    if not counts["pf"].all():
        _complain_of_empty(counts["pf"])
    values = {name: _rows(group, columns, int(counts[group.collection].sum())) for name, group in table.groups.items()}
    _check_numbers(table, counts, values)
    return FlatJets(table, counts, values)


def _columns(jets: ak.Array, table: Table, collection: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Counts per jet and the flat branches of a collection, cut to what the model takes."""
    names = table.branches(collection)
    counts = ak.to_numpy(ak.num(jets[names[0]])).astype(np.int64)
    keep = None
    if counts.max() > table.longest(collection):
        keep = _highest(jets, names, collection, table.longest(collection), counts)
    found = {}
    for name in names:
        branch = jets[name] if keep is None else jets[name][keep]
        found[name] = ak.to_numpy(ak.flatten(branch)).astype(np.float32, copy=False)
        if name != names[0] and keep is None and len(found[name]) != len(found[names[0]]):
            raise InputError(
                f"The branches {names[0]} and {name} have {len(found[names[0]])} and {len(found[name])} values.",
                f"Expected the same number, one for each of the {_NAMES.get(collection, collection)}.",
            )
    return np.minimum(counts, table.longest(collection)), found


def _highest(jets: ak.Array, names: list[str], collection: str, longest: int, counts: np.ndarray) -> ak.Array:
    """Which entries stay in collections that are too long; says so."""
    ending, words = _RANKING[collection]
    ranking = next((name for name in names if ending in name), names[0])
    too_long = int((counts > longest).sum())
    warnings.warn(
        f"{too_long} of {len(counts)} jets {'has' if too_long == 1 else 'have'} more than {longest} {_NAMES[collection]} (the longest has "
        f"{counts.max()}); the {longest} with the highest {words} are kept.",
        TruncationWarning,
        stacklevel=5,
    )
    return ak.argsort(jets[ranking], ascending=False, stable=True)[:, :longest]


def _rows(group: Group, columns: Mapping[str, np.ndarray], n_values: int) -> np.ndarray:
    """The transformed values of one tensor, with a column of padding at the end."""
    rows = np.empty((len(group.variables), n_values + 1), np.float32)
    for row, variable in zip(rows, group.variables, strict=True):
        row[:-1] = 1.0 if variable.is_mask else variable.transform(columns[variable.name])
        row[-1] = 0.0 if variable.is_mask else variable.pad
    return rows


def _check_branches(jets: ak.Array, table: Table) -> None:
    wanted = [name for collection in table.collections for name in table.branches(collection)]
    missing = [name for name in wanted if name not in jets.fields]
    if missing:
        raise InputError(
            f"The jets have no branch {quoted(missing)}.",
            f"{table.source} asks for {len(wanted)} branches.",
            suggestion(missing[0], jets.fields),
        )


def _complain_of_empty(counts: np.ndarray) -> None:
    empty = np.flatnonzero(counts == 0)
    raise InputError(
        f"{len(empty)} of {len(counts)} jets {'has' if len(empty) == 1 else 'have'} no candidate at all; the first is number {empty[0]}.",
        "A tagger can say nothing about such a jet.",
        "Leave them out: sample[sample.npfcand > 0]",
    )


def _check_numbers(table: Table, counts: Mapping[str, np.ndarray], values: Mapping[str, np.ndarray]) -> None:
    for name, group in table.groups.items():
        wrong = np.isnan(values[name])
        if not wrong.any():
            continue
        row, column = np.argwhere(wrong)[0]
        jet = int(np.searchsorted(np.cumsum(counts[group.collection]), column, side="right"))
        others = int(wrong.sum()) - 1
        too = f", as {'is 1 other value' if others == 1 else f'are {others} other values'} of {name}" if others else ""
        raise InputError(
            f"{group.variables[row].name} of jet {jet} is not a number (NaN){too}.",
            "Expected finite numbers. A network answers such a jet with NaN or with nonsense, and without an error.",
            "Look at the file, or leave these jets out.",
        )


def _sum(lengths: Mapping[str, int]) -> str:
    return " and ".join(f"{length} {_NAMES.get(name, name)}" for name, length in lengths.items())
