"""Checkers of notebook 02, Inspect the model repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from helpers.client import Client
from helpers.course import judge
from helpers.course.cells import BLANK
from helpers.course.judge import CannotTell, NotYet, Outcome, checker, correct, must_be_right, not_attempted, not_yet
from helpers.errors import ConfigError, CourseError, ModelError
from helpers.physics import tracks
from helpers.server import Server

_MODEL = "dimuon_mass"
# Relative difference from NumPy that 32-bit floats may have; the mass of two nearly parallel muons loses digits.
_SAME: dict[str, Any] = {"rtol": 2e-3, "atol": 1e-2}
# Pairs in the check's own request.
_EVENTS = 50
# The Υ in GeV, and how far from it one may read a histogram with bins of 1 GeV.
_UPSILON, _BINS = 9.46, 0.6


@checker("2.1")
def filled_in(server: Any, found: Any) -> Outcome:
    """What the server filled in for ``add_sub``."""
    config = judge.must_be_server(server).config("add_sub")
    judge.must_have(found, ("instances", "file", "versions"))
    if "latest" not in config.get("version_policy", {}):
        raise CannotTell(
            'The server has another version policy by now. Type `server.load("add_sub")`, and run the cells from `reported` on again.'
        )
    instances, versions = sum(group["count"] for group in config["instance_group"]), config["version_policy"]["latest"]["num_versions"]
    for name, right, place in (("instances", instances, "count"), ("versions", versions, "num_versions")):
        must_be_right(name, found[name], right, otherwise=f"The server reports another number. Look for `{place}`", relative=0)
    if Path(str(found["file"])).name != config["default_model_filename"]:
        return not_yet(f"For `file` you have `{found['file']!r}`. Look for `default_model_filename`.")
    return correct("One instance, `model.py`, and one version at a time. Nobody wrote these three; the server did.")


@checker("2.2")
def both_versions(server: Any, line: Any) -> Outcome:
    """With this line in the config, the server has versions 1 and 2 of ``add_sub`` READY."""
    judge.must_be_server(server)
    if not isinstance(line, str) or not line.strip():
        return not_yet(f"Expected a line of text in quotes, and got {judge.kind(line)}.")
    repository = _repository(server)
    if not (repository / "add_sub" / "2").is_dir():
        raise CannotTell("There is no folder `add_sub/2` yet. Run the cell with `shutil.copytree` first.")
    text = (repository / "add_sub" / "config.pbtxt").read_text()
    try:
        server.load("add_sub", config=f"{text}\n{line}\n")
    except (ConfigError, ModelError) as error:
        return not_yet(f"The server did not take it, and the old configuration keeps serving. {error}")
    versions = sorted(state.version for state in server.models() if state.name == "add_sub" and state.state == "READY")
    if versions == ["1", "2"]:
        with Client(server) as client:
            one, two = (client.infer("add_sub", INPUT0=[5.0] * 16, INPUT1=[2.0] * 16, version=each)["OUTPUT1"][0] for each in versions)
        return correct(f"Both are READY, side by side. Asked for 5 - 2, version 1 answers {one:g}, and version 2 answers {two:g}.")
    policy = server.config("add_sub").get("version_policy", {})
    return not_yet(
        f"The server took your line, but it serves only version {', '.join(versions)}. It understood: `version_policy: {policy}`."
    )


def _repository(server: Server) -> Path:
    if server.repository is None:
        raise CannotTell("This server was launched elsewhere, so its repository is not here. Launch your own with `launch_server(models)`.")
    return Path(server.repository)


@checker("2.3")
def dimuon_mass(server: Any, masses: Any, other_peak: Any) -> Outcome:
    """The student's model computes the invariant mass of muon pairs, and the student has found the second peak in 2,000 of them."""
    judge.must_be_server(server)
    file = _repository(server) / _MODEL / "1" / "model.py"
    code = file.read_text() if file.is_file() else ""
    blanks = sum(BLANK in row.partition("#")[0] for row in code.splitlines())
    if not code or blanks:
        return not_attempted(max(blanks, 1))
    if not any(state.name == _MODEL and state.state == "READY" for state in server.models()):
        return not_yet(f"`model.py` is complete, but the server has not loaded `{_MODEL}`. The second blank is the call that does it.")
    if reason := server.refusals.get(_MODEL):
        return not_yet(f"The server refused your last load, and still runs the model from before it. It said: {reason.rstrip('.')}.")
    try:
        with Client(server) as client:
            seen = client.infer(_MODEL, {name: values[:_EVENTS] for name, values in tracks.muon_pairs().items()})["MASS"]
    except CourseError as error:
        return not_yet(f"The model was loaded, and failed at its first request. After a change, load it again. {error}")
    must_be_masses(seen)
    return judge_peak(masses, other_peak)


def must_be_masses(seen: np.ndarray) -> None:
    """Compare what the model says of the notebook's first pairs with the right formula, and with the usual wrong ones."""
    formulas = {what: values[:_EVENTS] for what, values in _formulas(tracks.muon_pairs()).items()}
    right = formulas.pop("right")
    if seen.shape != (len(right), 1):
        raise NotYet(f"`MASS` has the shape {seen.shape} for {len(right)} events; expected ({len(right)}, 1).")
    if np.allclose(seen[:, 0], right, **_SAME):
        return
    for what, values in formulas.items():
        if np.allclose(seen[:, 0], values, **_SAME, equal_nan=True):
            raise NotYet(f"The formula runs, but {what}. After the change, run the cell of `model.py` and load the model again.")
    first = np.flatnonzero(~np.isclose(seen[:, 0], right, **_SAME))[0]
    raise NotYet(f"For event {first} your model says {seen[first, 0]:.2f} GeV, and NumPy says {right[first]:.2f} GeV.")


def judge_peak(masses: Any, other_peak: Any) -> Outcome:
    """Compare with the masses of all pairs of the notebook, and with the lighter of the two peaks in them."""
    true = _formulas(tracks.muon_pairs())["right"]
    given = np.ravel(masses) if isinstance(masses, np.ndarray) else np.array([])
    if given.shape != true.shape:
        return not_yet(f"Your model is right. Then `masses` should be an array of {len(true)} masses, and it is {judge.kind(masses)}.")
    if not np.allclose(given, true, **_SAME):
        return not_yet("Your model is right, but `masses` are not those of `tracks.muon_pairs()`. Run that cell again.")
    slips = {"That is the Z boson; we asked for the other peak": 91.19, "That is in MeV; we asked for GeV": 1000 * _UPSILON}
    otherwise, first = "Look for the bins that stand high above their neighbours", "Your model is right. "
    must_be_right("other_peak", other_peak, _UPSILON, slips, otherwise, absolute=_BINS, first=first)
    return correct(
        f"{len(true)} masses, as NumPy has them. The peak near {_UPSILON:.1f} GeV is the Υ, a b quark and its antiquark: "
        "it was found in muon pairs, in 1977."
    )


def _formulas(events: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The right masses and the usual wrong ones, by what is wrong with them; float64, shape (events,)."""
    pt, eta, phi = (events[name].astype(np.float64) for name in ("PT", "ETA", "PHI"))
    product, d_eta, d_phi = pt[:, 0] * pt[:, 1], eta[:, 0] - eta[:, 1], phi[:, 0] - phi[:, 1]
    bracket = np.cosh(d_eta) - np.cos(d_phi)
    with np.errstate(invalid="ignore"):
        return {
            "right": np.sqrt(2 * product * bracket),
            "the square root is missing": 2 * product * bracket,
            "the factor 2 is missing": np.sqrt(product * bracket),
            "`cosh` and `cos` are swapped": np.sqrt(2 * product * (np.cosh(d_phi) - np.cos(d_eta))),
            "there should be a minus between `cosh` and `cos`": np.sqrt(2 * product * (np.cosh(d_eta) + np.cos(d_phi))),
            "both functions are `cos`; the first one is `cosh`": np.sqrt(2 * product * (np.cos(d_eta) - np.cos(d_phi))),
            "the order of `cosh` and `cos` is the other way round": np.sqrt(2 * product * -bracket),
            "the result is in MeV": 1000 * np.sqrt(2 * product * bracket),
        }
