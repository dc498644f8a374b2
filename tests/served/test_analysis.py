"""The analysis at scale on a real server and real Dask workers: each jet once, also when workers, or all of it, are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import awkward as ak
import numpy as np
import psutil
import pytest
import uproot
from distributed import LocalCluster

from helpers import jets, paths
from helpers.client import Client
from helpers.errors import InputError, RequestError
from helpers.physics.flavour import Scores
from helpers.scaling import analysis
from helpers.scaling.analysis import Analysis, chunks, local_workers, replicate, tag_files
from helpers.server import Server
from tests.support.processes import PATIENCE_S, wait_until

MODEL = "particlenet_AK4"
N_JETS, CHUNK = 1200, 50


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return replicate("ak4", N_JETS, jets_per_file=500, folder=tmp_path_factory.mktemp("jets"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with local_workers(2) as made:
        yield made


@pytest.fixture(scope="module")
def direct(server: Server) -> np.ndarray:
    """The scores of the whole sample, asked for directly."""
    with Client(server) as client:
        return jets.Tagger(client, MODEL).tag(jets.read("ak4", stop=N_JETS)).probabilities


def _each_jet_once(done: Analysis, direct: np.ndarray, first: int = 0) -> None:
    assert done.check() == {"jets": len(direct), "lost": 0, "doubled": 0}
    ids, scores = done.scores()
    assert ids.tolist() == list(range(first, N_JETS))
    assert scores.labels == tuple(f"prob{name}" for name in jets.LABELS["ak4"])
    # Requests are cut otherwise, so the last digits may differ.
    assert np.abs(scores.probabilities - direct).max() < 1e-5


def _written(folder: Path) -> int:
    return len(list(folder.rglob("*.root")))


# --- files ---------------------------------------------------------------------------------------------------------------


def test_replicas_have_ids_and_events_of_their_own(tmp_path: Path) -> None:
    made = replicate("ak8", 2300, jets_per_file=1500, folder=tmp_path)
    assert [len(jets.read(path)) for path in made] == [1500, 800]
    together = ak.concatenate([jets.read(path) for path in made])
    assert ak.to_numpy(together["jet_id"]).tolist() == list(range(2300))
    sample = jets.read("ak8")
    for branch in ("jet_pt", "jet_label", "jet_class", "pfcand_dz", "sv_d3dsig"):
        assert ak.all(together[branch][2000:] == sample[branch][:300]), branch
    n_events = int(ak.max(sample["event"])) + 1
    assert ak.all(together["event"][2000:] == sample["event"][:300] + n_events)
    changed = made[0].stat().st_mtime_ns
    assert replicate("ak8", 2300, jets_per_file=1500, folder=tmp_path)[0].stat().st_mtime_ns == changed, "written once"


def test_chunks_cover_each_file_and_no_more(files: list[Path], tmp_path: Path) -> None:
    made = chunks(files, tmp_path, 150)
    assert [(Path(part.source).stem[-1], part.start, part.stop) for part in made[:4]] == [
        ("0", 0, 150), ("0", 150, 300), ("0", 300, 450), ("0", 450, 500)
    ]  # fmt: skip
    assert sum(map(len, made)) == N_JETS and len({part.target for part in made}) == len(made)
    read = jets.read(made[3].source, made[3].start, made[3].stop)
    assert ak.to_numpy(read["jet_id"]).tolist() == list(range(450, 500))


def test_a_file_of_scores_is_there_whole_or_not_at_all(files: list[Path], tmp_path: Path) -> None:
    chunk = chunks(files, tmp_path, 100)[1]
    sample = jets.read(chunk.source, chunk.start, chunk.stop)
    scores = Scores(MODEL, ("probb", "probc"), np.zeros((100, 2), np.float32))
    with pytest.raises(ValueError):
        analysis.write_scores(chunk, sample[:50], scores)
    assert not chunk.done and list(tmp_path.iterdir()) == []
    analysis.write_scores(chunk, sample, scores)
    assert chunk.done
    with uproot.open(chunk.target) as file:
        assert file[analysis.SCORES][analysis.ID].array().tolist() == list(range(100, 200))


def test_scores_are_older_than_new_jets(files: list[Path], tmp_path: Path) -> None:
    """A file of jets that is written again is tagged again."""
    chunk = chunks(files, tmp_path, 100)[1]
    sample = jets.read(chunk.source, chunk.start, chunk.stop)
    analysis.write_scores(chunk, sample, Scores(MODEL, ("probb",), np.zeros((100, 1), np.float32)))
    old = Path(chunk.source).stat().st_mtime
    os.utime(chunk.target, (old - 1, old - 1))
    assert not chunk.done


def test_faults_are_named_before_anything_is_sent(tmp_path: Path) -> None:
    def call(given: object) -> None:
        tag_files(given, "tcp://127.0.0.1:9", "localhost:9", MODEL, output=tmp_path)  # type: ignore[arg-type]

    with pytest.raises(InputError, match="no tree Jets with a branch jet_id"):
        call([paths.root() / "notebooks" / "data" / "jets_ak4.root"])
    with uproot.recreate(tmp_path / "other.root") as file:
        file.mktree("Events", {"x": np.arange(3)})
    with pytest.raises(InputError, match="has no tree Jets"):
        call([tmp_path / "other.root"])


# --- the analysis ----------------------------------------------------------------------------------------------------------


@pytest.mark.nightly
def test_a_killed_worker_costs_nothing(
    server: Server, files: list[Path], cluster: LocalCluster, direct: np.ndarray, tmp_path: Path
) -> None:
    result: list[Analysis] = []
    run = threading.Thread(target=lambda: result.append(tag_files(files, cluster, server, MODEL, output=tmp_path, jets_per_chunk=CHUNK)))
    victim = cluster.workers[0].pid
    run.start()
    wait_until(lambda: _written(tmp_path) >= 3)
    to_server = [c for c in psutil.Process(victim).net_connections() if c.raddr and c.raddr.port == server.grpc.port]
    assert len(to_server) == 1, "one connection for each worker, whatever the number of tasks"
    os.kill(victim, signal.SIGKILL)
    assert _written(tmp_path) < N_JETS // CHUNK, "it was killed in the middle"
    run.join(PATIENCE_S)
    (done,) = result
    _each_jet_once(done, direct)
    assert cluster.workers[0].pid != victim, "another worker took its place"


KILLED = """
import sys
from helpers.scaling.analysis import tag_files
scheduler, server, output, *files = sys.argv[1:]
tag_files(files, scheduler, server, {model!r}, output=output, jets_per_chunk={chunk})
"""


def _certificates(cluster: LocalCluster) -> dict[str, str]:
    """The variables by which a Dask client in another process of the same person is let in."""
    files = {"CA_FILE": "ca_file", "CLIENT__CERT": "cert", "CLIENT__KEY": "key"}
    own = cluster.security.get_tls_config_for_role("client")
    return {f"DASK_DISTRIBUTED__COMM__TLS__{name}": own[field] for name, field in files.items()}


@pytest.mark.slow
def test_a_killed_analysis_goes_on_where_it_was(
    server: Server, files: list[Path], cluster: LocalCluster, direct: np.ndarray, tmp_path: Path
) -> None:
    script = KILLED.format(model=MODEL, chunk=CHUNK)
    command = [sys.executable, "-c", script, cluster.scheduler_address, server.grpc_url, str(tmp_path), *map(str, files)]
    process = subprocess.Popen(command, cwd=paths.root(), env={**os.environ, **_certificates(cluster)})
    wait_until(lambda: _written(tmp_path) >= 3)
    process.kill()
    process.wait()
    wait_until(lambda: not any(cluster.scheduler.tasks))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.root")}
    assert len(before) < N_JETS // CHUNK
    done = tag_files(files, cluster, server, MODEL, output=tmp_path, jets_per_chunk=CHUNK)
    # Each of the two workers may have finished the chunk that it had in hand.
    assert 0 <= N_JETS - CHUNK * len(before) - done.tagged <= 2 * CHUNK
    assert all(path.stat().st_mtime_ns == changed for path, changed in before.items()), "what was done stays as it is"
    _each_jet_once(done, direct)
    again = tag_files(files, cluster, server, MODEL, output=tmp_path, jets_per_chunk=CHUNK)
    assert again.tagged == 0 and "1200 were tagged before" in repr(again)
    longer = tag_files(files[-1:], cluster, server, MODEL, output=tmp_path, jets_per_chunk=1000)
    assert longer.tagged == 200, "the same jets in other chunks are another analysis"


@pytest.mark.slow
def test_a_server_that_is_gone_is_asked_again_and_then_named(
    cluster: LocalCluster,
    files: list[Path],
    tmp_path: Path,
    free_base_port: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(analysis, "RETRIES", 1)
    begin = time.monotonic()
    nowhere = f"localhost:{free_base_port()}"
    with pytest.raises(RequestError, match="cannot be reached"):
        tag_files(files[-1:], cluster, nowhere, MODEL, output=tmp_path, jets_per_chunk=400)
    assert time.monotonic() - begin >= 2 * analysis.RETRY_WAIT_S
    assert _written(tmp_path) == 0


@pytest.mark.slow
def test_the_same_call_runs_on_a_scheduler_and_workers_elsewhere(
    server: Server, files: list[Path], direct: np.ndarray, tmp_path: Path
) -> None:
    """What a batch system starts: a scheduler and workers, each a process of its own."""
    address = tmp_path / "scheduler.json"
    quiet = {"cwd": tmp_path, "stderr": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    here = ["--scheduler-file", str(address), "--host", "127.0.0.1", "--no-dashboard"]
    program = [sys.executable, "-m"]
    scheduler = subprocess.Popen([*program, "distributed.cli.dask_scheduler", "--port", "0", *here], **quiet)  # type: ignore[call-overload]
    worker = subprocess.Popen([*program, "distributed.cli.dask_worker", "--nthreads", "2", "--no-nanny", *here], **quiet)  # type: ignore[call-overload]
    try:
        wait_until(lambda: address.is_file() and address.read_text())  # it is made before it is written
        found = json.loads(address.read_text())["address"]
        done = tag_files(files[-1:], found, server, MODEL, output=tmp_path / "scores", jets_per_chunk=100)
    finally:
        for process in (worker, scheduler):
            process.terminate()
            process.wait(PATIENCE_S)
    assert done.workers["chunks"].tolist() == [2]
    _each_jet_once(done, direct[-200:], first=N_JETS - 200)


@pytest.fixture
def interrupts_as_before() -> Iterator[None]:
    """Importing dask_jobqueue makes Ctrl-C end the process, in every test after this one."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts_as_before")
def test_batch_systems_give_clusters_of_the_same_kind(tmp_path: Path) -> None:
    jobqueue = pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed")
    common = {"cores": 2, "processes": 1, "memory": "4GB", "interface": "lo", "scheduler_options": {"dashboard_address": "127.0.0.1:0"}}
    common |= {"security": True, "shared_temp_directory": str(tmp_path)}
    with jobqueue.SLURMCluster(queue="short", walltime="00:30:00", **common) as cluster:
        script = cluster.job_script()
        address = cluster.scheduler_address
    assert "#SBATCH -p short" in script and "#SBATCH -t 00:30:00" in script
    assert f"dask_worker {address}" in script and "--nthreads 2" in script and sys.executable in script
    assert address.startswith("tls://") and "--tls-cert" in script and str(tmp_path) in script
    with jobqueue.HTCondorCluster(disk="1GB", **common) as cluster:
        script = cluster.job_script()
        address = cluster.scheduler_address
    assert "MY.DaskWorkerCores = 2" in script and f"dask_worker {address}" in script
