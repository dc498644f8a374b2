"""Jets: read them from ROOT files, send them to a ParticleNet, get back what flavour they are.

Typical use::

    from helpers import Client, jets
    sample = jets.read("ak8")                                 # awkward array, one record for each jet
    tagger = jets.Tagger(Client(server), "particlenet_PT")
    tensors = tagger.inputs(sample[:10])                      # padded tensors with masks, named as the model names them
    scores = tagger.tag(sample)                               # all jets, in batches
    scores["Hbb"], scores["hbb_vs_qcd"]
    print(scores.roc("hbb_vs_qcd", sample))
"""

from __future__ import annotations

import time
from pathlib import Path

import awkward as ak
import numpy as np
import uproot

from helpers import jet_table, settings
from helpers.client import Client
from helpers.errors import InputError
from helpers.files import find, shown
from helpers.jet_roc import Roc, WorkingPoint, roc
from helpers.jet_scores import DISCRIMINANTS, Scores, truth
from helpers.jet_table import Table, is_tagger, plain_name
from helpers.jet_tensors import FlatJets, TruncationWarning, flatten
from helpers.repository.configs import instances_of
from helpers.rest import is_loopback
from helpers.wording import quoted, suggestion

__all__ = ["DISCRIMINANTS", "LABELS", "Roc", "Scores", "Tagger", "TruncationWarning", "WorkingPoint", "read", "roc", "sample_for", "truth"]

TREE = "Jets"
# The classes behind the numbers in the branch jet_label of the course's samples: those of CMS's taggers, in CMS's order.
LABELS: dict[str, tuple[str, ...]] = {
    "ak4": ("b", "bb", "c", "cc", "uds", "g", "undef", "pu"),
    "ak8": (
        *("Tbcq", "Tbqq", "Tbc", "Tbq", "Tbel", "Tbmu", "Tbta", "Wcq", "Wqq", "Zbb", "Zcc", "Zqq"),
        *("Hbb", "Hcc", "Hqqqq", "QCDbb", "QCDcc", "QCDb", "QCDc", "QCDothers"),
    ),
}
# Jets in one request when many are tagged: on a CPU more gains nothing, and the answer is waited for no longer than needed.
BATCH_JETS = 50


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
    path = settings.root() / "notebooks" / "data" / f"jets_{key}.root" if key in LABELS else find(sample)
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
        self._fixed = _fixed_lengths(by_group)

    def __repr__(self) -> str:
        return f"Tagger({self.model!r}: {len(self.labels)} classes, {', '.join(self._names.values())})"

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the model's output."""
        return self.table.labels

    def inputs(self, jets: ak.Array, *, candidates: int | None = None, vertices: int | None = None) -> dict[str, np.ndarray]:
        """The tensors of one request.

        Args:
            jets: what :func:`read` gives, or some of it.
            candidates: pad to so many candidates; by default to the longest jet.
            vertices: pad to so many secondary vertices; by default to the longest jet.

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
        """Send jets to the server and collect what it says.

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
        groups = by_event(jets) if per_event else by_length(flat, batch)
        many = (self._tensors(flat, group, {"pf": candidates, "sv": vertices}) for group in groups)
        under_way = self._in_flight() if max_in_flight is None else max_in_flight
        answers = self.client.infer_many(self.model, many, outputs=self._output, max_in_flight=under_way)
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
        return servers * instances_of(self.client.config(self.model)) + (1 if is_loopback(self.client.address.host) else 2)

    def _tensors(self, flat: FlatJets, jets: np.ndarray, lengths: dict[str, int | None] | None = None) -> dict[str, np.ndarray]:
        padded = flat.pad(jets, {**self._fixed, **{name: length for name, length in (lengths or {}).items() if length is not None}})
        return {self._names[group]: tensor for group, tensor in padded.items()}


def sample_for(tagger: Tagger) -> str:
    """Which of the course's samples holds the jets that a tagger is for: ``ak8`` or ``ak4``."""
    known = {label.removeprefix("prob") for label in tagger.labels}
    return max(LABELS, key=lambda name: len(known & set(LABELS[name])))


def by_length(flat: FlatJets, batch: int) -> list[np.ndarray]:
    """The jets' numbers in batches, jets with about as many candidates together: that way little is padded."""
    order = np.argsort(flat.counts["pf"], kind="stable")
    return [order[first : first + batch] for first in range(0, len(order), batch)]


def by_event(jets: ak.Array) -> list[np.ndarray]:
    """The jets' numbers, event by event, in the order of the file."""
    if "event" not in jets.fields:
        raise InputError("These jets do not say which event they are from.", "Expected the branch event.")
    event = ak.to_numpy(jets["event"])
    order = np.argsort(event, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(event[order])) + 1)


def _table_file(client: Client, model: str, metadata: dict) -> Path:
    repository = getattr(client.server, "repository", None)
    places = [folder / model / jet_table.FILE for folder in (repository, settings.models_dir()) if folder is not None]
    found = next((path for path in places if path.is_file()), None)
    if found is None and not is_tagger(metadata):
        raise _not_a_tagger(model, metadata, None)
    if found is None:
        raise InputError(
            f"The model {model!r} has no table {jet_table.FILE} beside it.",
            f"Looked at {quoted(map(shown, places))}; it says which branches the model takes, and how they are transformed.",
            f'Type: jets.Tagger(client, "{model}", table="/where/it/is/{jet_table.FILE}")',
        )
    return found


def _not_a_tagger(model: str, metadata: dict, table: Table | None) -> InputError:
    takers = "pf_points, pf_features, pf_mask, sv_points, sv_features and sv_mask" if table is None else quoted(table.groups)
    names = quoted(entry["name"] for entry in metadata["inputs"])
    return InputError(
        f"The model {model!r} takes {names}, so it is no jet tagger{f' that {table.source} describes' if table else ''}.",
        f"Expected the inputs {takers}, with or without __0, __1, … at the end.",
        suggestion(model, ["particlenet", "particlenet_PT", "particlenet_AK4", "particlenet_AK4_PT"]),
    )


def _fixed_lengths(inputs: dict[str, dict]) -> dict[str, int | None]:
    """Lengths that a model prescribes by collection; none in most, which say -1."""
    lengths = {group.partition("_")[0]: int(entry["shape"][-1]) for group, entry in inputs.items()}
    return {collection: length if length > 0 else None for collection, length in lengths.items()}
