"""Grids of taus: which cell, which particle, which features; and what lies beside the served model."""

from __future__ import annotations

import base64
import json
import math

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from helpers import paths
from helpers.measuring.input_files import write_taus
from helpers.physics import taus
from helpers.physics.taus import Taus
from training.taus import features, serving

FOLDER = paths.root() / "models" / taus.MODEL
SIZES = {"egamma": 86, "muon": 64, "hadrons": 38}


def tau(*candidates: dict, tau_pt: float = 40.0, label: int = 2) -> Taus:
    """One tau at pseudorapidity 1 with these candidates, largest transverse momentum first; what is not given is 0."""
    names = {name for inputs in features.inputs().values() for name in inputs}
    stored = {"pfCand_" + name.split("_", 2)[2] for name in names if name.startswith("pfCand_")} | {"pfCand_type"}
    columns = {name: np.array([c.get(name.removeprefix("pfCand_"), 0) for c in candidates], np.float64) for name in stored}
    columns["pfCand_type"] = columns["pfCand_type"].astype(np.int8)
    high = {name: np.zeros(1) for name, transform in features.HIGH_LEVEL.items() if transform}
    high |= {"tau_pt": np.array([tau_pt]), "tau_eta": np.array([1.15])}
    return Taus(high, columns, np.array([len(candidates)]), np.array([label]))


def column(name: str, tensor: str) -> int:
    return list(features.inputs()[tensor]).index(name)


def test_the_inputs_have_the_sizes_of_the_contract():
    shapes = {"input_tau": (47,)}
    for grid, side in (("inner", 11), ("outer", 21)):
        shapes |= {f"input_{grid}_{kind}": (side, side, n) for kind, n in SIZES.items()}
    assert serving.shapes() == shapes
    assert sum(math.prod(shape) for shape in shapes.values()) == 105_703


def test_the_config_keeps_the_contract():
    config = text_format.Parse((FOLDER / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert {i.name: tuple(i.dims) for i in config.input} == serving.shapes()
    assert {model_config_pb2.DataType.Name(i.data_type) for i in (*config.input, *config.output)} == {"TYPE_FP32"}
    assert [(o.name, list(o.dims)) for o in config.output] == [("main_output/Softmax", [4])]
    assert config.max_batch_size == 1000
    assert list(config.dynamic_batching.preferred_batch_size) == [16, 32]
    assert config.platform == "onnxruntime_onnx"


def test_what_lies_beside_the_weights_is_what_the_training_used():
    assert (FOLDER / "config.pbtxt").read_text() == serving.config_text()
    assert json.loads((FOLDER / "preprocess.json").read_text()) == json.loads(json.dumps(features.preprocess()))
    assert tuple((FOLDER / "labels.txt").read_text().split()) == features.LABELS == taus.LABELS


@pytest.mark.parametrize(
    ("deta", "dphi", "inner", "outer"),
    [
        (0.0, 0.0, (5, 5), (10, 10)),
        (0.0099, -0.0099, (5, 5), (10, 10)),
        (0.0101, -0.0101, (6, 4), (10, 10)),
        (0.03, -0.03, (7, 4), (11, 9)),  # on an edge: the cell above
        (0.06, 0.02, (8, 6), (11, 10)),
        (0.08, 0.02, None, (12, 10)),  # outside the signal cone of 3 GeV / 40 GeV
        (-0.3, 0.39, None, (4, 18)),
        (0.36, 0.36, None, None),  # farther than 0.5 from the axis
    ],
)
def test_a_candidate_is_in_the_cell_around_it(deta, dphi, inner, outer):
    found = taus.tensors(tau({"type": 3, "rel_pt": 0.5, "deta": deta, "dphi": dphi}))
    for grid, cell in (("inner", inner), ("outer", outer)):
        values = found[f"input_{grid}_hadrons"][0]
        occupied = np.argwhere(values.any(axis=2))
        assert occupied.tolist() == ([] if cell is None else [list(cell)])
        if cell:
            assert values[(*cell, column("pfCand_chHad_valid", f"input_{grid}_hadrons"))] == 1


def test_the_signal_cone_shrinks_with_the_momentum():
    at = {"type": 2, "rel_pt": 0.5, "deta": 0.07}
    occupied = [taus.tensors(tau(at, tau_pt=pt))["input_inner_egamma"].any() for pt in (30.0, 42.0, 43.0, 200.0)]
    assert occupied == [True, True, False, False]
    assert taus.tensors(tau(at | {"deta": 0.049}, tau_pt=200.0))["input_inner_egamma"].any()


def test_the_hardest_of_a_kind_has_the_cell():
    found = taus.tensors(
        tau(
            {"type": 3, "rel_pt": 0.5, "charge": 1},
            {"type": 2, "rel_pt": 0.3},
            {"type": 3, "rel_pt": 0.2, "charge": -1},
            {"type": 2, "rel_pt": 0.1},
        )
    )
    hadrons, egamma = found["input_inner_hadrons"][0, 5, 5], found["input_inner_egamma"][0, 5, 5]
    assert hadrons[column("pfCand_chHad_charge", "input_inner_hadrons")] == 1
    assert hadrons[column("pfCand_chHad_rel_pt", "input_inner_hadrons")] == pytest.approx((0.5 - 0.2564) / 0.8607, rel=1e-5)
    assert egamma[column("pfCand_gamma_rel_pt", "input_inner_egamma")] == pytest.approx((0.3 - 0.6048) / 1.669, rel=1e-5)
    assert egamma[column("pfCand_ele_valid", "input_inner_egamma")] == 0


def test_the_grids_scale_by_their_own_size():
    found = taus.tensors(tau({"type": 0, "rel_pt": 0.9, "deta": 0.05, "dphi": -0.02}))
    for grid, scale in (("inner", 0.1), ("outer", 0.5)):
        name = f"input_{grid}_egamma"
        values = found[name][found[name].any(axis=3)][0]
        assert values[column("pfCand_ele_deta", name)] == pytest.approx(0.05 / scale, rel=1e-5)
        assert values[column("pfCand_ele_dphi", name)] == pytest.approx(-0.02 / scale, rel=1e-5)


def test_every_occupied_cell_knows_its_tau_in_all_three_tensors():
    found = taus.tensors(tau({"type": 4, "rel_pt": 0.1, "deta": 0.2}, tau_pt=118.0))
    for kind in SIZES:
        name = f"input_outer_{kind}"
        cells = np.argwhere(found[name].any(axis=3))
        assert cells.tolist() == [[0, 14, 10]]
        values = found[name][0, 14, 10]
        assert values[column("tau_pt", name)] == pytest.approx(0.1)
        assert values[column("tau_eta", name)] == pytest.approx(0.5)
        assert values[column("rho", name)] == 0


def test_values_that_are_no_numbers_become_zero_before_the_transform():
    info = features.HIGH_LEVEL["tau_mass"].info()
    np.testing.assert_allclose(taus.transform(np.array([np.nan, np.inf, 0.0]), info), np.full(3, -0.6669 / 0.6553), rtol=1e-6)
    np.testing.assert_allclose(taus.transform(np.array([1e9, -1e9]), info), [5, -5])


def test_taking_taus_takes_their_candidates():
    sample = taus.read()
    order = np.random.default_rng(1).permutation(len(sample))[:40]
    apart = [taus.tensors(sample.take([i])) for i in order]
    together = taus.tensors(sample.take(order))
    for name, values in together.items():
        np.testing.assert_array_equal(values, np.concatenate([one[name] for one in apart]))


def moved(value: float, info: dict[str, float]) -> np.float32:
    x = np.float32(value if math.isfinite(value) else info["replace_inf_value"])
    shifted = (x - np.float32(info["median"])) * np.float32(info["norm_factor"])
    return max(np.float32(info["lower_bound"]), min(np.float32(info["upper_bound"]), shifted))


def by_hand(one: Taus) -> dict[str, np.ndarray]:
    """One tau, particle by particle, without the functions under test."""
    table = taus.table()
    made = {name: np.zeros(shape, np.float32) for name, shape in serving.shapes().items()}
    for position, name in enumerate(table["input_tau"]["var_names"]):
        if info := table["input_tau"]["var_infos"].get(name):
            made["input_tau"][position] = moved(float(one.features[name][0]), info)
    for grid, (side, size) in (("inner", (11, 0.02)), ("outer", (21, 0.05))):
        reach = min(0.1, max(0.05, 3.0 / float(one.features["tau_pt"][0]))) if grid == "inner" else 0.5
        taken = set()
        for number in range(int(one.n_candidates[0])):
            particle = {name: values[number] for name, values in one.candidates.items()}
            deta, dphi, kind = (np.float32(particle[f"pfCand_{name}"]) for name in ("deta", "dphi", "type"))
            row, column = (math.floor(float(each / np.float32(size)) + 0.5) + side // 2 for each in (deta, dphi))
            if np.hypot(deta, dphi) >= reach or not (0 <= row < side and 0 <= column < side):
                continue
            first_of_kind = (row, column, kind) not in taken
            taken.add((row, column, kind))
            for name in (name for name in made if f"_{grid}_" in name):
                for position, feature in enumerate(table[name]["var_names"]):
                    info = table[name]["var_infos"].get(feature)
                    if info is None:
                        continue
                    if not feature.startswith("pfCand_"):
                        made[name][row, column, position] = moved(float(one.features[feature][0]), info)
                    elif feature.startswith(f"pfCand_{taus.KINDS[int(kind)]}_") and first_of_kind:
                        quantity = feature.split("_", 2)[2]
                        made[name][row, column, position] = moved(
                            1.0 if quantity == "valid" else float(particle[f"pfCand_{quantity}"]), info
                        )
    return made


def test_the_grids_filled_at_once_are_those_of_a_loop():
    few = taus.read().take(range(8))
    tensors = taus.tensors(few)
    for number in range(len(few)):
        for name, expected in by_hand(few.take([number])).items():
            assert tensors[name].dtype == np.float32
            np.testing.assert_allclose(tensors[name][number], expected, atol=2e-6, err_msg=f"{name} of tau {number}")


def test_a_tau_without_candidates_has_empty_grids():
    found = taus.tensors(tau())
    assert [name for name, values in found.items() if values.any()] == ["input_tau"]


def test_a_file_of_taus_for_perf_analyzer(work):
    entries = json.loads(write_taus().read_text())["data"]
    assert len(entries) == 20 and [tuple(entries[0][name]["shape"]) for name in entries[0]] == [*serving.shapes().values()]
    third = np.frombuffer(base64.b64decode(entries[2]["input_inner_muon"]["content"]["b64"]), np.float32)
    np.testing.assert_array_equal(third, taus.tensors(taus.read().take([2]))["input_inner_muon"].ravel())


def test_the_sample_is_small_and_sound():
    path = paths.root() / "notebooks" / "data" / taus.SAMPLE
    assert path.stat().st_size < 3_000_000
    sample = taus.read()
    assert np.bincount(sample.label, minlength=4).min() > 0.15 * len(sample)
    assert sample.n_candidates.min() >= 1
    for values in (*sample.features.values(), *sample.candidates.values()):
        assert np.isfinite(values).all()
    first = np.cumsum(sample.n_candidates) - sample.n_candidates
    falling = np.diff(sample.candidates["pfCand_rel_pt"]) <= 0
    falling[first[1:] - 1] = True
    assert falling.all(), "candidates must be ordered by transverse momentum"
    assert (np.add.reduceat(sample.candidates["pfCand_leadChargedHadrCand"], first) == 1).all()


def test_the_sample_looks_like_taus():
    sample = taus.read()
    isolation = {label: np.median(sample.features["chargedIsoPtSum"][sample.label == i]) for i, label in enumerate(taus.LABELS)}
    assert isolation["jet"] > 5 > isolation["tau"]
    true = sample.label == taus.LABELS.index("tau")
    assert 0.3 < np.median(sample.features["tau_mass"][true]) < 1.3
    assert (np.abs(sample.features["tau_charge"][true]) == 1).mean() > 0.85
    kinds = sample.candidates["pfCand_type"][sample.candidates["pfCand_leadChargedHadrCand"] == 1]
    share = {
        label: (kinds[sample.label == i] == kind).mean() for i, (label, kind) in enumerate(zip(taus.LABELS, (0, 1, 3, 3), strict=True))
    }
    assert share["electron"] > 0.6
    assert share["muon"] > 0.85
    assert share["tau"] > 0.95
