"""An analysis at scale: jets from many files, tagged by Dask's workers through one address, scores in files again.

Interrupt it, kill a worker, or kill all of it, and call it again: it goes on with the chunks that are not there yet.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import awkward as ak
import dask
import distributed
import numpy as np
import pandas as pd
import uproot
from numpy.typing import NDArray

from helpers import paths
from helpers.client import Client
from helpers.errors import CourseError, InputError, RequestError, ServerError
from helpers.paths import in_work, writing
from helpers.physics import jets
from helpers.physics.flavour import Scores
from helpers.terminal import Progress

# Jets that one task reads, tags and writes: a second or two of a server's time. What a killed worker had begun costs no more than that.
CHUNK_JETS = 2_000
# How often Dask gives a chunk to a worker again after its request failed, beyond the client's own repetitions, and the seconds before
# that: a server that is started again is back within half a minute.
RETRIES, RETRY_WAIT_S = 10, 3.0
# The number of a jet that no other one of the same analysis has, in the files of jets and of scores; the tree of scores.
ID, SCORES = "jet_id", "Scores"


@dataclass(frozen=True)
class Chunk:
    """Jets ``start`` to ``stop`` of the file ``source``, which one task tags; their scores go to the file ``target``."""

    source: str
    start: int
    stop: int
    target: str

    @property
    def done(self) -> bool:
        """True if its scores are there, and newer than its jets. They are there only as a whole."""
        target = Path(self.target)
        return target.is_file() and target.stat().st_mtime >= Path(self.source).stat().st_mtime

    def __len__(self) -> int:
        return self.stop - self.start


def replicate(sample: str, n_jets: int, *, jets_per_file: int = CHUNK_JETS, folder: str | Path | None = None) -> list[Path]:
    """Make files of jets, by default in ``work/jets``: the sample ``ak4`` or ``ak8`` over and over, each copy with events of its own.

    Their branches are those of the sample, and ``jet_id``: 0, 1, 2, … through all files. What is there already stays as it is.
    """
    target = Path(folder) if folder is not None else paths.work_dir() / "jets" / f"{sample}_{n_jets}_by_{jets_per_file}"
    files = {target / f"jets_{sample}_{start // jets_per_file:04d}.root": start for start in range(0, n_jets, jets_per_file)}
    missing = {path: start for path, start in files.items() if not path.is_file()}
    source = jets.read(sample) if missing else None
    for path, start in missing.items():
        _write(path, jets.TREE, _copies(source, np.arange(start, min(start + jets_per_file, n_jets))))
    return list(files)


def _copies(source: ak.Array, ids: NDArray[np.int64]) -> dict[str, Any]:
    """The branches of these jets of the endless sample."""
    some = source[ids % len(source)]
    # Events of another copy are other events.
    event = ak.to_numpy(some["event"]).astype(np.int64) + (ids // len(source)) * (int(ak.max(source["event"])) + 1)
    plain = [name for name in some.fields if name.startswith("jet_") and name != "jet_class"]
    branches: dict[str, Any] = {ID: ids, "event": event, **{name: ak.to_numpy(some[name]) for name in plain}}
    for collection in ("pfcand", "sv"):
        own = [name for name in some.fields if name.startswith(f"{collection}_")]
        branches[collection] = ak.zip({name.removeprefix(f"{collection}_"): some[name] for name in own})
    return branches


def chunks(files: Sequence[str | Path], output: str | Path, jets_per_chunk: int = CHUNK_JETS) -> list[Chunk]:
    """Return the chunks of files of jets, with scores below ``output``; none reaches over the end of its file."""
    made = []
    for number, file in enumerate(files):
        with uproot.open(file) as opened:
            if jets.TREE not in opened or ID not in (tree := opened[jets.TREE]):
                happened = f"{file} has no tree {jets.TREE} with a branch {ID}, a number for each jet that no other jet has."
                raise InputError(happened, "Without it a lost jet cannot be noticed.", 'replicate("ak4", 4000) makes such files.')
            total = int(tree.num_entries)
        for start in range(0, total, jets_per_chunk):
            target = Path(output) / f"{number:04d}_{Path(file).stem}_{start:07d}.root"
            made.append(Chunk(str(Path(file).resolve()), start, min(start + jets_per_chunk, total), str(target.resolve())))
    return made


def write_scores(chunk: Chunk, sample: ak.Array, scores: Scores) -> None:
    """Write the scores of a chunk: ids, events and one branch for each class."""
    branches = {name: ak.to_numpy(sample[name]).astype(np.int64) for name in (ID, "event")}
    branches |= {label: np.ascontiguousarray(column) for label, column in zip(scores.labels, scores.probabilities.T, strict=True)}
    _write(Path(chunk.target), SCORES, branches)


def _write(path: Path, tree: str, branches: dict[str, Any]) -> None:
    """Write a ROOT file under another name first, so that it has its own only when it is whole."""
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with uproot.recreate(part, compression=uproot.ZSTD(1)) as file:
                file.mktree(tree, branches)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


# The tagger, and so the one connection, of this process, by the analysis that it is for: made when its first chunk comes.
_taggers: dict[str, jets.Tagger] = {}


def _tagger(analysis: str, server: Any, model: str) -> jets.Tagger:
    if analysis not in _taggers:
        _taggers[analysis] = jets.Tagger(Client(server), model)
    return _taggers[analysis]


def destination(server: Any) -> SimpleNamespace:
    """Return a server as it travels to a worker: where it is and, if it wants one, the token; nothing else of it."""
    with Client(server) as client:
        return SimpleNamespace(**{client.protocol: client.address}, access=client.access)


def _tag(chunk: Chunk, analysis: str, server: Any, model: str) -> dict[str, Any]:
    """Read, tag and write one chunk; returns its row. Dask logs what it is given, and no token is in its text."""
    row: dict[str, Any] = {"worker": str(distributed.get_worker().name), "jets": len(chunk), "requests": 0, "seconds": 0.0}
    if chunk.done:
        # A worker that died after writing took only the news with it.
        return row
    begin = time.perf_counter()
    try:
        sample = jets.read(chunk.source, chunk.start, chunk.stop)
        scores = _tagger(analysis, server, model).tag(sample)
        write_scores(chunk, sample, scores)
        return row | {"requests": scores.requests, "seconds": round(time.perf_counter() - begin, 3)}
    except CourseError as error:
        # Alone: what caused it holds connections, which cannot travel to the one who asked.
        failure = type(error)(error.happened, error.expected, error.todo)
    if isinstance(failure, (RequestError, ServerError)):
        time.sleep(RETRY_WAIT_S)
    raise failure


@dataclass(frozen=True, repr=False)
class Analysis:
    """An analysis that is done: all its chunks, the seconds that this call took, and a row for each chunk that it tagged."""

    model: str
    chunks: tuple[Chunk, ...]
    rows: list[dict[str, Any]]
    seconds: float

    @property
    def tagged(self) -> int:
        """Jets that this call tagged; the others were there already."""
        return sum(row["jets"] for row in self.rows)

    @property
    def workers(self) -> pd.DataFrame:
        """One row for each worker: its chunks, jets and requests, and the part of the time that it was busy."""
        sums = {"chunks": ("jets", "count"), "jets": ("jets", "sum"), "requests": ("requests", "sum"), "busy": ("seconds", "sum")}
        table = pd.DataFrame(self.rows, columns=["worker", "jets", "requests", "seconds"]).groupby("worker", as_index=False).agg(**sums)
        return table.assign(busy=(table["busy"] / self.seconds).round(2))

    def scores(self) -> tuple[NDArray[np.int64], Scores]:
        """Return all scores in the order of the ids: ids ``(n_jets,)``, and the scores as :meth:`jets.Tagger.tag` returns them."""
        found = uproot.concatenate({each.target: SCORES for each in self.chunks}, library="np")
        order, labels = np.argsort(found[ID], kind="stable"), [name for name in found if name not in (ID, "event")]
        probabilities = np.stack([found[label] for label in labels], axis=1)[order]
        return found[ID][order], Scores(self.model, tuple(labels), probabilities, sum(row["requests"] for row in self.rows))

    def check(self) -> dict[str, int]:
        """Return how many ids the files of jets have, how many have no scores (``lost``), and how many have them twice (``doubled``)."""
        trees = {each.source: jets.TREE for each in self.chunks}, {each.target: SCORES for each in self.chunks}
        wanted, found = (uproot.concatenate(files, [ID], library="np")[ID] for files in trees)
        once, times = np.unique(found, return_counts=True)
        return {"jets": len(wanted), "lost": len(np.setdiff1d(wanted, once)), "doubled": int((times > 1).sum())}

    def __repr__(self) -> str:
        before = sum(map(len, self.chunks)) - self.tagged
        speed = f"{self.tagged} jets in {self.seconds:.1f} s, {self.tagged / self.seconds:.0f} jets/s"
        return f"{self.model}: {speed}; {before} were tagged before."


def local_workers(workers: int = 2) -> distributed.LocalCluster:
    """Start Dask workers (processes) that obey this process alone; use it in a ``with`` statement.

    Everyone who reaches the port of a Dask scheduler can run code as its owner, and every user of a machine reaches its loopback
    interface. So scheduler, workers and clients here show each other a certificate, which exists in this process and its workers only.
    """
    # Dask's pages and counters ask for no certificate, and show what the tasks are and what they log: none of them is served.
    with dask.config.set({"distributed.scheduler.http.routes": []}):
        return distributed.LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=workers,
            threads_per_worker=1,
            security=True,
            # For the port that is left of the pages: by default it is 8787, with a warning where that is taken.
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            config={"distributed.worker.http.routes": []},
            # On a busy machine a worker takes longer to end than Dask waits, and is ended then.
            silence_logs=logging.ERROR,
        )


def tag_files(
    files: Sequence[str | Path], cluster: Any, server: Any, model: str, *, output: str | Path, jets_per_chunk: int = CHUNK_JETS
) -> Analysis:
    """Tag all jets of some files. Each chunk becomes one file of scores; what is there already is not done again.

    Args:
        files: ROOT files of jets with the branch ``jet_id``, such as :func:`replicate` makes; an InputError where they are none.
        cluster: a Dask cluster (:func:`local_workers`, ``SLURMCluster`` …) or the address of a scheduler; its workers see the same files.
        server: a fleet, a server or an address, which the workers must be able to reach.
        model: the tagger.
        output: folder for the scores, which has one of its own for each model and length of chunks.
        jets_per_chunk: jets in each task.
    """
    parts = chunks(files, in_work(output) / f"{model}_by_{jets_per_chunk}", jets_per_chunk)
    todo = [part for part in parts if not part.done]
    rows, begin = [], time.perf_counter()
    with (
        distributed.Client(cluster, set_as_default=False) as client,  # type: ignore[no-untyped-call]
        Progress("tagging files", len(todo), "chunks") as progress,
    ):
        # Not pure: the same chunk may have to be done again in another run.
        task = {"analysis": uuid.uuid4().hex, "server": destination(server), "model": model}
        futures = client.map(_tag, todo, pure=False, retries=RETRIES, **task) if todo else []
        for future in distributed.as_completed(futures, loop=client.loop):  # type: ignore[no-untyped-call]
            rows.append(future.result())
            progress.add()
    return Analysis(model, tuple(parts), rows, time.perf_counter() - begin)
