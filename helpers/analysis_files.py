"""The files of an analysis: jets in, cut into chunks, and scores out, one ROOT file for each chunk, whole or not at all.

Typical use::

    files = replicate("ak4", 200_000)                       # the course's jets over and over, each with an id of its own
    parts = chunks(files, "work/analysis/first", 2_000)
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray

from helpers import paths
from helpers.errors import InputError
from helpers.paths import find, shown, writing
from helpers.physics import jets
from helpers.physics.flavour import Scores

# Jets that one task reads, tags and writes: a second or two of a server's time. What a killed worker had begun costs no more than that.
ANALYSIS_CHUNK_JETS = 2_000

# An analysis at scale.
# Jets that it has, and how many are in each of its files: what a physics group's own ntuples look like, in small.
ANALYSIS_JETS, ANALYSIS_FILE_JETS = 200_000, 20_000

# The number that tells a jet from every other one of the same analysis, in the files of jets and in those of scores.
ID = "jet_id"
TREE = "Scores"
MANIFEST = "analysis.json"
_PART = ".part"
_COLLECTIONS = ("pfcand", "sv")


@dataclass(frozen=True)
class Chunk:
    """Some jets of one file, which one task tags and writes.

    Attributes:
        source: the file of jets.
        start: number of the first jet in that file.
        stop: number of the jet to stop before.
        target: the file of their scores.
    """

    source: str
    start: int
    stop: int
    target: str

    @property
    def name(self) -> str:
        """What the progress and the table call it."""
        return Path(self.target).stem

    @property
    def done(self) -> bool:
        """Whether its scores are there. They are there only as a whole."""
        return Path(self.target).is_file()

    def __len__(self) -> int:
        return self.stop - self.start


def replicate(
    sample: str = "ak4",
    n_jets: int = ANALYSIS_JETS,
    *,
    jets_per_file: int = ANALYSIS_FILE_JETS,
    folder: str | Path | None = None,
) -> list[Path]:
    """Files with as many jets as an analysis has: the course's sample over and over, each copy with ids and events of its own.

    Files that are there already are kept as they are.

    Args:
        sample: ``ak4`` or ``ak8``.
        n_jets: jets in all files together.
        jets_per_file: jets in each file; the last one may have fewer.
        folder: where to write; by default in ``work/jets``.

    Returns:
        The files. Their branches are those of the sample, and ``jet_id``: 0, 1, 2, … through all files.

    Raises:
        InputError: no such sample, or numbers below 1.
        SetupError: the files cannot be written.
    """
    if n_jets < 1 or jets_per_file < 1:
        raise InputError(f"n_jets={n_jets}, jets_per_file={jets_per_file} was given.", "Expected 1 or more of each.")
    # The number of jets is in the folder's name: a folder of another size would be taken for this one otherwise.
    target = Path(folder) if folder is not None else paths.work_dir() / "jets" / f"{sample}_{n_jets}_by_{jets_per_file}"
    starts = range(0, n_jets, jets_per_file)
    files = [target / f"jets_{sample}_{number:04d}.root" for number in range(len(starts))]
    source: ak.Array | None = None
    for path, start in zip(files, starts, strict=True):
        if path.is_file():
            continue
        source = jets.read(sample) if source is None else source
        with writing(path):
            target.mkdir(parents=True, exist_ok=True)
            _write(path, jets.TREE, _copies(source, start, min(start + jets_per_file, n_jets)))
    return files


def _copies(source: ak.Array, start: int, stop: int) -> list[dict[str, Any]]:
    """The branches of jets ``start`` to ``stop`` of the endless sample, in pieces of one basket each."""
    pieces = []
    # A basket is what a reader unpacks at once, so that a chunk costs the reading of about a chunk.
    for first in range(start, stop, ANALYSIS_CHUNK_JETS):
        ids = np.arange(first, min(first + ANALYSIS_CHUNK_JETS, stop))
        some = source[ids % len(source)]
        # Events of another copy are other events.
        event = ak.to_numpy(some["event"]).astype(np.int64) + (ids // len(source)) * (int(ak.max(source["event"])) + 1)
        plain = [
            name for name in some.fields if some[name].ndim == 1 and name not in ("event", "jet_class", *map("n{}".format, _COLLECTIONS))
        ]
        branches: dict[str, Any] = {ID: ids.astype(np.int64), "event": event, **{name: ak.to_numpy(some[name]) for name in plain}}
        for collection in _COLLECTIONS:
            columns = {name.removeprefix(f"{collection}_"): some[name] for name in some.fields if name.startswith(f"{collection}_")}
            branches[collection] = ak.zip(columns)
        pieces.append(branches)
    return pieces


def chunks(files: Sequence[str | Path], output: str | Path, jets_per_chunk: int = ANALYSIS_CHUNK_JETS) -> list[Chunk]:
    """Cut files of jets into chunks.

    Args:
        files: ROOT files with a tree ``Jets``, each of another name.
        output: folder for the scores.
        jets_per_chunk: jets in each chunk, at most; no chunk reaches over the end of its file.

    Raises:
        InputError: no file, a file that is none, two of one name, or a number below 1.
    """
    if not isinstance(jets_per_chunk, int) or jets_per_chunk < 1:
        raise InputError(f"jets_per_chunk={jets_per_chunk!r} was given.", "Expected a number of jets, 1 or more.")
    found = []
    for file in [files] if isinstance(files, (str, Path)) else files:
        path = find(file)
        if path is None:
            raise InputError(f"There is no file of jets {str(file)!r}.", "Expected ROOT files, as replicate(...) makes them.")
        found.append(path.resolve())
    if not found:
        raise InputError("There is no file to read: the list is empty.", "Expected at least one file of jets.")
    if len({path.stem for path in found}) < len(found):
        raise InputError("Two files of jets have the same name.", "Expected other names: those of the scores are made from them.")
    made = []
    for path in found:
        total = entries(path)
        for start in range(0, total, jets_per_chunk):
            stop = min(start + jets_per_chunk, total)
            made.append(Chunk(str(path), start, stop, str(Path(output).resolve() / f"{path.stem}_{start:07d}.root")))
    return made


def entries(path: str | Path) -> int:
    """Jets in a file.

    Raises:
        InputError: it is no ROOT file, or has no tree of jets.
    """
    try:
        with uproot.open(path) as file:
            return int(file[jets.TREE].num_entries)
    except (OSError, ValueError, uproot.KeyInFileError) as error:
        raise InputError(f"{shown(Path(path))} has no tree {jets.TREE}.", "Expected a ROOT file of jets.") from error


def ids(path: str | Path, start: int | None = None, stop: int | None = None, tree: str = jets.TREE) -> NDArray[np.int64]:
    """The ids in a file of jets or, with its tree's name, of scores.

    Raises:
        InputError: its jets have none.
    """
    with uproot.open(path) as file:
        if ID not in file[tree]:
            raise InputError(
                f"The jets of {shown(Path(path))} have no branch {ID}.",
                "Expected a number for each jet that no other jet has: without it nobody could say that none was lost.",
                'The course\'s jets get one from replicate("ak4").',
            )
        return file[tree][ID].array(entry_start=start, entry_stop=stop, library="np").astype(np.int64)


def write_scores(chunk: Chunk, sample: ak.Array, scores: Scores) -> None:
    """Write the scores of a chunk: ids, events and one branch for each class.

    Raises:
        InputError: the jets have no ids.
        SetupError: the file cannot be written.
    """
    if ID not in sample.fields:
        ids(chunk.source)  # says what is missing
    branches = {ID: ak.to_numpy(sample[ID]).astype(np.int64)}
    branches |= {"event": ak.to_numpy(sample["event"])} if "event" in sample.fields else {}
    branches |= {label: np.ascontiguousarray(column) for label, column in zip(scores.labels, scores.probabilities.T, strict=True)}
    path = Path(chunk.target)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, TREE, [branches])


def _write(path: Path, tree: str, pieces: Sequence[dict[str, Any]]) -> None:
    """A ROOT file under another name first, so that whoever sees it under its own sees all of it."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}{_PART}")
    try:
        with uproot.recreate(part, compression=uproot.ZSTD(1)) as file:
            written = file.mktree(tree, pieces[0])
            for piece in pieces[1:]:
                written.extend(piece)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def remove_parts(folder: Path) -> None:
    """Remove what workers left behind that were killed while they wrote."""
    for part in folder.glob(f".*{_PART}"):
        part.unlink(missing_ok=True)


def keep_manifest(folder: Path, about: dict[str, Any]) -> None:
    """Write down what the scores in a folder are, or make sure that they are this.

    Raises:
        InputError: the folder holds the scores of something else.
        SetupError: it cannot be written.
    """
    path = folder / MANIFEST
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
        other = [name for name, value in about.items() if before.get(name) != value]
        if other:
            raise InputError(
                f"{shown(folder)} holds the scores of another analysis: its {' and its '.join(other)} differ.",
                "Expected an empty folder, or the same analysis, which then goes on where it was.",
                f'Type: output="{shown(folder)}_2", or delete the folder',
            )
        return
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(_PART)
        part.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        part.replace(path)
