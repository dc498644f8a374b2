"""The table that says how a jet tagger wants its inputs: which branches, which transforms, how long the padding.

The table lies beside each model as ``preprocess.json``, in the layout that CMS uses for its own taggers, so that a table of
theirs is read just so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from helpers.errors import InputError
from helpers.files import shown

FILE = "preprocess.json"
# TorchScript has positions instead of names, so Triton calls its inputs NAME__POSITION.
_POSITION = re.compile(r"__\d+$")
# What a candidate's mask is called in the table; no branch holds it, because every candidate of a file is a real one.
_MASK = "mask"


@dataclass(frozen=True)
class Variable:
    """One row of an input tensor: ``clip((x - median) * norm, lower, upper)``.

    Attributes:
        name: the branch of the file.
        median: subtracted first, in the branch's unit.
        norm: multiplied second, in one over the branch's unit.
        lower: least value after that.
        upper: largest value after that.
        infinite: what takes the place of an infinite value, in the branch's unit.
        pad: the value of a place without a candidate.
    """

    name: str
    median: float = 0.0
    norm: float = 1.0
    lower: float = -np.inf
    upper: float = np.inf
    infinite: float = 0.0
    pad: float = 0.0

    @property
    def is_mask(self) -> bool:
        """Whether this is the mask: 1 for a candidate, 0 for padding."""
        return self.name.endswith(_MASK)

    @classmethod
    def from_json(cls, name: str, info: Mapping[str, Any]) -> Variable:
        """Read an entry of ``var_infos``."""
        return cls(
            name,
            median=float(info.get("median", 0.0)),
            norm=float(info.get("norm_factor", 1.0)),
            lower=float(info.get("lower_bound", -np.inf)),
            upper=float(info.get("upper_bound", np.inf)),
            infinite=float(info.get("replace_inf_value", 0.0)),
            pad=float(info.get("pad", 0.0)),
        )

    def transform(self, values: np.ndarray) -> np.ndarray:
        """The values of a branch as the model wants them, float32."""
        finite = np.where(np.isinf(values), np.float32(self.infinite), values)
        moved = (finite - np.float32(self.median)) * np.float32(self.norm)
        return np.clip(moved, np.float32(self.lower), np.float32(self.upper))


@dataclass(frozen=True)
class Group:
    """One input tensor of the model.

    Attributes:
        name: such as ``pf_features``.
        variables: its rows, in order.
        shortest: least length of its last axis.
        longest: largest length of its last axis.
    """

    name: str
    variables: tuple[Variable, ...]
    shortest: int
    longest: int

    @property
    def collection(self) -> str:
        """What it describes: ``pf`` (candidates) or ``sv`` (secondary vertices)."""
        return self.name.partition("_")[0]


@dataclass(frozen=True)
class Table:
    """All inputs of a model, and the names of its classes.

    Attributes:
        source: the file that it was read from, as people type it.
        groups: the inputs by name, in the model's order.
        labels: the classes, in the order of the output.
    """

    source: str
    groups: dict[str, Group]
    labels: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> Table:
        """Read a ``preprocess.json``.

        Raises:
            InputError: there is no such file, or it is no such table.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls.from_json(content, shown(path))
        except OSError as error:
            raise InputError(
                f"The table {shown(path)} cannot be read: {error.strerror or error}.",
                "It says which branches a jet tagger takes, and lies beside the model's config.pbtxt.",
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"The table {shown(path)} is not as CMS writes them ({type(error).__name__}: {error}).",
                "Expected JSON with input_names, output_names, and for each input var_names and var_infos.",
            ) from error

    @classmethod
    def from_json(cls, content: Mapping[str, Any], source: str = "the given table") -> Table:
        """Read what ``preprocess.json`` holds."""
        return cls(source, {name: _group(name, content[name]) for name in content["input_names"]}, tuple(content["output_names"]))

    @property
    def collections(self) -> list[str]:
        """What the model takes: ``pf`` and ``sv``."""
        return list(dict.fromkeys(group.collection for group in self.groups.values()))

    def shortest(self, collection: str) -> int:
        """Least padded length of a collection."""
        return max(group.shortest for group in self.groups.values() if group.collection == collection)

    def longest(self, collection: str) -> int:
        """Largest padded length of a collection: more candidates than that are cut off."""
        return min(group.longest for group in self.groups.values() if group.collection == collection)

    def branches(self, collection: str) -> list[str]:
        """The branches that a collection is made from, each once."""
        groups = (group for group in self.groups.values() if group.collection == collection)
        return list(dict.fromkeys(v.name for group in groups for v in group.variables if not v.is_mask))


def _group(name: str, entry: Mapping[str, Any]) -> Group:
    # Older tables have one length, to which everything is padded.
    fixed = entry.get("var_length")
    variables = tuple(Variable.from_json(variable, entry["var_infos"].get(variable, {})) for variable in entry["var_names"])
    return Group(name, variables, int(entry.get("min_length", fixed)), int(entry.get("max_length", fixed)))


def plain_name(tensor: str) -> str:
    """A tensor's name without the position that TorchScript needs: ``pf_mask`` for ``pf_mask__2``."""
    return _POSITION.sub("", tensor)


def is_tagger(metadata: Mapping[str, Any]) -> bool:
    """Whether a model takes jets, going by the names of its inputs."""
    return {"pf_points", "pf_features", "pf_mask"} <= {plain_name(entry["name"]) for entry in metadata["inputs"]}
