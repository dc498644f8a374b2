"""Jets to tensors without a server: handmade jets with known answers, the shipped files, and every way to get it wrong."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest
import uproot

from helpers import jets, paths
from helpers.errors import InputError
from helpers.physics.jets import FlatJets, Table, flatten
from training.jets.dataset import padded_inputs
from training.jets.features import AK4, AK8, TAGGERS
from training.jets.sample import read_root

# Seconds for 5,000 jets from the file to padded tensors; processor time, so that other work on the machine does not count.
LIMIT_S = 0.3

INFO = {"median": 0.0, "norm_factor": 1.0, "replace_inf_value": 0, "lower_bound": -1e32, "upper_bound": 1e32, "pad": 0}


def _group(infos: dict[str, dict[str, float]], shortest: int, longest: int) -> dict[str, Any]:
    infos = {name: INFO | info for name, info in infos.items()}
    return {"var_names": list(infos), "var_infos": infos, "var_length": longest, "min_length": shortest, "max_length": longest}


CONTENT = {
    "input_names": ["pf_points", "pf_features", "pf_mask", "sv_features", "sv_mask"],
    "output_names": ["probb", "probg"],
    "pf_points": _group({"pfcand_etarel": {}}, 2, 4),
    "pf_features": _group(
        {"pfcand_pt_log": {"median": 1.0, "norm_factor": 2.0, "lower_bound": -5, "upper_bound": 5}, "pfcand_id": {}}, 2, 4
    ),
    "pf_mask": _group({"pfcand_mask": {}}, 2, 4),
    "sv_features": _group({"sv_d3dsig": {"norm_factor": 0.5, "replace_inf_value": 8, "pad": -1}}, 1, 2),
    "sv_mask": _group({"sv_mask": {}}, 1, 2),
}


def _table(content: Any, folder: Path) -> Table:
    path = folder / "preprocess.json"
    path.write_text(json.dumps(content))
    return Table.read(path)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return _table(CONTENT, tmp_path)


@pytest.fixture
def two() -> ak.Array:
    """Two jets: one with three candidates and a vertex, one with a single candidate and none."""
    return ak.Array(
        {
            "pfcand_pt_log": [[3.0, 2.0, -9.0], [0.5]],
            "pfcand_etarel": [[0.1, 0.2, 0.3], [-0.4]],
            "pfcand_id": ak.values_astype(ak.Array([[1, 0, 1], [1]]), np.int8),
            "sv_d3dsig": [[6.0], []],
            "npfcand": [3, 1],
        }
    )


def _padded(flat: FlatJets, **lengths: int) -> dict[str, np.ndarray]:
    return flat.pad(np.arange(len(flat)), lengths)


def test_values_masks_and_padding_by_hand(two: ak.Array, table: Table) -> None:
    tensors = _padded(flatten(two, table))
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()} == {
        "pf_points": ((2, 1, 3), np.float32),
        "pf_features": ((2, 2, 3), np.float32),
        "pf_mask": ((2, 1, 3), np.float32),
        "sv_features": ((2, 1, 1), np.float32),
        "sv_mask": ((2, 1, 1), np.float32),
    }
    # (3 - 1) * 2, (2 - 1) * 2, and (-9 - 1) * 2 clipped.
    assert tensors["pf_features"].tolist() == [[[4, 2, -5], [1, 0, 1]], [[-1, 0, 0], [1, 0, 0]]]
    assert np.allclose(tensors["pf_points"], [[[0.1, 0.2, 0.3]], [[-0.4, 0, 0]]])
    assert tensors["pf_mask"].tolist() == [[[1, 1, 1]], [[1, 0, 0]]]
    assert tensors["sv_features"].tolist() == [[[3]], [[-1]]], "the table's own pad value"
    assert tensors["sv_mask"].tolist() == [[[1]], [[0]]]
    assert all(tensor.flags.c_contiguous for tensor in tensors.values())


def test_short_jets_are_padded_to_what_the_network_needs(two: ak.Array, table: Table) -> None:
    tensors = _padded(flatten(two[1:], table))
    assert tensors["pf_mask"].tolist() == [[[1, 0]]] and tensors["sv_mask"].tolist() == [[[0]]]


def test_lengths_on_request(two: ak.Array, table: Table) -> None:
    flat = flatten(two, table)
    assert _padded(flat, pf=7)["pf_features"].shape == (2, 2, 7)
    cut = _padded(flat, pf=2, sv=2)
    assert cut["pf_features"][0].tolist() == [[4, 2], [1, 0]] and cut["sv_mask"].shape == (2, 1, 2)


def test_a_short_length_keeps_the_highest_ranked(table: Table) -> None:
    """Vertices in a file need not be in the order of their significance, nor candidates in that of their momentum."""
    mixed = ak.Array(
        {
            "pfcand_pt_log": [[1.0, 3.0, 2.0], [2.0], [0.5, 0.7, 0.6, 0.7]],
            "pfcand_etarel": [[1.0, 3.0, 2.0], [2.0], [0.5, 0.7, 0.6, 0.8]],
            "pfcand_id": [[0] * 3, [0], [0] * 4],
            "sv_d3dsig": [[1.0, 9.0], [], [4.0, 2.0]],
        }
    )
    tensors = _padded(flatten(mixed, table), pf=2, sv=1)
    assert tensors["sv_features"].tolist() == [[[4.5]], [[-1.0]], [[2.0]]], "9, padding, 4; halved by the table"
    assert np.allclose(tensors["pf_points"][:, 0], [[3.0, 2.0], [2.0, 0.0], [0.7, 0.8]]), "equal momenta in the order of the file"
    assert tensors["pf_mask"][:, 0].tolist() == [[1, 1], [1, 0], [1, 1]]


def test_any_order_of_jets(two: ak.Array, table: Table) -> None:
    straight, turned = _padded(flatten(two, table)), flatten(two, table).pad(np.array([1, 0]))
    for name, tensor in straight.items():
        assert np.array_equal(tensor[::-1], turned[name])
    masked = _padded(flatten(two[np.array([True, False])], table))
    assert np.array_equal(masked["pf_features"], straight["pf_features"][:1])


def test_too_many_candidates_are_cut_by_transverse_momentum(table: Table) -> None:
    pt = [0.5, 3.0, 1.0, 2.0, 2.5, 0.1]
    long = ak.Array(
        {"pfcand_pt_log": [pt, [1.0]], "pfcand_etarel": [pt, [1.0]], "pfcand_id": [[0] * 6, [0]], "sv_d3dsig": [[1.0, 9.0, 4.0], []]}
    )
    tensors = _padded(flatten(long, table))
    assert tensors["pf_points"][0, 0].tolist() == [3.0, 2.5, 2.0, 1.0]
    assert tensors["sv_features"][0, 0].tolist() == [4.5, 2.0]


def test_infinite_values_become_what_the_table_says(two: ak.Array, table: Table) -> None:
    two["sv_d3dsig"] = ak.Array([[np.inf], []])
    assert _padded(flatten(two, table))["sv_features"][0, 0, 0] == 4.0


def _without_candidates(two: ak.Array) -> ak.Array:
    fields = {name: [[], two[name][1]] for name in two.fields if name.startswith("pfcand")}
    return ak.Array({**fields, "sv_d3dsig": [[], []]})


def _with(two: ak.Array, name: str, values: Any) -> ak.Array:
    changed = ak.copy(two)
    changed[name] = ak.Array(values)
    return changed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda two: two[:0], "given as Array, or there is none"),
        (lambda two: two[0], "given as Record"),
        (lambda two: np.zeros(3), "given as ndarray"),
        (lambda two: two["pfcand_pt_log"], "given as Array"),
        (_without_candidates, "1 of 2 jets have no candidate"),
        (lambda two: _with(two, "pfcand_etarel", [[0.1, 0.2, 0.3], [np.nan]]), "Values of pfcand_etarel are not numbers (NaN)"),
        (
            lambda two: _with(two, "pfcand_etarel", [[0.1], [0.2]]),
            "In jet 0 the branches pfcand_etarel and pfcand_pt_log have different numbers of values",
        ),
        # As many in all, but in other jets: their candidates would be mixed without a word.
        (
            lambda two: _with(two, "pfcand_etarel", [[0.1], [0.2, 0.3, 0.4]]),
            "In jet 0 the branches pfcand_etarel and pfcand_pt_log have different",
        ),
        (lambda two: _with(two, "pfcand_id", [[1, 0], [1, 1]]), "pfcand_id have different"),
    ],
)
def test_wrong_jets_are_refused_in_one_sentence(two: ak.Array, table: Table, change: Any, words: str) -> None:
    with pytest.raises(InputError) as error:
        flatten(change(two), table)
    assert words in str(error.value)


# --- the table -------------------------------------------------------------------------------------------------------------


def test_an_older_table_has_one_length_for_all(two: ak.Array, tmp_path: Path) -> None:
    old = json.loads(json.dumps(CONTENT))
    for name in old["input_names"]:
        del old[name]["min_length"], old[name]["max_length"]
    tensors = _padded(flatten(two, _table(old, tmp_path)))
    assert tensors["pf_mask"].shape == (2, 1, 4) and tensors["sv_mask"].shape == (2, 1, 2)


# --- the shipped jets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "n_jets"), [("ak4", 5000), ("ak8", 2000)])
def test_shipped_jets_are_whole(name: str, n_jets: int) -> None:
    sample = jets.read(name)
    assert len(sample) == n_jets
    assert ak.min(sample.npfcand) >= 2 and ak.max(sample.npfcand) <= TAGGERS[name].max_candidates
    assert ak.all(sample.pfcand_pt_log_nopuppi[:, 1:] <= sample.pfcand_pt_log_nopuppi[:, :-1]), "in falling order"
    assert set(sample.jet_class.to_list()) <= set(jets.LABELS[name])
    assert ak.all(sample.event[1:] >= sample.event[:-1])
    path = paths.root() / "notebooks" / "data" / f"jets_{name}.root"
    assert path.stat().st_size <= 6e6
    assert len(jets.read(path)) == n_jets


@pytest.mark.parametrize("tagger", [AK4, AK8], ids=lambda tagger: tagger.key)
def test_tensors_are_those_that_the_network_was_trained_on(tagger: Any, tmp_path: Path) -> None:
    """Two programs that know nothing of each other, the training's and the client's, make the same tensors."""
    path = paths.root() / "notebooks" / "data" / f"jets_{tagger.key}.root"
    flat = flatten(jets.read(path), _table(tagger.preprocess(), tmp_path))
    expected = padded_inputs(read_root(path), tagger)
    seen = flat.pad(np.arange(len(flat)))
    assert list(seen) == list(expected)
    for name, tensor in expected.items():
        assert tensor.shape == seen[name].shape
        assert np.abs(tensor - seen[name]).max() <= 1e-6, name
    assert tuple(label.removeprefix("prob") for label in tagger.labels) == jets.LABELS[tagger.key]


def test_five_thousand_jets_in_a_moment(tmp_path: Path) -> None:
    table = _table(AK4.preprocess(), tmp_path)
    times = []
    for _ in range(5):
        begin = time.process_time()
        flat = flatten(jets.read("ak4"), table)
        flat.pad(np.arange(len(flat)))
        times.append(time.process_time() - begin)
    assert len(flat) == 5000 and min(times) < LIMIT_S, times


def test_a_file_that_is_none() -> None:
    with pytest.raises(InputError, match="no file of jets 'ak5'"):
        jets.read("ak5")


def test_a_file_without_truth(tmp_path: Path) -> None:
    with uproot.recreate(tmp_path / "mine.root") as file:
        file.mktree("Jets", {"jet_pt": np.array([30.0, 40.0])})
    sample = jets.read(tmp_path / "mine.root")
    assert sample.jet_pt.to_list() == [30.0, 40.0] and "jet_class" not in sample.fields
    with pytest.raises(InputError, match="no true class"):
        jets.truth(sample, "b")
