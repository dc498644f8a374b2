"""Jets: read them from ROOT files, send them to a ParticleNet, get back what flavour they are.

Typical use::

    from helpers import Client, jets
    sample = jets.read("ak8")                                 # awkward array, one record for each jet
    tagger = jets.Tagger(Client(server), "particlenet_PT")
    tensors = tagger.inputs(sample[:10])                      # padded tensors with masks, named as the model names them
    scores = tagger.tag(sample)                               # all jets, in batches
    scores["Hbb"], scores["hbb_vs_qcd"]
    print(scores.roc("hbb_vs_qcd", sample))

No step loops over jets: the values of all candidates of all jets stand in one long array, and padding is one look-up in it.
"""

from __future__ import annotations

import json
import re
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

from helpers import paths
from helpers.client import Client
from helpers.errors import InputError, quoted, suggestion
from helpers.machine import is_loopback
from helpers.paths import find, shown
from helpers.physics.flavour import DISCRIMINANTS, LABELS, Roc, Scores, roc, truth

__all__ = [
    "DISCRIMINANTS",
    "LABELS",
    "Roc",
    "Scores",
    "Table",
    "Tagger",
    "TruncationWarning",
    "flatten",
    "read",
    "roc",
    "sample_for",
    "truth",
]

TREE = "Jets"
# The table beside each tagger, in the layout that CMS uses for its own, so that a table of theirs is read just so.
TABLE_FILE = "preprocess.json"
# Jets in one request when many are tagged: on a CPU more gains nothing, and the answer is waited for no longer than needed.
BATCH_JETS = 50
_NAMES = {"pf": "candidates", "sv": "secondary vertices"}
# What decides who stays when a collection is too long: the branch's ending, and in words.
_RANKING = {"pf": ("pt_log", "transverse momentum"), "sv": ("d3dsig", "flight significance")}


class TruncationWarning(UserWarning):
    """Some jets have more candidates than the model takes."""


def read(sample: str | Path = "ak8", start: int | None = None, stop: int | None = None) -> ak.Array:
    """Read jets from a ROOT file.

    Args:
        sample: ``ak8`` or ``ak4`` for the jets of the course, or the path of a file with a tree ``Jets`` and such branches.
        start: number of the first jet to read, from 0; by default the first of the file.
        stop: number of the jet to stop before; by default all the rest.

    Returns:
        One record for each jet: ``jet_pt`` (GeV), ``jet_eta``, ``jet_phi``, ``jet_mass`` (GeV), ``event``, and jagged fields
        ``pfcand_…`` and ``sv_…``; in the course's samples the true class, too, as ``jet_class``.

    Raises:
        InputError: there is no such file, or no such tree in it.
    """
    key = str(sample).lower()
    path = paths.root() / "notebooks" / "data" / f"jets_{key}.root" if key in LABELS else find(sample)
    if path is None or not path.is_file():
        raise InputError(
            f"There is no file of jets {str(sample)!r}.",
            f"Expected {quoted(LABELS)}, or the path of a ROOT file.",
            "If a sample of the course is missing, type: git checkout notebooks/data",
        )
    try:
        with uproot.open(path) as file:
            jets = file[TREE].arrays(entry_start=start, entry_stop=stop)
    except (OSError, ValueError, uproot.KeyInFileError) as error:
        raise InputError(
            f"{shown(path)} cannot be read as jets ({type(error).__name__}: {str(error).splitlines()[0]}).",
            f"Expected a ROOT file with a tree named {TREE}.",
        ) from error
    radius = next((name for name in LABELS if name in path.stem.lower()), None)
    if radius and "jet_label" in jets.fields:
        jets["jet_class"] = ak.Array(list(LABELS[radius]))[jets["jet_label"]]
    return jets


# --- the table of a tagger -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Variable:
    """One row of an input tensor, ``clip((x - median) * norm, lower, upper)``, as ``var_infos`` of a table describes it.

    Attributes:
        name: the branch of the file; one that ends with ``mask`` is 1 for a candidate and 0 for padding.
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
        """True if no branch holds it, because every candidate of a file is a real one."""
        return self.name.endswith("mask")

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Return the values of a branch, ``(n_values,)``, as the model wants them, float32."""
        finite = np.where(np.isinf(values), np.float32(self.infinite), values)
        moved = (finite - np.float32(self.median)) * np.float32(self.norm)
        return np.asarray(np.clip(moved, np.float32(self.lower), np.float32(self.upper)))


@dataclass(frozen=True)
class Group:
    """One input tensor of the model, such as ``pf_features``: its rows, and least and largest length of its last axis."""

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
    """How a tagger wants its inputs: which branches, which transforms, how long the padding.

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
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")), shown(path))
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
        """Return the least padded length of a collection."""
        return max(group.shortest for group in self.groups.values() if group.collection == collection)

    def longest(self, collection: str) -> int:
        """Return the largest padded length of a collection: more candidates than that are cut off."""
        return min(group.longest for group in self.groups.values() if group.collection == collection)

    def branches(self, collection: str) -> list[str]:
        """Return the branches that a collection is made from, each once."""
        groups = (group for group in self.groups.values() if group.collection == collection)
        return list(dict.fromkeys(v.name for group in groups for v in group.variables if not v.is_mask))


def _group(name: str, entry: Mapping[str, Any]) -> Group:
    # Older tables have one length, to which everything is padded.
    fixed = entry.get("var_length")
    infos = ((variable, entry["var_infos"].get(variable, {})) for variable in entry["var_names"])
    variables = tuple(
        Variable(
            variable,
            median=float(info.get("median", 0.0)),
            norm=float(info.get("norm_factor", 1.0)),
            lower=float(info.get("lower_bound", -np.inf)),
            upper=float(info.get("upper_bound", np.inf)),
            infinite=float(info.get("replace_inf_value", 0.0)),
            pad=float(info.get("pad", 0.0)),
        )
        for variable, info in infos
    )
    return Group(name, variables, int(entry.get("min_length", fixed)), int(entry.get("max_length", fixed)))


def plain_name(tensor: str) -> str:
    """Return a tensor's name without the position by which TorchScript knows it: ``pf_mask`` for ``pf_mask__2``."""
    return re.sub(r"__\d+$", "", tensor)


def is_tagger(metadata: Mapping[str, Any]) -> bool:
    """True if a model takes jets, going by the names of its inputs."""
    return {"pf_points", "pf_features", "pf_mask"} <= {plain_name(entry["name"]) for entry in metadata["inputs"]}


# --- jagged jets to padded tensors -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FlatJets:
    """Jets whose inputs are transformed, but not padded yet.

    Attributes:
        table: what the model wants.
        counts: by collection, its size in each jet, ``(n_jets,)``.
        ranking: by collection, what decides who stays when a jet has too many, ``(n_values + 1,)``: transverse momentum, and the
            flight significance of vertices; the last entry is the padding.
        values: by input tensor, transformed values of all jets behind one another, ``(n_variables, n_values + 1)``; the last
            column is the padding.
    """

    table: Table
    counts: dict[str, np.ndarray]
    ranking: dict[str, np.ndarray]
    values: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(next(iter(self.counts.values())))

    def pad(self, jets: np.ndarray, lengths: Mapping[str, int | None] | None = None) -> dict[str, np.ndarray]:
        """Return the tensors of some jets.

        Args:
            jets: their numbers, in the order wanted.
            lengths: padded length by collection; by default that of the longest jet, within the table's limits. Of a jet that has
                more, the highest-ranked are kept.

        Returns:
            By input name, float32 of shape ``(n_jets, n_variables, length)``.

        Raises:
            InputError: a length is less than the model can take.
        """
        chosen = {name: self._longest(name, jets) for name in self.counts}
        chosen |= {name: length for name, length in (lengths or {}).items() if length is not None}
        self._check_lengths(chosen)
        places = {name: self._places(name, jets, length) for name, length in chosen.items()}
        return {
            name: np.ascontiguousarray(self.values[name].take(places[group.collection], axis=1).transpose(1, 0, 2))
            for name, group in self.table.groups.items()
        }

    def _longest(self, collection: str, jets: np.ndarray) -> int:
        longest = int(self.counts[collection][jets].max(initial=0))
        return min(max(self.table.shortest(collection), longest), self.table.longest(collection))

    def _places(self, collection: str, jets: np.ndarray, length: int) -> np.ndarray:
        """Where in the long array each place of the padded one is, ``(n_jets, length)``; the last column for padding."""
        counts = self.counts[collection]
        starts = (np.cumsum(counts) - counts)[jets, None]
        within = np.arange(length)
        places: np.ndarray = np.where(within < counts[jets, None], starts + within, counts.sum())
        cut = np.flatnonzero(counts[jets] > length)
        if cut.size:
            whole = self._places(collection, jets[cut], int(counts[jets[cut]].max()))
            best = np.argsort(-self.ranking[collection][whole], axis=1, kind="stable")[:, :length]
            places[cut] = np.take_along_axis(whole, best, axis=1)
        return places

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
        InputError: there is no jet, a branch is missing or does not fit the others, a jet has no candidate, or a value is no number.

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
    counts, ranking = {}, {}
    columns: dict[str, np.ndarray] = {}
    for collection in table.collections:
        counts[collection], ranking[collection], found = _columns(jets, table, collection)
        columns |= found
    if not counts["pf"].all():
        empty = np.flatnonzero(counts["pf"] == 0)
        raise InputError(
            f"{len(empty)} of {len(jets)} jets {'has' if len(empty) == 1 else 'have'} no candidate at all; the first is number {empty[0]}.",
            "A tagger can say nothing about such a jet.",
            "Leave them out: sample[sample.npfcand > 0]",
        )
    values = {name: _rows(group, columns, int(counts[group.collection].sum())) for name, group in table.groups.items()}
    _check_numbers(table, counts, values)
    return FlatJets(table, counts, ranking, values)


def _columns(jets: ak.Array, table: Table, collection: str) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Counts per jet, the ranking, and the flat branches of a collection."""
    names = table.branches(collection)
    counts = ak.to_numpy(ak.num(jets[names[0]])).astype(np.int64)
    found = {}
    for name in names:
        others = ak.to_numpy(ak.num(jets[name]))
        if not np.array_equal(others, counts):
            jet = int(np.flatnonzero(others != counts)[0])
            raise InputError(
                f"In jet {jet} the branches {names[0]} and {name} have {counts[jet]} and {others[jet]} values.",
                f"Expected the same number, one for each of the {_NAMES.get(collection, collection)}.",
            )
        found[name] = ak.to_numpy(ak.flatten(jets[name])).astype(np.float32, copy=False)
    ending, words = _RANKING.get(collection, ("", "order in the file"))
    ranking = found[next((name for name in names if ending in name), names[0])] if ending else np.zeros(counts.sum(), np.float32)
    longest = table.longest(collection)
    if (too_long := int((counts > longest).sum())) > 0:
        of_what = _NAMES.get(collection, collection)
        warnings.warn(
            f"{too_long} of {len(counts)} jets {'has' if too_long == 1 else 'have'} more than {longest} {of_what} (the longest has "
            f"{counts.max()}); the {longest} with the highest {words} are kept.",
            TruncationWarning,
            stacklevel=4,
        )
    return counts, np.append(ranking, -np.inf), found


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


def by_length(flat: FlatJets, batch: int) -> list[np.ndarray]:
    """Return the jets' numbers in batches, jets with about as many candidates together: that way little is padded."""
    order = np.argsort(flat.counts["pf"], kind="stable")
    return [order[first : first + batch] for first in range(0, len(order), batch)]


def by_event(jets: ak.Array) -> list[np.ndarray]:
    """Return the jets' numbers, event by event, in the order of the file."""
    if "event" not in jets.fields:
        raise InputError("These jets do not say which event they are from.", "Expected the branch event.")
    event = ak.to_numpy(jets["event"])
    order = np.argsort(event, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(event[order])) + 1)


# --- a tagger on a server --------------------------------------------------------------------------------------------------


class Tagger:
    """A jet tagger on a server, with the client's half of its work: branches to tensors, probabilities to scores.

    Args:
        client: the connection to the server.
        model: its name, such as ``particlenet_PT``.
        table: the model's ``preprocess.json``; by default the one beside the model, in the server's repository or in ours.

    Raises:
        InputError: this model takes no jets, or has no table.
        ModelError: it is not loaded.
    """

    def __init__(self, client: Client, model: str, table: str | Path | None = None) -> None:
        self.client = client
        self.model = model
        metadata = client.metadata(model)
        self.table = Table.read(Path(table) if table is not None else _table_file(client, model, metadata))
        by_group = {plain_name(entry["name"]): entry for entry in metadata["inputs"]}
        if set(by_group) != set(self.table.groups):
            raise _not_a_tagger(model, metadata, self.table)
        self._names = {group: by_group[group]["name"] for group in self.table.groups}
        self._output = metadata["outputs"][0]["name"]
        # Lengths that a model prescribes by collection; most say -1, which is none.
        prescribed = {group.partition("_")[0]: int(entry["shape"][-1]) for group, entry in by_group.items()}
        self._fixed = {collection: length if length > 0 else None for collection, length in prescribed.items()}

    def __repr__(self) -> str:
        return f"Tagger({self.model!r}: {len(self.labels)} classes, {', '.join(self._names.values())})"

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the model's output."""
        return self.table.labels

    def inputs(self, jets: ak.Array, *, candidates: int | None = None, vertices: int | None = None) -> dict[str, np.ndarray]:
        """Return the tensors of one request.

        Args:
            jets: what :func:`read` gives, or some of it.
            candidates: pad to so many candidates; by default to the longest jet. Of a longer jet those with the highest transverse
                momentum are kept.
            vertices: the same for secondary vertices, by flight significance.

        Returns:
            float32 arrays ``(n_jets, n_variables, length)`` by the names that the model gives its inputs.

        Raises:
            InputError: the jets or the lengths do not fit the model; the message says which and why.
        """
        flat = flatten(jets, self.table)
        return self._tensors(flat, np.arange(len(flat)), {"pf": candidates, "sv": vertices})

    def tag(
        self,
        jets: ak.Array,
        *,
        batch: int = BATCH_JETS,
        per_event: bool = False,
        max_in_flight: int | None = None,
        candidates: int | None = None,
        vertices: int | None = None,
    ) -> Scores:
        """Send jets to the server and collect its answers.

        Args:
            jets: what :func:`read` gives, or some of it.
            batch: jets in one request. Jets of similar length go together, so that little is padded; answers come back in order.
            per_event: send one request for each event, with all its jets, as CMSSW does; ``batch`` then does not count.
            max_in_flight: requests under way at once; by default one for each instance of the model and one that waits, and for a server
                elsewhere one more that is on its way.
            candidates: pad to so many candidates; by default to the longest jet of each request.
            vertices: pad to so many secondary vertices; by default to the longest jet of each request.

        Raises:
            InputError: the jets do not fit the model.
            RequestError: the server refused or failed.
        """
        if not isinstance(batch, int) or batch < 1:
            raise InputError(f"batch={batch!r} was given.", "Expected the number of jets in one request, 1 or more.")
        begin = time.perf_counter()
        flat = flatten(jets, self.table)
        groups = list(by_event(jets) if per_event else by_length(flat, batch))
        many = (self._tensors(flat, group, {"pf": candidates, "sv": vertices}) for group in groups)
        under_way = self._in_flight() if max_in_flight is None else max_in_flight
        answers = self.client.infer_many(self.model, many, outputs=self._output, max_in_flight=under_way, total=len(groups))
        probabilities = np.empty((len(flat), len(self.labels)), np.float32)
        for group, answer in zip(groups, answers, strict=True):
            probabilities[group] = answer[self._output]
        requests = sum(answer.requests for answer in answers)
        return Scores(self.model, self.labels, probabilities, requests, time.perf_counter() - begin)

    def scores(self, answer: dict[str, np.ndarray]) -> Scores:
        """Put names to what ``client.infer`` returned for tensors of :meth:`inputs`."""
        return Scores(self.model, self.labels, np.asarray(answer[self._output]), getattr(answer, "requests", 1))

    def _in_flight(self) -> int:
        """More than needed cost: on a machine's own cores each further request made ready takes time from the network."""
        servers = len(getattr(self.client.server, "servers", ())) or 1
        groups = self.client.config(self.model).get("instance_group", [])
        instances = sum(int(group.get("count", 1)) * max(1, len(group.get("gpus", []))) for group in groups) or 1
        return servers * instances + (1 if is_loopback(self.client.address.host) else 2)

    def _tensors(self, flat: FlatJets, jets: np.ndarray, lengths: Mapping[str, int | None]) -> dict[str, np.ndarray]:
        padded = flat.pad(jets, {**self._fixed, **{name: length for name, length in lengths.items() if length is not None}})
        return {self._names[group]: tensor for group, tensor in padded.items()}


def sample_for(tagger: Tagger | Table) -> str:
    """Return which of the course's samples holds the jets that a tagger is for: ``ak8`` or ``ak4``."""
    known = {label.removeprefix("prob") for label in tagger.labels}
    return max(LABELS, key=lambda name: len(known & set(LABELS[name])))


def _table_file(client: Client, model: str, metadata: dict[str, Any]) -> Path:
    repository = getattr(client.server, "repository", None)
    places = [folder / model / TABLE_FILE for folder in (repository, paths.models_dir()) if folder is not None]
    found = next((path for path in places if path.is_file()), None)
    if found is None and not is_tagger(metadata):
        raise _not_a_tagger(model, metadata, None)
    if found is None:
        raise InputError(
            f"The model {model!r} has no table {TABLE_FILE} beside it.",
            f"Looked at {quoted(map(shown, places))}; it says which branches the model takes, and how they are transformed.",
            f'Type: jets.Tagger(client, "{model}", table="/where/it/is/{TABLE_FILE}")',
        )
    return found


def _not_a_tagger(model: str, metadata: dict[str, Any], table: Table | None) -> InputError:
    takers = "pf_points, pf_features, pf_mask, sv_points, sv_features and sv_mask" if table is None else quoted(table.groups)
    names = quoted(entry["name"] for entry in metadata["inputs"])
    return InputError(
        f"The model {model!r} takes {names}, so it is no jet tagger{f' that {table.source} describes' if table else ''}.",
        f"Expected the inputs {takers}, with or without __0, __1, … at the end.",
        suggestion(model, ["particlenet", "particlenet_PT", "particlenet_AK4", "particlenet_AK4_PT"]),
    )
