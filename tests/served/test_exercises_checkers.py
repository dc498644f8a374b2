"""Each checker against the real server, with right, wrong and untouched answers."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests

from helpers import paths
from helpers.client import Client, http
from helpers.client.endpoint import Address
from helpers.course import ____
from helpers.course.checks import basics
from helpers.course.judge import Kind
from helpers.errors import CourseError, ModelError
from helpers.metrics import Snapshot, scrape
from helpers.physics import tracks
from helpers.server import Server, connect, launch_server
from tests.support.judging import is_judged as _is
from tests.support.logs import logged

pytestmark = pytest.mark.slow

ONES = [1.0] * 16


@pytest.fixture(scope="module")
def small(free_base_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a repository of its own, a copy of add_sub, so that the checkers may load and unload."""
    repository = tmp_path_factory.mktemp("checkers") / "models"
    shutil.copytree(paths.models_dir() / "add_sub", repository / "add_sub")
    with launch_server(repository, base_port=free_base_port(), name="checkers") as running:
        yield running


def _send(server: Server, times: int) -> None:
    with Client(server) as client:
        for _ in range(times):
            client.infer("add_sub", INPUT0=ONES, INPUT1=ONES)


@pytest.fixture
def before(small: Server) -> Snapshot:
    """The counters now."""
    return scrape(small)


def _dead_server() -> Server:
    """A server object at whose address nothing answers."""
    return Server(*(_address(port) for port in (1030, 1031, 1032)))


def _address(port: int) -> Any:
    return Address("localhost", port)


# --- notebook 00 -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (91, Kind.CORRECT, "91.19 GeV"),
        (91.0, Kind.CORRECT, "91.19 GeV"),
        ("91", Kind.CORRECT, "91.19 GeV"),
        (np.float32(91), Kind.CORRECT, "91.19 GeV"),
        (80, Kind.NOT_YET, "W boson"),
        (91.19, Kind.CORRECT, "91.19 GeV"),
        (80.4, Kind.NOT_YET, "W boson"),
        (125, Kind.NOT_YET, "Higgs"),
        (91188, Kind.NOT_YET, "MeV"),
        (90, Kind.NOT_YET, "another mass"),
        (-91, Kind.NOT_YET, "another mass"),
        ("ninety-one", Kind.NOT_YET, "should be one number"),
        (None, Kind.NOT_YET, "should be one number"),
        (____, Kind.NOT_ATTEMPTED, "blank"),
    ],
)
def test_0_1_mass(answer: Any, kind: Kind, words: str) -> None:
    _is("0.1", kind, words, answer)


@pytest.mark.parametrize(
    ("sent", "kind", "words"),
    [
        (3, Kind.CORRECT, "rose by 3"),
        (2, Kind.NOT_YET, "rose by 2"),
        (4, Kind.NOT_YET, "rose by 4"),
        (0, Kind.NOT_YET, "answered no request"),
    ],
)
def test_0_2_three_requests(small: Server, before: Snapshot, sent: int, kind: Kind, words: str) -> None:
    _send(small, sent)
    _is("0.2", kind, words, small, before)


def test_0_2_a_request_that_failed_does_not_count(small: Server, before: Snapshot) -> None:
    _send(small, 2)
    with pytest.raises(CourseError):
        http.ask(small.http, "/v2/models/add_sub/infer", {"inputs": []})
    _is("0.2", Kind.NOT_YET, "rose by 2", small, before)


def test_counters_cannot_tell_without_a_server_a_snapshot_or_after_a_restart(small: Server, before: Snapshot) -> None:
    _is("0.2", Kind.CANNOT_TELL, "needs `server`", "localhost:9000", before)
    _is("0.2", Kind.CANNOT_TELL, "does not answer", _dead_server(), before)
    _is("0.2", Kind.CANNOT_TELL, "needs `before`", small, 3)
    _is("0.2", Kind.NOT_ATTEMPTED, "blank", small, ____)
    _send(small, 3)
    later = scrape(small)
    _is("0.2", Kind.CANNOT_TELL, "restarted", small, _grown(later))


def _grown(snapshot: Snapshot) -> Snapshot:
    """The same snapshot with counters that are higher than a fresh server's."""
    return dataclasses.replace(snapshot, samples=tuple(dataclasses.replace(s, value=s.value + 1000) for s in snapshot.samples))


# --- notebook 01 -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def unloaded(small: Server) -> Iterator[Server]:
    """The server while add_sub is out of service."""
    small.unload("add_sub")
    while "UNLOADING" in [model.state for model in small.models()]:
        time.sleep(0.05)
    yield small
    small.load("add_sub")


def _says(server: Server, path: str) -> bool:
    return requests.get(f"http://{server.http_url}/v2/{path}", timeout=10).status_code == 200


def test_1_1_the_right_question(unloaded: Server) -> None:
    def status(model: str) -> int:
        return requests.get(f"http://{unloaded.http_url}/v2/models/{model}/ready", timeout=10).status_code

    _is("1.1", Kind.CORRECT, "no, yes and no", unloaded, lambda model: status(model) == 200)
    assert not _says(unloaded, "models/add_sub/ready"), "the check leaves it as it was"
    always = "`add_sub` is out of service, and your function says True"
    _is("1.1", Kind.NOT_YET, always, unloaded, lambda model: _says(unloaded, "health/ready"))
    _is("1.1", Kind.NOT_YET, "`add_sub` is out of service", unloaded, lambda model: _says(unloaded, "health/live"))
    _is("1.1", Kind.NOT_YET, "`add_sub` serves, and your function says False", unloaded, lambda model: False)
    _is("1.1", Kind.NOT_YET, "no model `muons`", unloaded, lambda model: model == "muons")
    _is("1.1", Kind.NOT_YET, "compare the status code with 200", unloaded, status)
    _is("1.1", Kind.NOT_YET, "type `Response`", unloaded, lambda model: requests.get(f"http://{unloaded.http_url}/v2", timeout=10))
    _is("1.1", Kind.NOT_YET, "nothing (`None`)", unloaded, lambda model: None)
    _is("1.1", Kind.NOT_YET, "Expected the function", unloaded, status("add_sub"))
    _is("1.1", Kind.NOT_ATTEMPTED, "blank", unloaded, ____)


def test_1_1_cannot_tell_while_the_model_serves_or_the_server_is_down(small: Server) -> None:
    _is("1.1", Kind.CANNOT_TELL, "in service", small, bool)
    _is("1.1", Kind.CANNOT_TELL, "does not answer", _dead_server(), bool)


def test_1_2_log(small: Server) -> None:
    logged(small, "successfully loaded 'add_sub'")
    log = small.log(0)
    times = [re.search(rf"^I\d+ \d+:(\d+):([\d.]+) .*{words}", log, re.MULTILINE) for words in ("loading: add_sub", "successfully loaded")]
    begin, end = (60 * int(match[1]) + float(match[2]) for match in times if match)
    took = (end - begin) % 3600
    right = {"loading_s": took, "instances": 1, "metrics_port": small.metrics.port}
    _is("1.2", Kind.CORRECT, f"port {small.metrics.port}", small, right)
    _is("1.2", Kind.CORRECT, "1 instance", small, {**right, "loading_s": round(took, 1), "metrics_port": str(small.metrics.port)})
    _is("1.2", Kind.NOT_YET, "milliseconds", small, {**right, "loading_s": took * 1000})
    for wrong in (took + 0.2, took - 0.2, took + 5, round(took) + 1):
        _is("1.2", Kind.NOT_YET, "Compare the lines", small, {**right, "loading_s": wrong})
    _is("1.2", Kind.NOT_YET, "Count only the lines", small, {**right, "instances": 2})
    _is("1.2", Kind.NOT_YET, "Look for `Started Metrics Service`", small, {**right, "metrics_port": small.http.port})
    _is("1.2", Kind.NOT_YET, "should be one number", small, {**right, "loading_s": "long"})
    _is("1.2", Kind.NOT_ATTEMPTED, "blank", small, {**right, "instances": ____})
    _is("1.2", Kind.CANNOT_TELL, "does not show", connect(small.http_url), right)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"runtime": "docker", "base_port": 9307}, Kind.CORRECT, "HTTP on port 9307, gRPC on 9308"),
        ({"runtime": "docker", "base_port": "9307"}, Kind.CORRECT, "metrics on 9309"),
        ({"runtime": "docker", "base_port": 9300}, Kind.NOT_YET, "HTTP gets 9300, and a colleague has that"),
        ({"runtime": "docker", "base_port": 9303}, Kind.NOT_YET, "gRPC gets 9304, and a colleague"),
        ({"runtime": "docker", "base_port": 9306}, Kind.NOT_YET, "HTTP gets 9306, and a colleague"),
        ({"runtime": "docker", "base_port": 9308}, Kind.NOT_YET, "metrics gets 9310, and this node does not"),
        ({"runtime": "docker", "base_port": 9000}, Kind.NOT_YET, "HTTP gets 9000, and this node does not"),
        ({"runtime": "apptainer", "base_port": 9307}, Kind.NOT_YET, "This node has `docker`"),
        ({"runtime": "podman", "base_port": 9307}, Kind.NOT_YET, "This node has `docker`"),
        ({"runtime": "Docker", "base_port": 9307}, Kind.NOT_YET, "small letters"),
        ({"runtime": "docker", "base_port": "many"}, Kind.NOT_YET, "whole number"),
        ({"runtime": ____, "base_port": ____}, Kind.NOT_ATTEMPTED, "2 blanks"),
    ],
)
def test_1_3_command(options: Any, kind: Kind, words: str) -> None:
    _is("1.3", kind, words, options)


# --- notebook 02 -----------------------------------------------------------------------------------------------------------


def test_2_1_filled_in(small: Server) -> None:
    right = {"instances": 1, "file": "model.py", "versions": 1}
    _is("2.1", Kind.CORRECT, "Nobody wrote", small, right)
    _is("2.1", Kind.CORRECT, "Nobody wrote", small, {**right, "file": "1/model.py", "versions": "1"})
    _is("2.1", Kind.NOT_YET, "`instances`", small, {**right, "instances": 2})
    _is("2.1", Kind.NOT_YET, "`versions` should be one number", small, {**right, "versions": "latest"})
    _is("2.1", Kind.NOT_YET, "default_model_filename", small, {**right, "file": "config.pbtxt"})
    _is("2.1", Kind.NOT_ATTEMPTED, "3 blanks", small, dict.fromkeys(right, ____))
    _is("2.1", Kind.CANNOT_TELL, "does not answer", _dead_server(), right)


def test_2_2_both_versions(small: Server) -> None:
    assert small.repository is not None
    _is("2.2", Kind.CANNOT_TELL, "shutil.copytree", small, "version_policy { all { } }")
    shutil.copytree(small.repository / "add_sub" / "1", small.repository / "add_sub" / "2")
    new = small.repository / "add_sub" / "2" / "model.py"
    new.write_text(new.read_text().replace("left - right", "right - left"))
    _is("2.2", Kind.NOT_ATTEMPTED, "blank", small, ____)
    _is("2.2", Kind.NOT_ATTEMPTED, "blank", small, "version_policy { ____ }")
    _is("2.2", Kind.NOT_YET, "quotes", small, 2)
    _is("2.2", Kind.NOT_YET, "keeps serving", small, "version_policy { everything { } }")
    _is("2.2", Kind.NOT_YET, "keeps serving", small, "version_policy: all")
    _is("2.2", Kind.NOT_YET, "only version 2", small, "version_policy { latest { num_versions: 1 } }")
    _is("2.2", Kind.CORRECT, "version 1 answers 3, and version 2 answers -3", small, "version_policy { all { } }")
    _is("2.2", Kind.CORRECT, "side by side", small, "version_policy { latest { num_versions: 2 } }")
    shutil.rmtree(small.repository / "add_sub" / "2")
    small.load("add_sub")


def _solution_file(name: str) -> str:
    """A file that the solution of 2.3, or the cell before it, writes."""
    cells = json.loads((paths.root() / "notebooks" / "solutions" / "02_inspect_the_model_repository.ipynb").read_text())["cells"]
    text = next("".join(cell["source"]) for cell in cells if "".join(cell["source"]).startswith(f"%%writefile {{folder}}/{name}"))
    return text.partition("\n")[2]


def test_2_3_mass(small: Server) -> None:
    assert small.repository is not None
    folder = small.repository / "dimuon_mass"
    right = "np.sqrt(2 * pt[:, 0] * pt[:, 1] * (np.cosh(d_eta) - np.cos(d_phi)))"
    code = _solution_file("1/model.py")
    assert right in code
    masses = basics._formulas(tracks.muon_pairs())["right"].astype(np.float32)
    counts = np.histogram(masses, np.arange(121))[0]
    assert counts.argmax() == 9 and 88 <= 40 + counts[40:].argmax() <= 94, "the two peaks are there to be seen"
    found = masses, 9.5
    _is("2.3", Kind.NOT_ATTEMPTED, "blank", small, *found)
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(_solution_file("config.pbtxt"))
    (folder / "1" / "model.py").write_text(code.replace(right, "____"))
    _is("2.3", Kind.NOT_ATTEMPTED, "blank", small, *found)
    (folder / "1" / "model.py").write_text(code)
    _is("2.3", Kind.NOT_YET, "has not loaded", small, *found)
    # A model that reads its formula for each request is loaded once for all of them.
    (folder / "1" / "model.py").write_text(code.replace(right, f"eval(open({str(folder / 'formula')!r}).read())"))
    (folder / "formula").write_text(right)
    small.load("dimuon_mass")
    for formula, kind, words in (
        (right, Kind.CORRECT, "2000 masses, as NumPy has them"),
        (right.replace("np.cosh(d_eta) - np.cos(d_phi)", "np.cosh(d_phi) - np.cos(d_eta)"), Kind.NOT_YET, "swapped"),
        (right.removeprefix("np.sqrt"), Kind.NOT_YET, "square root"),
        (right.replace("2 * ", ""), Kind.NOT_YET, "factor 2"),
        ("pt[:, 0] + pt[:, 1]", Kind.NOT_YET, "those of NumPy with"),
        ("np.nonsense(pt)", Kind.NOT_YET, "nonsense"),
    ):
        (folder / "formula").write_text(formula)
        _is("2.3", kind, words, small, *found)
    (folder / "formula").write_text(right)
    # A file that cannot be loaded: the model from before goes on serving, and its mistakes are old news.
    (folder / "1" / "model.py").write_text(code.replace("import numpy as np", "import numpyy as np"))
    with pytest.raises(ModelError, match="numpyy"):
        small.load("dimuon_mass")
    _is("2.3", Kind.NOT_YET, "refused your last load", small, *found)
    (folder / "1" / "model.py").write_text(code)
    small.load("dimuon_mass")
    for peak in (9.46, 9.5, "9", 10):
        _is("2.3", Kind.CORRECT, "the Υ", small, masses, peak)
    for wrong, words in {91.2: "That is the Z boson", 9460: "in MeV", 30: "high above their neighbours", None: "`None`"}.items():
        _is("2.3", Kind.NOT_YET, words, small, masses, wrong)
    for given in ({"MASS": masses}, masses[:64], 1000 * masses):
        _is("2.3", Kind.NOT_YET, "not the 2000 masses of `tracks.muon_pairs()`", small, given, 9.5)
    _is("2.3", Kind.CANNOT_TELL, "does not answer", _dead_server(), *found)
    small.unload("dimuon_mass")
    shutil.rmtree(folder)


# --- notebook 03 -----------------------------------------------------------------------------------------------------------


def test_3_1_another_machine() -> None:
    ways = ["JSON", "HTTP", "gRPC", "compressed", "shared memory"]
    seen = pd.DataFrame({"median": [900.0, 60.0, 50.0, 70.0, 40.0], "MB": [5.3, 4.2, 4.2, 0.2, 0.0]}, index=ways)
    there, order = seen["median"] + 8 * seen["MB"], ["shared memory", "gRPC", "HTTP", "compressed", "JSON"]
    right = "By `compressed` it would take 71.6 ms, and 70 ms here. Of the 10 pairs in the order that you predicted, 10 came out so."
    _is("3.1", Kind.CORRECT, right, seen, order, there, "compressed")
    _is("3.1", Kind.CORRECT, "predicted, 0 came out so", seen, order[::-1], dict(there), "compressed")
    _is("3.1", Kind.NOT_YET, "`predicted` does not name each", seen, order[1:], there.to_dict(), "compressed")
    _is("3.1", Kind.NOT_ATTEMPTED, "2 blanks", seen, order, ____, ____)
    _is("3.1", Kind.NOT_YET, "`MB / 125` seconds, in ms", seen, order, seen["median"] + seen["MB"] / 125, "compressed")
    _is("3.1", Kind.NOT_YET, "add what the request takes here", seen, order, 8 * seen["MB"], "compressed")
    _is("3.1", Kind.NOT_YET, "in seconds", seen, order, there / 1000, "compressed")
    _is("3.1", Kind.NOT_YET, "has no `HTTP`", seen, order, there.drop("HTTP"), "compressed")
    for nothing in (7.0, None, [1, 2, 3]):
        _is("3.1", Kind.NOT_YET, "`there_ms` has no `JSON`", seen, order, nothing, "compressed")
    _is("3.1", Kind.NOT_YET, "ends where the machine ends", seen, order, there, "shared memory")
    _is("3.1", Kind.NOT_YET, "By `gRPC` it takes 83.6 ms there", seen, order, there, "gRPC")
    _is("3.1", Kind.NOT_YET, "Expected one of 'JSON'", seen, order, there, 71.6)
    _is("3.1", Kind.CANNOT_TELL, "needs `seen`", None, order, there, "compressed")
    _is("3.1", Kind.CANNOT_TELL, "stumbled", seen.drop(columns="MB"), order, there, "compressed")


def test_3_2_hot_tower(small: Server) -> None:
    generator = np.random.default_rng(seed=7)
    hcal = np.ones(16, dtype=np.float32)
    events = generator.exponential(20, (100, 16)).astype(np.float32)
    events[42, 7] = 500
    events[17] += 100
    stream = [{"INPUT0": energies, "INPUT1": hcal} for energies in events]
    with Client(small) as client:
        before = scrape(small)
        answers = client.infer_many("add_sub", stream, max_in_flight=4)
    _is("3.2", Kind.CORRECT, "501.0 GeV in tower 7", small, before, stream, answers, 42)
    _is("3.2", Kind.CORRECT, "number 42", small, before, stream, answers, np.int64(42))
    for wrong, words in (
        (43, "the hottest tower of all"),
        (7, "number of the tower"),
        (17, "the hottest tower of all"),
        ("all", "should be one number"),
    ):
        _is("3.2", Kind.NOT_YET, words, small, before, stream, answers, wrong)
    _is("3.2", Kind.NOT_YET, "not the sums", small, before, stream, answers[::-1], 42)
    _is("3.2", Kind.NOT_YET, "not the sums", small, before, stream, answers[:99], 42)
    _is("3.2", Kind.NOT_ATTEMPTED, "2 blanks", small, before, stream, ____, ____)
    _send(small, 1)
    _is("3.2", Kind.NOT_YET, "counted 101 requests", small, before, stream, answers, 42)


def test_3_3_mended(small: Server) -> None:
    ecal, hcal = np.linspace(1, 40, 16).astype(np.float32), np.ones(16, dtype=np.float32)
    good = {"name": "INPUT0", "shape": [16], "datatype": "FP32", "data": ecal.tolist()}
    second = {"name": "INPUT1", "shape": [16], "datatype": "FP32", "data": hcal.tolist()}

    def answer(**changes: Any) -> tuple[Any, ...]:
        return small, {"inputs": [{**good, **changes}, second]}, ecal, hcal

    _is("3.3", Kind.CORRECT, "16 sums", *answer())
    _is("3.3", Kind.NOT_YET, "unexpected inference input 'INPUT_0'", *answer(name="INPUT_0"))
    _is("3.3", Kind.NOT_YET, "Expected [16], got [1,16]", *answer(shape=[1, 16]))
    _is("3.3", Kind.NOT_YET, "FP64", *answer(datatype="FP64"))
    _is("3.3", Kind.NOT_YET, "other sums", *answer(data=hcal.tolist()))
    _is("3.3", Kind.NOT_YET, "cannot be written as JSON", *answer(data=ecal))
    _is("3.3", Kind.NOT_ATTEMPTED, "blank", small, {"inputs": [____, second]}, ecal, hcal)
    _is("3.3", Kind.CANNOT_TELL, "does not answer", _dead_server(), {"inputs": [good, second]}, ecal, hcal)


@pytest.mark.parametrize(
    ("ratios", "judged", "words"),
    [
        ((1.2, 1.1, 1.3), "faster", "Faster. Of 3 ratios, 3 are above 1: from 1.10 to 1.30. Triton's counters say 1.00 jets"),
        ((0.5, 0.9, 0.8), "slower", "Slower."),
        ((0.5, 1.1, 0.8), "Cannot tell", "Cannot tell. Of 3 ratios, 1 are above 1"),
    ],
)
def test_3_4_rates_are_judged_turn_by_turn(server: Server, ratios: tuple[float, ...], judged: str, words: str) -> None:
    before, turns = scrape(server), [{("Triton", 8): 100 * ratio, ("web", 8): 100.0} for ratio in ratios]
    _is("3.4", Kind.CANNOT_TELL, "has seen 0 requests", server, before, turns, judged)
    with Client(server) as client:
        client.infer("particlenet_AK4", client.example("particlenet_AK4"))
    _is("3.4", Kind.CORRECT, words, server, before, turns, judged)
    _is("3.4", Kind.NOT_YET, "Expected one of", server, before, turns, "the same")
    _is("3.4", Kind.NOT_YET, "so the answer is not", server, before, turns, "slower" if judged == "faster" else "faster")
    _is("3.4", Kind.NOT_ATTEMPTED, "blank", server, before, turns, ____)


def test_1_4_brought_back(small: Server) -> None:
    """The last test here: it kills the server."""
    dead_pid = small.pid
    assert dead_pid is not None
    os.kill(dead_pid, signal.SIGKILL)
    while small.state() == "running":
        time.sleep(0.05)
    _is("1.4", Kind.NOT_YET, "it is dead", small, dead_pid)
    _is("1.4", Kind.NOT_YET, "without its brackets", small.restart, dead_pid)
    _is("1.4", Kind.NOT_YET, "nothing (`None`)", None, dead_pid)
    _is("1.4", Kind.NOT_YET, "type `str`", "started", dead_pid)
    _is("1.4", Kind.NOT_ATTEMPTED, "blank", ____, dead_pid)
    with small.restart() as revived:
        _is("1.4", Kind.CORRECT, "counter stands at 0", revived, dead_pid)
