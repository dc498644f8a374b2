"""What a Dask worker of an analysis does: keep one connection, and read, tag and write one chunk after the other."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

from distributed import Worker, WorkerPlugin, get_worker

from helpers.analysis_files import Chunk, write_scores
from helpers.client import Client
from helpers.client.client import where
from helpers.errors import CourseError, RequestError, ServerError
from helpers.physics import jets

# How often a chunk is tried again after its request failed, beyond the client's own repetitions, and the seconds before that, doubled
# each time: a server that is started again is back within a minute.
ANALYSIS_RETRIES, ANALYSIS_RETRY_WAIT_S = 4, 2.0


class Tagging(WorkerPlugin):
    """One connection for each worker, made when its first chunk comes, kept for all others, closed with the worker.

    Dask sets it up on every worker, also on those that come later, such as the one that replaces a killed worker.

    Args:
        name: of this analysis, by which its tasks find the connection.
        server: from :func:`destination`.
        model: the tagger.
        table: path of its ``preprocess.json``; by default the one beside the course's model of this name.
        options: further options of the client.
    """

    def __init__(self, name: str, server: Any, model: str, table: str | None, options: dict[str, Any]) -> None:
        self.name = name
        self._server, self._model, self._table, self._options = server, model, table, options

    def setup(self, worker: Worker) -> None:
        """A worker has begun."""
        self._lock = threading.Lock()
        self._tagger: jets.Tagger | None = None

    def teardown(self, worker: Worker) -> None:
        """A worker ends, or the analysis does."""
        with self._lock:
            tagger, self._tagger = self._tagger, None
        if tagger is not None:
            tagger.client.close()

    def tagger(self) -> jets.Tagger:
        """The tagger of this worker; its threads share it."""
        with self._lock:
            if self._tagger is None:
                client = Client(self._server, **self._options)
                try:
                    self._tagger = jets.Tagger(client, self._model, self._table)
                except BaseException:
                    client.close()
                    raise
            return self._tagger


def destination(server: Any) -> Any:
    """A server as it travels to a worker: where it is for gRPC and, if it wants one, the token; nothing else of it."""
    if isinstance(server, str):
        return server
    protocol, address = where(server, None)
    access = {"access": server.access} if hasattr(server, "access") else {}
    return SimpleNamespace(**{protocol: address}, **access)


def tag_chunk(chunk: Chunk, analysis: str, how: dict[str, Any], attempts: int) -> dict[str, Any]:
    """Read, tag and write one chunk; the task of an analysis.

    Args:
        chunk: which.
        analysis: name of the plugin with the connection.
        how: options for :meth:`helpers.physics.jets.Tagger.tag`.
        attempts: how often to try when the server does not answer; the waits between get longer.

    Returns:
        A row of the analysis's table.

    Raises:
        CourseError: it could not be done, and trying again did not help.
    """
    worker = get_worker()
    row = {"chunk": chunk.name, "jets": len(chunk), "requests": 0, "seconds": 0.0, "worker": worker.name, "tries": 0}
    if chunk.done:
        # A worker that died after writing took only the news with it.
        return row
    plugin = worker.plugins[analysis]
    begin = time.perf_counter()
    failure: CourseError | None = None
    for attempt in range(attempts):
        if failure is not None:
            time.sleep(ANALYSIS_RETRY_WAIT_S * 2 ** (attempt - 1))
        try:
            sample = jets.read(chunk.source, chunk.start, chunk.stop)
            scores = plugin.tagger().tag(sample, **how)
            write_scores(chunk, sample, scores)
            return {**row, "requests": scores.requests, "seconds": round(time.perf_counter() - begin, 3), "tries": attempt + 1}
        except CourseError as error:
            # Alone: what caused it holds connections, which cannot travel to the one who asked.
            failure = type(error)(error.happened, error.expected, error.todo)
            if not isinstance(error, (RequestError, ServerError)):
                break
    assert failure is not None
    raise failure
