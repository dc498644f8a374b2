"""Jets: read them from ROOT files, send them to a ParticleNet, get back what flavour they are.

No step loops over jets: the values of all candidates of all jets stand in one long array, and padding is one look-up in it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import awkward as ak
import numpy as np
import uproot

from helpers import paths
from helpers.client import Client
from helpers.errors import InputError, quoted
from helpers.machine import is_loopback
from helpers.paths import find
from helpers.physics.flavour import LABELS, Scores, truth
from helpers.physics.taus import transform
from helpers.repository.configs import instances_of

__all__ = ["LABELS", "Table", "Tagger", "flatten", "read", "sample_for", "truth"]

TREE = "Jets"
# The table beside each tagger, in the layout that CMS uses for its own, so that a table of theirs is read just so.
TABLE_FILE = "preprocess.json"
# Jets in one request when many are tagged: on a CPU more gains nothing, and the answer is waited for no longer than needed.
BATCH_JETS = 50
# Of each collection what decides who stays when a jet has too many, as part of the branch's name: momentum, flight significance.
_RANKS = {"pf": "pt_log", "sv": "d3dsig"}


def read(sample: str | Path = "ak8", start: int | None = None, stop: int | None = None) -> ak.Array:
    """Read jets ``start`` to ``stop`` of ``ak8`` or ``ak4``, the course's samples, or of a ROOT file with such a tree ``Jets``.

    Each has ``jet_pt`` (GeV), ``jet_eta``, ``jet_phi``, ``jet_mass`` (GeV), ``event``, jagged fields ``pfcand_…`` and ``sv_…``, and in the
    course's samples the true class, ``jet_class``.
    """
    key = str(sample).lower()
    path = paths.root() / "notebooks" / "data" / f"jets_{key}.root" if key in LABELS else find(sample)
    if path is None or not path.is_file():
        raise InputError(f"There is no file of jets {str(sample)!r}.", f"Expected {quoted(LABELS)}, or the path of a ROOT file.")
    with uproot.open(path) as file:
        jets = file[TREE].arrays(entry_start=start, entry_stop=stop)
    radius = next((name for name in LABELS if name in path.stem.lower()), None)
    if radius and "jet_label" in jets.fields:
        jets["jet_class"] = ak.Array(list(LABELS[radius]))[jets["jet_label"]]
    return jets


@dataclass(frozen=True)
class Table:
    """How a tagger wants its inputs: which branches, which transforms, how long the padding."""

    # The classes, in the order of the output.
    labels: tuple[str, ...]
    # By input tensor, in the model's order: the transform and the padding of each of its rows, by the name of the branch.
    inputs: dict[str, dict[str, dict[str, float]]]
    # By collection, ``pf`` (candidates) and ``sv`` (secondary vertices): the branches that are read; least and largest length.
    branches: dict[str, dict[str, None]]
    lengths: dict[str, tuple[int, int]]

    @classmethod
    def read(cls, path: Path, tensors: Iterable[str] = ()) -> Table:
        """Read a ``preprocess.json``; the model's ``tensors`` may have their position behind their names, as ``pf_mask__2`` does."""
        content = json.loads(path.read_text(encoding="utf-8"))
        named = {re.sub(r"__\d+$", "", name): name for name in tensors}
        table = cls(tuple(content["output_names"]), {}, {}, {})
        for name in content["input_names"]:
            entry, collection = content[name], _collection(name)
            table.inputs[named.get(name, name)] = {branch: {"pad": 0.0} | entry["var_infos"][branch] for branch in entry["var_names"]}
            # A mask is 1 for a candidate and 0 for padding: no branch of a file holds it.
            branches = [branch for branch in entry["var_names"] if not branch.endswith("mask")]
            table.branches.setdefault(collection, {}).update(dict.fromkeys(branches))
            # Older tables have one length, to which everything is padded.
            shortest, longest = (int(entry.get(key, entry.get("var_length"))) for key in ("min_length", "max_length"))
            least, most = table.lengths.get(collection, (shortest, longest))
            table.lengths[collection] = max(shortest, least), min(longest, most)
        return table


def _collection(tensor: str) -> str:
    return tensor.partition("_")[0]


@dataclass(frozen=True)
class FlatJets:
    """Jets whose inputs are transformed, but not padded yet; the last value of all is the padding."""

    table: Table
    # By collection: its size in each jet, (n_jets,), and what decides who stays when a jet has too many, (n_values + 1,).
    counts: dict[str, np.ndarray]
    ranking: dict[str, np.ndarray]
    # By input tensor: the values of all jets behind one another, (n_variables, n_values + 1).
    values: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.counts["pf"])

    def pad(self, jets: np.ndarray, lengths: Mapping[str, int | None] | None = None) -> dict[str, np.ndarray]:
        """Return the tensors of the jets of these numbers, by input name: float32, ``(n_jets, n_variables, length)``.

        A collection's length is by default that of the longest jet, within the table's limits. Of more, the highest-ranked are kept.
        """
        places = {}
        for name, (shortest, longest) in self.table.lengths.items():
            usual = min(max(shortest, int(self.counts[name][jets].max(initial=0))), longest)
            places[name] = self._places(name, jets, (lengths or {}).get(name) or usual)
        padded = {name: values.take(places[_collection(name)], axis=1) for name, values in self.values.items()}
        return {name: np.ascontiguousarray(values.transpose(1, 0, 2)) for name, values in padded.items()}

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


def flatten(jets: ak.Array, table: Table) -> FlatJets:
    """Transform all inputs of all jets as the table says; an InputError when the jets do not fit."""
    if not isinstance(jets, ak.Array) or jets.ndim != 1 or not jets.fields or len(jets) == 0:
        given = f"The jets were given as {type(jets).__name__}, or there is none."
        raise InputError(given, "Expected what jets.read(...) returns, or a slice of it: sample[:1]")
    counts, ranking = {}, {}
    columns: dict[str, np.ndarray] = {}
    for collection, branches in table.branches.items():
        first = next(iter(branches))
        number = counts[collection] = ak.to_numpy(ak.num(jets[first])).astype(np.int64)
        for name in branches:
            if (apart := np.flatnonzero(ak.to_numpy(ak.num(jets[name])) != number)).size:
                raise InputError(f"In jet {apart[0]} the branches {first} and {name} have different numbers of values.")
            columns[name] = ak.to_numpy(ak.flatten(jets[name])).astype(np.float32, copy=False)
            if np.isnan(columns[name]).any():
                raise InputError(f"Values of {name} are not numbers (NaN).", "A network would answer with nonsense.", "Leave them out.")
        ranking[collection] = np.append(columns[next((name for name in branches if _RANKS[collection] in name), first)], -np.inf)
    if empty := int((counts["pf"] == 0).sum()):
        raise InputError(f"{empty} of {len(jets)} jets have no candidate.", "", "Leave them out: sample[sample.npfcand > 0]")
    values = {name: np.empty((len(rows), counts[_collection(name)].sum() + 1), np.float32) for name, rows in table.inputs.items()}
    for tensor, rows in table.inputs.items():
        for row, (name, info) in zip(values[tensor], rows.items(), strict=True):
            mask = name.endswith("mask")
            row[:-1], row[-1] = (1.0, 0.0) if mask else (transform(columns[name], info), info["pad"])
    return FlatJets(table, counts, ranking, values)


class Tagger:
    """A jet tagger on a server, with the client's half of its work: branches to tensors, probabilities to scores.

    The model's ``preprocess.json`` lies beside it, in the server's repository or in ours; without one there is an InputError.
    """

    def __init__(self, client: Client, model: str) -> None:
        self.client, self.model = client, model
        metadata = client.metadata(model)
        tensors = [entry["name"] for entry in metadata["inputs"]]
        self._output = metadata["outputs"][0]["name"]
        folders = [folder / model for folder in (getattr(client.server, "repository", None), paths.models_dir()) if folder]
        folder = next((folder for folder in folders if (folder / TABLE_FILE).is_file()), None)
        if folder is None or not any(name.startswith("pf_") for name in tensors):
            takes = f"The model {model!r} takes {quoted(tensors)}, so it is no jet tagger, or no {TABLE_FILE} lies beside it."
            raise InputError(takes, "All taggers of the course begin with particlenet.")
        self.table = Table.read(folder / TABLE_FILE, tensors)
        self.labels = self.table.labels

    def inputs(self, jets: ak.Array, *, candidates: int | None = None, vertices: int | None = None) -> dict[str, np.ndarray]:
        """Return the tensors of one request, float32 ``(n_jets, n_variables, length)`` by the model's names of its inputs.

        They are padded to so many ``candidates`` and secondary ``vertices``, by default to the longest jet. Of a longer jet those with
        the highest transverse momentum or flight significance are kept.
        """
        flat = flatten(jets, self.table)
        return flat.pad(np.arange(len(flat)), {"pf": candidates, "sv": vertices})

    def tag(self, jets: ak.Array, *, batch: int = BATCH_JETS, per_event: bool = False) -> Scores:
        """Send jets to the server and return the scores, in the order of the jets.

        A request has ``batch`` jets of similar length, so that little is padded; ``per_event`` all jets of an event, as with CMSSW.
        """
        begin = time.perf_counter()
        flat = flatten(jets, self.table)
        together = ak.to_numpy(jets["event"]) if per_event else flat.counts["pf"]
        order = np.argsort(together, kind="stable")
        borders = np.flatnonzero(np.diff(together[order])) + 1 if per_event else np.arange(batch, len(order), batch)
        groups = np.split(order, borders)
        requests = (flat.pad(group) for group in groups)
        answers = self.client.infer_many(self.model, requests, outputs=[self._output], max_in_flight=self._in_flight())
        probabilities = np.empty((len(flat), len(self.labels)), np.float32)
        for group, answer in zip(groups, answers, strict=True):
            probabilities[group] = answer[self._output]
        return Scores(self.model, self.labels, probabilities, sum(answer.requests for answer in answers), time.perf_counter() - begin)

    def scores(self, answer: dict[str, np.ndarray]) -> Scores:
        """Put names to what ``client.infer`` returned for tensors of :meth:`inputs`."""
        return Scores(self.model, self.labels, np.asarray(answer[self._output]), getattr(answer, "requests", 1))

    def _in_flight(self) -> int:
        """One for each instance, one that waits, and for a server elsewhere one on its way; more cost time on a machine's own cores."""
        servers = len(getattr(self.client.server, "servers", ())) or 1
        return servers * instances_of(self.client.config(self.model)) + (1 if is_loopback(self.client.address.host) else 2)


def sample_for(tagger: Tagger | Table) -> str:
    """Return which of the course's samples holds the jets that a tagger is for: ``ak8`` or ``ak4``."""
    return max(LABELS, key=lambda name: len({f"prob{label}" for label in LABELS[name]}.intersection(tagger.labels)))
