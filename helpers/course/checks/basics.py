"""Checkers of notebooks 00 to 03: launch a server, look into its models, send requests."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers.client import Client, http
from helpers.course import judge
from helpers.course.cells import BLANK
from helpers.course.judge import NotAttempted, NotYet, counted, must, must_be, must_be_number, must_be_one_of, must_be_right, needs
from helpers.errors import ConfigError, CourseError, ModelError, RequestError
from helpers.measuring.statistics import CANNOT_TELL, FASTER, SLOWER
from helpers.metrics import Snapshot, scrape
from helpers.server import Server

# Exercise 1.3: the ports that the node lets through, and those that two colleagues have.
_OPEN, _TAKEN = range(9300, 9310), (*range(9300, 9303), *range(9304, 9307))
# Relative difference from NumPy that 32-bit floats may have; the mass of two nearly parallel muons loses digits.
_SAME: dict[str, Any] = {"rtol": 2e-3, "atol": 1e-2}
# Pairs in the check's own request: as many as the model takes.
_EVENTS = 50
# The Υ in GeV, and how far from it one may read a histogram with bins of 1 GeV.
_UPSILON, _BINS = 9.46, 0.6
# What a network of 1 Gbit/s needs for a megabyte, and the way that ends with the machine.
_MS_PER_MB, _HERE_ALONE = 8.0, "shared memory"


def _ready(server: Server) -> list[str]:
    return [each.name for each in server.models() if each.state == "READY"]


def _check_0_1(z_mass: Any) -> str:
    slips = {"That is the W boson": 80, "That is the Higgs boson": 125, "That is in MeV; we asked for GeV": 91_188}
    must_be_right("z_mass", z_mass, 91, slips, "That is another mass", relative=0.006)
    return "91 GeV; measured precisely, 91.19 GeV. Now you know how a check looks. The next ones ask your server."


def _check_0_2(server: Server, before: Snapshot) -> str:
    seen, *_ = counted(server, before, "add_sub")
    must(seen, "The server has answered no request since `before`. Send three in the cell above, below its first line.")
    must(seen == 3, f"The counter rose by {seen}, not by 3. Run the whole cell again, so that `before` is read again, too.")
    return "The server's own counter rose by 3. It was really you, and it was really three."


def _check_1_1(server: Server, may_send: Any) -> str:
    must_be("may_send", may_send, Callable, "the function, without brackets")
    needs("add_sub" not in _ready(server), "`add_sub` is in service. Run the cell with `server.unload` again, then this one.")

    def must_say(right: bool, model: str, fact: str) -> None:
        given = may_send(model)
        must_be("may_send(...)", given, bool, "True or False: compare the status code with 200")
        must(given == right, f"{fact}, and your function says {given}. Which of the three questions is about the one model asked for?")

    must_say(False, "add_sub", "`add_sub` is out of service")
    must_say(False, "muons", "There is no model `muons`")
    server.load("add_sub")
    try:
        must_say(True, "add_sub", "`add_sub` serves")
    finally:
        server.unload("add_sub")
    return "It says no, yes and no, as it should. A server can be alive and ready, and still not have the model that you need."


def _check_1_2(server: Server, report: Any) -> str:
    pattern = r"^I\d{4} (\S+) [^\n]*loading: add_sub(.*?)^I\d{4} (\S+) [^\n]*successfully loaded 'add_sub'"
    if (first := re.search(pattern, server.log(0), re.MULTILINE | re.DOTALL)) is None:
        raise CourseError("The log does not show how `add_sub` was loaded. Type `server = server.restart()`, and read its log again.")
    begin, end = (datetime.strptime(first[group], "%H:%M:%S.%f") for group in (1, 3))
    # The log has no year and no zone; a loading over midnight would look negative.
    seconds = ((end - begin) % timedelta(days=1)).total_seconds()
    # People read it to a tenth of a second; either clock may be rounded.
    lines = "Compare the lines `loading: add_sub` and `successfully loaded`, to a tenth of a second"
    must_be_right("loading_s", report["loading_s"], seconds, otherwise=lines, unit="s", absolute=0.06)
    instances, port = first[2].count("ModelInstanceInitialize: add_sub"), server.metrics.port
    count = "Count only the lines `ModelInstanceInitialize` before the first `successfully loaded`"
    must_be_right("instances", report["instances"], instances, otherwise=count, relative=0)
    must_be_right("metrics_port", report["metrics_port"], port, otherwise="Look for `Started Metrics Service`", relative=0)
    return f"{seconds:.1f} s, {instances} instance, metrics on port {port}. The expert thanks you and goes back to sleep."


def _check_1_3(options: Any) -> str:
    must(options["runtime"] == "docker", f"The runtime is `{options['runtime']!r}`. This node has `docker`, in small letters.")
    base = int(must_be_number("base_port", options["base_port"], "a whole number"))
    for service, port in {"HTTP": base, "gRPC": base + 1, "metrics": base + 2}.items():
        must(port not in _TAKEN, f"With base port {base}, {service} gets {port}, and a colleague has that.")
        must(port in _OPEN, f"With base port {base}, {service} gets {port}, and this node does not let it through.")
    return f"Docker, with HTTP on port {base}, gRPC on {base + 1} and metrics on {base + 2}: all three can work."


def _check_1_4(revived: Any, dead_pid: Any) -> str:
    must_be("revived", revived, Server, "the new server, which `restart()` returns")
    dead = f"`revived` is the server with pid {revived.pid}, and it is dead. Its card says what to type."
    must(revived.pid != dead_pid and revived.is_alive(), dead)
    counter = scrape(revived).value(judge.SUCCESS, model="add_sub")
    return f"Process {dead_pid} is gone, process {revived.pid} serves, and its counter stands at {counter:.0f}."


def _check_2_1(server: Server, found: Any) -> str:
    config = server.config("add_sub")
    instances, versions = sum(group["count"] for group in config["instance_group"]), config["version_policy"]["latest"]["num_versions"]
    for name, right, place in (("instances", instances, "count"), ("versions", versions, "num_versions")):
        must_be_right(name, found[name], right, otherwise=f"The server reports another number. Look for `{place}`", relative=0)
    file = str(found["file"]).endswith(config["default_model_filename"])
    must(file, f"For `file` you have `{found['file']!r}`. Look for `default_model_filename`.")
    return "One instance, `model.py`, and one version at a time. Nobody wrote these three; the server did."


def _check_2_2(server: Server, line: Any) -> str:
    must_be("line", line, str, "a line of text in quotes")
    folder = Path(str(server.repository)) / "add_sub"
    needs((folder / "2").is_dir(), "There is no folder `add_sub/2` yet. Run the cell with `shutil.copytree` first.")
    try:
        server.load("add_sub", config=f"{(folder / 'config.pbtxt').read_text()}\n{line}\n")
    except (ConfigError, ModelError) as error:
        raise NotYet(f"The server did not take it, and the old configuration keeps serving. {error}") from error
    versions = sorted(state.version for state in server.models() if state.name == "add_sub" and state.state == "READY")
    must(versions == ["1", "2"], f"The server took your line, but it serves only version {', '.join(versions)}.")
    with Client(server) as client:
        one, two = (client.infer("add_sub", INPUT0=[5.0] * 16, INPUT1=[2.0] * 16, version=each)["OUTPUT1"][0] for each in versions)
    return f"Both are READY, side by side. Asked for 5 - 2, version 1 answers {one:g}, and version 2 answers {two:g}."


def _check_2_3(server: Server, masses: Any, other_peak: Any) -> str:
    from helpers.physics import tracks  # two seconds that the first exercises need not wait for

    file = Path(str(server.repository)) / "dimuon_mass" / "1" / "model.py"
    if not file.is_file() or any(BLANK in row.partition("#")[0] for row in file.read_text().splitlines()):
        raise NotAttempted
    loaded = "dimuon_mass" in _ready(server)
    must(loaded, "`model.py` is complete, but the server has not loaded `dimuon_mass`. The second blank is the call that does it.")
    if reason := server.refusals.get("dimuon_mass"):
        raise NotYet(f"The server refused your last load, and still runs the model from before it. It said: {reason.rstrip('.')}.")
    pairs = tracks.muon_pairs()
    try:
        with Client(server) as client:
            seen = client.infer("dimuon_mass", {name: values[:_EVENTS] for name, values in pairs.items()})["MASS"]
    except CourseError as error:
        raise NotYet(f"The model was loaded, and failed at its first request. After a change, load it again. {error}") from error
    formulas = _formulas(pairs)
    true = formulas.pop("right")
    right = true[:_EVENTS]
    if not np.allclose(seen[:, 0], right, **_SAME):
        usual = (what for what, values in formulas.items() if np.allclose(seen[:, 0], values[:_EVENTS], **_SAME, equal_nan=True))
        differs = f"its masses begin with {seen[:2, 0]} GeV, and those of NumPy with {right[:2]} GeV"
        raise NotYet(f"The formula runs, but {next(usual, differs)}. Run the cell of `model.py` again after a change, and load the model.")
    same = np.shape(masses) == true.shape and np.allclose(masses, true, **_SAME)
    must(same, f"Your model is right, but `masses` are not the {len(true)} masses of `tracks.muon_pairs()`. Run that cell again.")
    slips = {"That is the Z boson; we asked for the other peak": 91.19, "That is in MeV; we asked for GeV": 1000 * _UPSILON}
    must_be_right("other_peak", other_peak, _UPSILON, slips, "Look for the bins that stand high above their neighbours", absolute=_BINS)
    why = "a b quark and its antiquark: it was found in muon pairs, in 1977"
    return f"{len(true)} masses, as NumPy has them. The peak near {_UPSILON:.1f} GeV is the Υ, {why}."


def _formulas(pairs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The right masses and the usual wrong ones, by what is wrong with them; float64, shape (events,)."""
    pt, eta, phi = (pairs[name].astype(np.float64) for name in ("PT", "ETA", "PHI"))
    product, d_eta, d_phi = 2 * pt[:, 0] * pt[:, 1], eta[:, 0] - eta[:, 1], phi[:, 0] - phi[:, 1]
    squared = product * (np.cosh(d_eta) - np.cos(d_phi))
    with np.errstate(invalid="ignore"):
        return {
            "right": np.sqrt(squared),
            "the square root is missing": squared,
            "the factor 2 is missing": np.sqrt(squared / 2),
            "`cosh` and `cos` are swapped": np.sqrt(product * (np.cosh(d_phi) - np.cos(d_eta))),
        }


def _check_3_1(seen: pd.DataFrame, predicted: Any, there_ms: Any, fastest: Any) -> str:
    here, size = (seen.drop(_HERE_ALONE)[name] for name in ("median", "MB"))
    there = here + _MS_PER_MB * size
    slips = {"That is the time on the network alone; add what the request takes here": _MS_PER_MB * size}
    otherwise = "Add what its bytes take on the network, `MB / 125` seconds, in ms"
    judge.must_all_be_right("there_ms", there_ms, there, slips, otherwise, unit="ms", relative=0.002)
    must(fastest != _HERE_ALONE, "Shared memory ends where the machine ends: no other machine can use it.")
    fastest = must_be_one_of("fastest", fastest, list(there.index))
    seen_there = f"By `{fastest}` it takes {there[fastest]:.4g} ms there"
    must(there[fastest] <= (1 + judge.ROUNDING) * there.min(), f"{seen_there}, and another way takes less.")
    must(sorted(predicted) == sorted(seen.index), "`predicted` does not name each of the five ways once.")
    pairs = list(itertools.combinations(predicted, 2))
    true = sum(seen["median"][faster] <= seen["median"][slower] for faster, slower in pairs)
    came_true = f"Of the {len(pairs)} pairs in the order that you predicted, {true} came out so."
    return f"By `{fastest}` it would take {there[fastest]:.3g} ms, and {here[fastest]:.3g} ms here. {came_true}"


def _check_3_2(server: Server, before: Snapshot, stream: Any, answers: Any, hottest: Any) -> str:
    sent, *_ = counted(server, before, "add_sub")
    sums = np.array([event["INPUT0"] + event["INPUT1"] for event in stream])
    right = len(answers) == len(sums) and np.allclose([answer["OUTPUT0"] for answer in answers], sums)
    must(right, "The answers are not the sums of the stream, in its order. Send `stream` as it is, and run the whole cell.")
    must(sent == len(sums), f"The server counted {sent} requests since `before`; expected {len(sums)}. Run the whole cell again.")
    index, tower = np.unravel_index(np.argmax(sums), sums.shape)
    slips = {"That is the number of the tower; we asked for the request": float(tower)}
    otherwise = "That is not the request with the hottest tower of all"
    must_be_right("hottest", hottest, float(index), slips, otherwise, relative=0, absolute=0.1)
    return f"{len(sums)} requests arrived, and number {index} has the hottest tower: {sums[index, tower]:.1f} GeV in tower {tower}."


def _check_3_3(server: Server, corrected: Any, ecal: Any, hcal: Any) -> str:
    try:
        outputs = http.ask(server.http, "/v2/models/add_sub/infer", corrected, access=server.access)["outputs"]
    except RequestError as error:
        raise NotYet(f"The server says: {error} It tells one fault at a time.") from error
    except (TypeError, ValueError) as error:
        raise NotYet(f"This cannot be written as JSON: {error}. Use `.tolist()` for arrays.") from error
    sums: list[float] = next((output["data"] for output in outputs if output["name"] == "OUTPUT0"), [])
    wanted = np.asarray(ecal, dtype=np.float64) + np.asarray(hcal, dtype=np.float64)
    same = len(sums) == len(wanted) and np.allclose(sums, wanted, rtol=1e-5)
    must(same, f"The server answers, but with other sums than `ecal + hcal`: they begin with {sums[:1]}. Send the same numbers.")
    return f"The server answers: {len(sums)} sums, all as NumPy has them. Your colleague owes you a coffee."


def _check_3_4(server: Server, before: Snapshot, turns: Any, judged: Any) -> str:
    _, jets, runs = counted(server, before, "particlenet_AK4", least=1)
    gains = [turn["Triton", 8] / turn["web", 8] for turn in turns]
    right = FASTER if min(gains) > 1 else SLOWER if max(gains) < 1 else CANNOT_TELL
    word = must_be_one_of("judged", judged, (FASTER, SLOWER, CANNOT_TELL))
    seen = f"Of {len(gains)} ratios, {sum(gain > 1 for gain in gains)} are above 1: from {min(gains):.2f} to {max(gains):.2f}"
    must(word == right, f"{seen}, so the answer is not `{word}`. Divide Triton's rate by that of the web server.")
    return f"{right.capitalize()}. {seen}. Triton's counters say {jets / runs:.2f} jets in each run of the network."
