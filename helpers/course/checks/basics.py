"""Checkers of notebooks 00 to 03: launch a server, look into its models, send requests."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from helpers import paths
from helpers.client import Client, http
from helpers.course import judge
from helpers.course.cells import BLANK
from helpers.course.judge import NotAttempted, NotYet, checker, counted, must, must_be, must_be_number, must_be_one_of, must_be_right
from helpers.errors import ConfigError, CourseError, ModelError, RequestError
from helpers.measuring.statistics import CANNOT_TELL, FASTER, SLOWER
from helpers.metrics import Snapshot, scrape
from helpers.server import Server, launch_server
from helpers.tables import cell

# Masses that people mix up with the Z boson's, in GeV, rounded: what they are.
_OTHERS = {80: "the W boson", 125: "the Higgs boson", 126: "the Higgs boson", 172: "the top quark", 173: "the top quark"}
# People read the log to a tenth of a second; either clock may be rounded.
_READING_S = 0.06
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


@checker("0.1")
def _z_mass(z_mass: Any) -> str:
    value = must_be_number("z_mass", z_mass, "a number")
    must(round(value) not in _OTHERS, f"{cell(value)} GeV is {_OTHERS.get(round(value))}.")
    must(not 91_000 <= value <= 91_300, f"{cell(value)} is right in MeV; we asked for GeV.")
    must(not 91 < value < 91.5, f"{cell(value)} is close enough for physics, but we asked for a whole number.")
    must(value == 91, f"The value seen is {cell(value)}. The Z boson is {'lighter' if value > 91 else 'heavier'}.")
    return "91 GeV; measured precisely, 91.19 GeV. Now you know how a check looks. The next ones ask your server."


@checker("0.2")
def _three_requests(server: Server, before: Snapshot) -> str:
    seen, *_ = counted(server, before, "add_sub")
    must(seen, "The server has answered no request since `before`. Send three in the cell above, below its first line.")
    must(seen == 3, f"The counter rose by {seen}, not by 3. Run the whole cell again, so that `before` is read again, too.")
    return "The server's own counter rose by 3. It was really you, and it was really three."


@checker("1.1")
def _right_question(server: Server, may_send: Any) -> str:
    must_be("may_send", may_send, Callable, "the function, without brackets")
    serves = any(model.name == "add_sub" and model.state == "READY" for model in server.models())
    judge.needs(not serves, "`add_sub` is in service at the moment. Run the cell with `server.unload` again, then this one.")
    answers = [("`add_sub` is out of service", may_send("add_sub"), False)]
    server.load("add_sub")
    try:
        answers += [("`add_sub` serves", may_send("add_sub"), True), ("There is no model `muons`", may_send("muons"), False)]
    finally:
        server.unload("add_sub")
    for fact, given, right in answers:
        must_be("may_send(...)", given, bool, "True or False: compare the status code with 200")
        must(given == right, f"{fact}, and your function says {given}. Which of the three questions is about the one model asked for?")
    return "It says no, yes and no, as it should. A server can be alive and ready, and still not have the model that you need."


@checker("1.2")
def _log_read(server: Server, report: Any) -> str:
    return judge_log(server.log(0), report, {"HTTP": server.http.port, "gRPC": server.grpc.port, "metrics": server.metrics.port})


def judge_log(log: str, report: dict[str, Any], ports: dict[str, int]) -> str:
    """Compare a report with the log and the ports that it is about."""
    pattern = r"^I\d{4} (\S+) [^\n]*loading: add_sub(.*?)^I\d{4} (\S+) [^\n]*successfully loaded 'add_sub'"
    if (first := re.search(pattern, log, re.MULTILINE | re.DOTALL)) is None:
        raise judge.CannotTell("The log does not show how `add_sub` was loaded. Type `server = server.restart()`, and read its log again.")
    begin, end = (datetime.strptime(first[group], "%H:%M:%S.%f") for group in (1, 3))
    # The log has no year and no zone; a loading over midnight would look negative.
    seconds = ((end - begin) % timedelta(days=1)).total_seconds()
    lines = "Compare the lines `loading: add_sub` and `successfully loaded`, to a tenth of a second"
    must_be_right("loading_s", report["loading_s"], seconds, otherwise=lines, unit="s", absolute=_READING_S)
    instances = first[2].count("ModelInstanceInitialize: add_sub")
    count = "Count only the lines `ModelInstanceInitialize` before the first `successfully loaded`"
    must_be_right("instances", report["instances"], instances, otherwise=count, relative=0)
    port = str(report["metrics_port"]).rpartition(":")[2].strip("/")
    others = {f"That is the port for {name} requests": ports[name] for name in ("HTTP", "gRPC")}
    must_be_right("metrics_port", port, ports["metrics"], others, "Look for `Started Metrics Service`", relative=0)
    return f"{seconds:.1f} s, {instances} instance, metrics on port {ports['metrics']}. The expert thanks you and goes back to sleep."


@checker("1.3")
def _docker_command(options: Any) -> str:
    like = "Podman is much like Docker, but this node has Docker"
    must(options["runtime"] == "docker", f"The runtime is `{options['runtime']!r}`. {like}; its name is in small letters.")
    base = int(must_be_number("base_port", options["base_port"], "a whole number"))
    ports = {"HTTP": base, "gRPC": base + 1, "metrics": base + 2}
    for service, port in ports.items():
        must(port not in _TAKEN, f"With base port {base}, {service} gets {port}, and a colleague has that.")
        must(port in _OPEN, f"With base port {base}, {service} gets {port}, and this node does not let it through.")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        launch_server(paths.models_dir(), runtime="docker", base_port=base, dry_run=True)
    image = next(word for word in printed.getvalue().split() if "tritonserver:" in word)
    wanted = re.findall(r"--(?:http|grpc|metrics)-port=\d+", printed.getvalue())
    return f"The command starts the image `{image}` with {', '.join(f'`{option}`' for option in wanted)}. All three can work."


@checker("1.4")
def _brought_back(revived: Any, dead_pid: Any) -> str:
    must_be("revived", revived, Server, "the new server, which `restart()` returns")
    dead = f"`revived` is the server with pid {revived.pid}, and it is dead. Its card says what to type."
    must(revived.pid != dead_pid and revived.is_alive(), dead)
    counter = scrape(revived).value(judge.SUCCESS, model="add_sub")
    return f"Process {dead_pid} is gone, process {revived.pid} serves, and its counter stands at {cell(counter)}."


@checker("2.1")
def _filled_in(server: Server, found: Any) -> str:
    config = server.config("add_sub")
    instances, versions = sum(group["count"] for group in config["instance_group"]), config["version_policy"]["latest"]["num_versions"]
    for name, right, place in (("instances", instances, "count"), ("versions", versions, "num_versions")):
        must_be_right(name, found[name], right, otherwise=f"The server reports another number. Look for `{place}`", relative=0)
    file = config["default_model_filename"]
    must(Path(str(found["file"])).name == file, f"For `file` you have `{found['file']!r}`. Look for `default_model_filename`.")
    return "One instance, `model.py`, and one version at a time. Nobody wrote these three; the server did."


@checker("2.2")
def _both_versions(server: Server, line: Any) -> str:
    must_be("line", line, str, "a line of text in quotes")
    folder = Path(str(server.repository)) / "add_sub"
    judge.needs((folder / "2").is_dir(), "There is no folder `add_sub/2` yet. Run the cell with `shutil.copytree` first.")
    try:
        server.load("add_sub", config=f"{(folder / 'config.pbtxt').read_text()}\n{line}\n")
    except (ConfigError, ModelError) as error:
        raise NotYet(f"The server did not take it, and the old configuration keeps serving. {error}") from error
    versions = sorted(state.version for state in server.models() if state.name == "add_sub" and state.state == "READY")
    policy = server.config("add_sub").get("version_policy", {})
    understood = f"It understood: `version_policy: {policy}`."
    must(versions == ["1", "2"], f"The server took your line, but it serves only version {', '.join(versions)}. {understood}")
    with Client(server) as client:
        one, two = (client.infer("add_sub", INPUT0=[5.0] * 16, INPUT1=[2.0] * 16, version=each)["OUTPUT1"][0] for each in versions)
    return f"Both are READY, side by side. Asked for 5 - 2, version 1 answers {one:g}, and version 2 answers {two:g}."


@checker("2.3")
def _dimuon_mass(server: Server, masses: Any, other_peak: Any) -> str:
    file = Path(str(server.repository)) / "dimuon_mass" / "1" / "model.py"
    code = file.read_text() if file.is_file() else BLANK
    if any(BLANK in row.partition("#")[0] for row in code.splitlines()):
        raise NotAttempted
    ready = any(state.name == "dimuon_mass" and state.state == "READY" for state in server.models())
    must(ready, "`model.py` is complete, but the server has not loaded `dimuon_mass`. The second blank is the call that does it.")
    if reason := server.refusals.get("dimuon_mass"):
        raise NotYet(f"The server refused your last load, and still runs the model from before it. It said: {reason.rstrip('.')}.")
    try:
        with Client(server) as client:
            seen = client.infer("dimuon_mass", {name: values[:_EVENTS] for name, values in _pairs().items()})["MASS"]
    except CourseError as error:
        raise NotYet(f"The model was loaded, and failed at its first request. After a change, load it again. {error}") from error
    must_be_masses(seen)
    return judge_peak(masses, other_peak)


def _pairs() -> dict[str, np.ndarray]:
    from helpers.physics import tracks  # two seconds that the first exercises need not wait for

    return tracks.muon_pairs()


def must_be_masses(seen: np.ndarray) -> None:
    """Compare what the model says of the notebook's first pairs with the right formula, and with the usual wrong ones."""
    formulas = {what: values[:_EVENTS] for what, values in _formulas(_pairs()).items()}
    right = formulas.pop("right")
    must(seen.shape == (len(right), 1), f"`MASS` has the shape {seen.shape} for {len(right)} events; expected ({len(right)}, 1).")
    if np.allclose(seen[:, 0], right, **_SAME):
        return
    for what, values in formulas.items():
        again = "After the change, run the cell of `model.py` and load the model again."
        must(not np.allclose(seen[:, 0], values, **_SAME, equal_nan=True), f"The formula runs, but {what}. {again}")
    first = np.flatnonzero(~np.isclose(seen[:, 0], right, **_SAME))[0]
    raise NotYet(f"For event {first} your model says {seen[first, 0]:.2f} GeV, and NumPy says {right[first]:.2f} GeV.")


def judge_peak(masses: Any, other_peak: Any) -> str:
    """Compare with the masses of all pairs of the notebook, and with the lighter of the two peaks in them."""
    true = _formulas(_pairs())["right"]
    expected = f"Your model is right. Then `masses` should be an array of {len(true)} masses, and it is {judge.kind(masses)}."
    must(np.shape(masses) == true.shape, expected)
    same = np.allclose(masses, true, **_SAME)
    must(same, "Your model is right, but `masses` are not those of `tracks.muon_pairs()`. Run that cell again.")
    slips = {"That is the Z boson; we asked for the other peak": 91.19, "That is in MeV; we asked for GeV": 1000 * _UPSILON}
    otherwise = "Look for the bins that stand high above their neighbours"
    must_be_right("other_peak", other_peak, _UPSILON, slips, otherwise, absolute=_BINS, first="Your model is right. ")
    why = "a b quark and its antiquark: it was found in muon pairs, in 1977"
    return f"{len(true)} masses, as NumPy has them. The peak near {_UPSILON:.1f} GeV is the Υ, {why}."


def _formulas(events: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The right masses and the usual wrong ones, by what is wrong with them; float64, shape (events,)."""
    pt, eta, phi = (events[name].astype(np.float64) for name in ("PT", "ETA", "PHI"))
    product, d_eta, d_phi = 2 * pt[:, 0] * pt[:, 1], eta[:, 0] - eta[:, 1], phi[:, 0] - phi[:, 1]
    squared = product * (np.cosh(d_eta) - np.cos(d_phi))
    with np.errstate(invalid="ignore"):
        return {
            "right": np.sqrt(squared),
            "the square root is missing": squared,
            "the factor 2 is missing": np.sqrt(squared / 2),
            "`cosh` and `cos` are swapped": np.sqrt(product * (np.cosh(d_phi) - np.cos(d_eta))),
            "there should be a minus between `cosh` and `cos`": np.sqrt(product * (np.cosh(d_eta) + np.cos(d_phi))),
            "both functions are `cos`; the first one is `cosh`": np.sqrt(product * (np.cos(d_eta) - np.cos(d_phi))),
            "the order of `cosh` and `cos` is the other way round": np.sqrt(-squared),
            "the result is in MeV": 1000 * np.sqrt(squared),
        }


@checker("3.1")
def _moved_away(seen: pd.DataFrame, predicted: Any, there_ms: Any, fastest: Any) -> str:
    # First the way for which the network matters most: there the slips are far apart.
    others = seen.drop(_HERE_ALONE)
    here, size = (others.loc[(others["MB"] / others["median"]).sort_values(ascending=False).index][name] for name in ("median", "MB"))
    there = here + _MS_PER_MB * size
    slips = {
        "That is the time on the network alone; add what the request takes here": _MS_PER_MB * size,
        "That is the time here; add what its bytes take on the network, in ms (`MB / 125` is in seconds)": here,
        "1 Gbit/s is 125 MB/s: a byte has eight bits": here + size,
    }
    judge.must_all_be_right("there_ms", there_ms, there, slips, "Add `MB / 125` seconds, in ms, to the time", unit="ms", relative=0.002)
    must(fastest != _HERE_ALONE, "Shared memory ends where the machine ends: no other machine can use it.")
    fastest = must_be_one_of("fastest", fastest, list(there.index))
    seen_there = f"By `{fastest}` it takes {there[fastest]:.4g} ms there"
    must(there[fastest] <= (1 + judge.ROUNDING) * there.min(), f"{seen_there}, and another way takes less.")
    came_true = "`predicted` does not name each of the five ways once."
    if isinstance(predicted, list) and sorted(map(str, predicted)) == sorted(seen.index):
        pairs = list(itertools.combinations(predicted, 2))
        true = sum(seen["median"][faster] <= seen["median"][slower] for faster, slower in pairs)
        came_true = f"Of the {len(pairs)} pairs in the order that you predicted, {true} came out so."
    return f"By `{fastest}` it would take {there[fastest]:.3g} ms, and {here[fastest]:.3g} ms here. {came_true}"


@checker("3.2")
def _hot_tower(server: Server, before: Snapshot, stream: Any, answers: Any, hottest: Any) -> str:
    sent, *_ = counted(server, before, "add_sub")
    sums = np.array([event["INPUT0"] + event["INPUT1"] for event in stream])
    must_be("answers", answers, list, "what `client.infer_many` returns")
    must(len(answers) == len(sums), f"Expected a list of {len(sums)} answers, and got {len(answers)} answers.")
    right = np.allclose([answer["OUTPUT0"] for answer in answers], sums)
    must(right, "The answers are not the sums of the stream, in its order. Send `stream` as it is, and run the whole cell.")
    must(sent == len(sums), f"The server counted {sent} requests since `before`; expected {len(sums)}. Run the whole cell again.")
    index, tower = np.unravel_index(np.argmax(sums), sums.shape)
    slips = {
        "That is the number of the tower; we asked for the request": tower,
        "That is an index over all towers of all requests; divide it by 16": np.argmax(sums),
        "That request has the largest total; we asked for the largest single tower": np.argmax(sums.sum(axis=1)),
        "That is the energy of the tower; we asked for the index of its request": sums.max(),
    }
    otherwise = "That request's hottest tower is not the largest of all"
    must_be_right("hottest", hottest, float(index), slips, otherwise, relative=0, absolute=0.1)
    return f"{len(sums)} requests arrived, and number {index} has the hottest tower: {sums[index, tower]:.1f} GeV in tower {tower}."


@checker("3.3")
def _corrected_request(server: Server, corrected: Any, ecal: Any, hcal: Any) -> str:
    try:
        outputs = http.ask(server.http, "/v2/models/add_sub/infer", corrected, access=server.access)["outputs"]
    except RequestError as error:
        raise NotYet(f"The server says: {error} It tells one fault at a time.") from error
    except (TypeError, ValueError) as error:
        raise NotYet(f"This cannot be written as JSON: {error}. Use `.tolist()` for arrays.") from error
    sums: list[float] = next((output["data"] for output in outputs if output["name"] == "OUTPUT0"), [])
    wanted = np.asarray(ecal, dtype=np.float64) + np.asarray(hcal, dtype=np.float64)
    same = len(sums) == len(wanted) and np.allclose(sums, wanted, rtol=1e-5)
    seen = f"they begin with {sums[:1]}, and `ecal + hcal` with {wanted[0]:.2f}"
    must(same, f"The server answers, but with other sums: {seen}. Send the same numbers.")
    return f"The server answers: {len(sums)} sums, all as NumPy has them. Your colleague owes you a coffee."


@checker("3.4")
def _both_servers(server: Server, before: Snapshot, turns: Any, judged: Any) -> str:
    _, jets, runs = counted(server, before, "particlenet_AK4", least=1)
    return judge_turns(turns, judged, jets / runs)


def judge_turns(turns: Any, judged: Any, jets_per_run: float) -> str:
    """Compare with the rates of each turn, with eight clients."""
    gains = [turn["Triton", 8] / turn["web", 8] for turn in turns]
    right = FASTER if min(gains) > 1 else SLOWER if max(gains) < 1 else CANNOT_TELL
    word = must_be_one_of("judged", judged, (FASTER, SLOWER, CANNOT_TELL))
    seen = f"Of {len(gains)} ratios, {sum(gain > 1 for gain in gains)} are above 1: from {min(gains):.2f} to {max(gains):.2f}"
    must(word == right, f"{seen}, so the answer is not `{word}`. Divide Triton's rate by that of the web server.")
    return f"{right.capitalize()}. {seen}. Triton's counters say {jets_per_run:.2f} jets in each run of the network."
