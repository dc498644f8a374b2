"""An analysis at scale: jets from many files, tagged by a cluster of Dask workers through one address, scores in files again.

Typical use::

    from helpers.analysis import local_workers, replicate, tag_files

    files = replicate("ak4", 200_000)
    with local_workers(2) as cluster:                                     # or SLURMCluster(..., security=True)
        done = tag_files(files, cluster, fleet, "particlenet_AK4", output="work/analysis/first")
    done                                                                  # what took how long
    done.check()                                                          # each jet once
    ids, scores = done.scores()

In a script, importing dask_jobqueue changes what Ctrl-C does; containers/CLIENTS.md says how to restore it.

Interrupt it, kill a worker, or kill all of it, and call it again: it goes on with the chunks that are not there yet.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask
import numpy as np
import uproot
from distributed import Client, KilledWorker, LocalCluster, as_completed
from numpy.typing import NDArray
from tqdm.auto import tqdm

from helpers import analysis_files
from helpers.analysis_files import ANALYSIS_CHUNK_JETS, Chunk, chunks, replicate
from helpers.analysis_worker import ANALYSIS_RETRIES, Tagging, destination, tag_chunk
from helpers.errors import InputError, SetupError
from helpers.measuring.table import folder_of
from helpers.physics.flavour import Scores
from helpers.tables import as_html, as_text

# Seconds until a Dask scheduler answers.
ANALYSIS_CONNECT_S = 20.0

# Jets in one request, and requests under way at once from each worker: one in work, one waiting, one on its way.
ANALYSIS_BATCH, ANALYSIS_IN_FLIGHT = 50, 3

__all__ = ["Analysis", "local_workers", "replicate", "tag_files"]


@dataclass(frozen=True, repr=False)
class Analysis:
    """An analysis that is done.

    Attributes:
        model: which tagger.
        chunks: all its pieces.
        rows: one for each chunk that this call tagged: jets, requests, seconds, worker, tries.
        seconds: how long this call took.
    """

    model: str
    chunks: tuple[Chunk, ...]
    rows: list[dict[str, Any]] = field(repr=False)
    seconds: float

    @property
    def jets(self) -> int:
        """Jets in all chunks."""
        return sum(map(len, self.chunks))

    @property
    def tagged(self) -> int:
        """Jets that this call tagged; the others were there already."""
        return sum(row["jets"] for row in self.rows)

    @property
    def jets_per_s(self) -> float:
        """Jets that this call tagged in a second, reading and writing included."""
        return self.tagged / self.seconds

    @property
    def workers(self) -> list[dict[str, Any]]:
        """One row for each worker: its chunks, jets and requests, and the part of the time that it was busy."""
        rows = []
        for name in sorted({str(row["worker"]) for row in self.rows}):
            own = [row for row in self.rows if str(row["worker"]) == name]
            sums = {key: sum(row[key] for row in own) for key in ("jets", "requests", "seconds")}
            rows.append({"worker": name, "chunks": len(own), **sums, "busy": round(sums.pop("seconds") / self.seconds, 2)})
        return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]

    def scores(self) -> tuple[NDArray[np.int64], Scores]:
        """All scores, in the order of the ids: ids ``(n_jets,)``, and the scores as :meth:`jets.Tagger.tag` returns them."""
        ids, columns, labels = [], [], []
        for chunk in self.chunks:
            with uproot.open(chunk.target) as file:
                tree = file[analysis_files.TREE]
                labels = [name for name in tree.keys() if name not in (analysis_files.ID, "event")]  # noqa: SIM118 - a tree is no dict
                arrays = tree.arrays([analysis_files.ID, *labels], library="np")
            ids.append(arrays[analysis_files.ID])
            columns.append(np.stack([arrays[label] for label in labels], axis=1))
        together, probabilities = np.concatenate(ids), np.concatenate(columns)
        order = np.argsort(together, kind="stable")
        return together[order], Scores(self.model, tuple(labels), probabilities[order], sum(row["requests"] for row in self.rows))

    def check(self) -> dict[str, int]:
        """Compare the ids in the files of scores with those in the files of jets.

        Returns:
            How many jets there are, how many have no scores (``lost``), and how many have them more than once (``doubled``).
        """
        wanted = np.concatenate([analysis_files.ids(chunk.source, chunk.start, chunk.stop) for chunk in self.chunks])
        found = np.concatenate([analysis_files.ids(chunk.target, tree=analysis_files.TREE) for chunk in self.chunks])
        once, times = np.unique(found, return_counts=True)
        return {"jets": len(wanted), "lost": len(np.setdiff1d(wanted, once)), "doubled": int((times > 1).sum())}

    def __str__(self) -> str:
        before = self.jets - self.tagged
        if not self.tagged:
            return f"{self.model}: all {before} jets were tagged before."
        there = f" {before} were tagged before." if before else ""
        return f"{self.model}: {self.tagged} jets in {self.seconds:.1f} s, {self.jets_per_s:.0f} jets/s.{there}"

    def __repr__(self) -> str:
        return "\n".join([str(self), *([as_text(self.workers)] if self.rows else [])])

    def _repr_html_(self) -> str:
        return as_html(self.workers, caption=str(self)) if self.rows else f"<p>{self}</p>"


def local_workers(workers: int = 2, *, threads: int = 1) -> LocalCluster:
    """Start Dask workers on this machine that obey this process alone.

    Whoever reaches the port of a Dask scheduler can have code run as its owner, and every user of a machine reaches its loopback
    interface. So scheduler, workers and clients here show each other a certificate, which exists in this process and its workers only.

    Args:
        workers: processes.
        threads: of each process.

    Returns:
        A cluster, to be used in a ``with`` statement.
    """
    # Dask's pages and counters ask for no certificate, and show what the tasks are and what they log: none of them is served.
    with dask.config.set({"distributed.scheduler.http.routes": []}):
        return LocalCluster(
            n_workers=workers,
            threads_per_worker=threads,
            security=True,
            # For the port that is left of the pages: by default it is 8787, with a warning where that is taken.
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            # Also for workers that come later.
            config={"distributed.worker.http.routes": []},
        )


def tag_files(
    files: Sequence[str | Path],
    cluster: Any,
    server: Any,
    model: str,
    *,
    output: str | Path,
    jets_per_chunk: int = ANALYSIS_CHUNK_JETS,
    batch: int = ANALYSIS_BATCH,
    max_in_flight: int = ANALYSIS_IN_FLIGHT,
    table: str | Path | None = None,
    retries: int = ANALYSIS_RETRIES,
    silent: bool = False,
    client_options: dict[str, Any] | None = None,
    **lengths: int,
) -> Analysis:
    """Tag all jets of some files.

    Each worker keeps one connection. Each chunk becomes one file of scores, written under another name and renamed when it is whole;
    what is there already is not done again.

    Args:
        files: ROOT files of jets with the branch ``jet_id``, such as :func:`replicate` makes.
        cluster: a Dask cluster (:func:`local_workers`, ``SLURMCluster``, ``HTCondorCluster`` …), a Dask client, or the address of a
            scheduler. Its workers must see the same files and have this course's client environment.
        server: a fleet, a server or an address, which the workers must be able to reach.
        model: the tagger.
        output: folder for the scores.
        jets_per_chunk: jets in each task.
        batch: jets in each request.
        max_in_flight: requests under way at once from each thread of a worker.
        table: the model's ``preprocess.json``, where it is not a model of the course.
        retries: how often a chunk is tried again when the server did not answer, with longer and longer waits.
        silent: show no progress.
        client_options: further options of each worker's :class:`~helpers.client.Client`.
        **lengths: ``candidates`` and ``vertices``, to pad all jets to.

    Raises:
        InputError: the files are none, or the folder holds the scores of another analysis.
        SetupError: workers died again and again.
        CourseError: a chunk could not be tagged; those that are done stay done.
    """
    travels = destination(server)
    folder = folder_of(output)
    parts = chunks(files, folder, jets_per_chunk)
    analysis_files.ids(parts[0].source, 0, 1)
    sources = [[Path(source).name, analysis_files.entries(source)] for source in dict.fromkeys(part.source for part in parts)]
    analysis_files.keep_manifest(folder, {"model": model, "files": sources, "jets_per_chunk": jets_per_chunk, "lengths": lengths})
    name = f"course-analysis-{uuid.uuid4().hex[:8]}"
    plugin = Tagging(name, travels, model, None if table is None else str(table), client_options or {})
    begin = time.perf_counter()
    how = {"batch": batch, "max_in_flight": max_in_flight, **lengths}
    with _dask(cluster) as client:
        client.register_plugin(plugin)
        try:
            rows = _run(client, [part for part in parts if not part.done], silent, analysis=name, how=how, attempts=retries + 1)
        finally:
            client.unregister_worker_plugin(name)
    analysis_files.remove_parts(folder)
    return Analysis(model, tuple(parts), rows, time.perf_counter() - begin)


@contextmanager
def _dask(cluster: Any) -> Iterator[Client]:
    """A connection to the cluster; one that is given stays open."""
    if isinstance(cluster, Client):
        yield cluster
        return
    try:
        client = Client(cluster, set_as_default=False, timeout=ANALYSIS_CONNECT_S)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"No Dask cluster answers as {cluster!r} ({type(error).__name__}).",
            "Expected a cluster object, a Dask client, or the address of a scheduler that asks for no certificate.",
            "Type: cluster = local_workers(2)",
        ) from error
    with client:
        yield client


def _run(client: Client, parts: list[Chunk], silent: bool, **task: Any) -> list[dict[str, Any]]:
    """Have the chunks done, and tell how far it is."""
    if not parts:
        return []
    bar = tqdm(total=len(parts), unit="chunk", disable=silent)
    # Not pure: a chunk is known by its file, and the same chunk may have to be done again in another run.
    futures = client.map(tag_chunk, parts, key=[f"{task['analysis']}-{part.name}" for part in parts], pure=False, **task)
    rows: list[dict[str, Any]] = []
    try:
        for future in as_completed(futures, loop=client.loop):
            rows.append(future.result())
            bar.update()
            bar.set_postfix_str(f"{sum(row['jets'] for row in rows)} jets")
    except KilledWorker as error:
        raise SetupError(
            f"{error.allowed_failures + 1} workers died while they worked on {error.task}.",
            "Workers die when the machine has no memory left for them, or when a batch system ends their job.",
            "Give them more memory or longer jobs, and run the cell again: the chunks that are done stay done.",
        ) from error
    except BaseException as error:
        words = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        bar.write(f"{words}; what is done stays done, and the same call goes on from there")
        raise
    finally:
        client.cancel([future for future in futures if not future.done()], force=True)
        bar.close()
    return sorted(rows, key=lambda row: str(row["chunk"]))
