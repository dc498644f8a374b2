"""The shipped jets: branches, sizes, truth, and physics that any b tagger lives on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.jets.features import CANDIDATE_FEATURES, TAGGERS, VERTEX_FEATURES

uproot = pytest.importorskip("uproot", reason="needs uproot and awkward, of the client's environment: make setup")
from training.jets.dataset import JetTable  # noqa: E402
from training.jets.sample import read_root  # noqa: E402

DATA = Path(__file__).resolve().parents[2] / "notebooks" / "data"


@pytest.fixture(scope="module", params=list(TAGGERS))
def key(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def jets(key: str) -> JetTable:
    return read_root(DATA / f"jets_{key}.root")


def test_files_are_small_and_have_all_branches(key: str):
    path = DATA / f"jets_{key}.root"
    assert path.stat().st_size <= 6_000_000
    with uproot.open(path) as file:
        branches = set(file["Jets"].keys())
    assert {f.name for f in (*CANDIDATE_FEATURES, *VERTEX_FEATURES)} <= branches
    assert {"event", "jet_pt", "jet_eta", "jet_phi", "jet_mass", "jet_label", "jet_nBHadrons"} <= branches


def test_numbers_are_sound(key: str, jets: JetTable):
    assert len(jets) == {"ak4": 5000, "ak8": 2000}[key]
    assert np.isfinite(jets.candidates).all()
    assert np.isfinite(jets.vertices).all()
    assert jets.n_candidates.min() >= 2
    assert jets.n_candidates.max() <= TAGGERS[key].max_candidates
    assert jets.n_vertices.max() <= TAGGERS[key].max_vertices
    column = [f.name for f in CANDIDATE_FEATURES].index("pfcand_pt_log_nopuppi")
    first = np.cumsum(jets.n_candidates) - jets.n_candidates
    falling = np.diff(jets.candidates[:, column]) <= 0
    falling[first[1:] - 1] = True
    assert falling.all(), "candidates must be ordered by transverse momentum"


def test_jets_of_an_event_are_neighbours(jets: JetTable):
    assert (np.diff(jets.event) >= 0).all()
    assert (np.diff(jets.event) == 0).any()


def test_every_class_is_there(key: str, jets: JetTable):
    counts = np.bincount(jets.label, minlength=len(TAGGERS[key].labels))
    few = [label for label, n in zip(TAGGERS[key].labels, counts, strict=True) if n < 10 and label != "probundef"]
    assert not few


def test_b_jets_have_displaced_vertices_and_light_jets_do_not():
    jets = read_root(DATA / "jets_ak4.root")
    share = {
        name: (jets.n_vertices[jets.label == TAGGERS["ak4"].labels.index(name)] > 0).mean()
        for name in ("probb", "probc", "probuds", "probg")
    }
    assert share["probb"] > 0.65
    assert 0.15 < share["probc"] < 0.45
    assert max(share["probuds"], share["probg"]) < 0.1


def test_masses_of_boosted_jets_sit_at_the_resonances():
    jets = read_root(DATA / "jets_ak8.root")
    labels = TAGGERS["ak8"].labels
    for name, mass in (("probTbqq", 172), ("probWqq", 82), ("probZqq", 92), ("probHbb", 121)):
        median = float(np.median(jets.mass[jets.label == labels.index(name)]))
        assert abs(median - mass) < 12, (name, median)
