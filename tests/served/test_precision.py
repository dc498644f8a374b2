"""Variants of lower precision: made by one command, served beside the model with the same tensors, close to it, and what they cost."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers import jets, paths, precision, repository
from helpers.__main__ import main
from helpers.errors import ModelError, SetupError
from helpers.physics.flavour import auc_change, roc
from helpers.precision.variants import CALIBRATION_JETS
from helpers.server import Server, launch_server

MODEL = "particlenet_AK4"
METHODS = ("fp16", "int8_static")


@pytest.fixture(scope="module")
def made(work: Path) -> list[Path]:
    """All ONNX variants, by the command that people type."""
    assert main(["quantize", MODEL]) == 0
    return [work / "models" / f"{MODEL}_{method}" for method in METHODS]


def element_types(path: Path) -> dict[str, set[int]]:
    """Types of the weights and kinds of the nodes of an ONNX file, as its own library reads it in the server's environment."""
    code = (
        "import json, onnx, sys; graph = onnx.load(sys.argv[1]).graph; "
        "print(json.dumps({'types': sorted({one.data_type for one in graph.initializer}), "
        "'kinds': sorted({node.op_type for node in graph.node}), "
        "'io': [[one.name, one.type.tensor_type.elem_type] for one in [*graph.input, *graph.output]]}))"
    )
    done = subprocess.run([paths.server_env() / "bin" / "python", "-c", code, path], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


FLOAT, FLOAT16, INT8 = 1, 10, 3


@pytest.mark.slow
def test_the_files_hold_what_their_names_say_and_are_in_32_bits_at_the_border(made: list[Path]) -> None:
    original = element_types(paths.models_dir() / MODEL / "1" / "model.onnx")
    fp16, static = (element_types(folder / "1" / "model.onnx") for folder in made)
    assert FLOAT16 in fp16["types"] and FLOAT16 not in original["types"]
    assert INT8 in static["types"] and "QuantizeLinear" in static["kinds"]
    assert all(each["io"] == original["io"] for each in (fp16, static))
    sizes = [(folder / "1" / "model.onnx").stat().st_size for folder in made]
    assert max(sizes) < 0.6 * (paths.models_dir() / MODEL / "1" / "model.onnx").stat().st_size


@pytest.mark.slow
def test_what_is_up_to_date_is_not_made_again_and_what_is_not_is(made: list[Path]) -> None:
    file = made[0] / "1" / "model.onnx"
    before = file.stat().st_mtime_ns
    assert precision.make(MODEL, ["fp16"]) == [made[0]]
    assert file.stat().st_mtime_ns == before
    repository.change_config(made[0].parent / MODEL, max_batch_size=300)
    precision.make(MODEL, ["fp16"])
    assert file.stat().st_mtime_ns > before
    assert repository.read_config(made[0]).max_batch_size == 300


@pytest.fixture(scope="module")
def serving(made: list[Path], free_base_port: Callable[[], int]) -> Iterator[Server]:
    with launch_server(
        "work/models", load=[MODEL, *(folder.name for folder in made)], base_port=free_base_port(), name="precision"
    ) as server:
        yield server


@pytest.mark.slow
def test_all_are_served_side_by_side_and_cost_next_to_nothing_in_physics(serving: Server, made: list[Path]) -> None:
    names = [folder.name for folder in made]
    assert {state.name for state in serving.models() if state.state == "READY"} == {MODEL, *names}
    tensors = [[(entry["name"], entry["datatype"]) for entry in serving.metadata(name)["inputs"]] for name in (MODEL, *names)]
    assert all(each == tensors[0] for each in tensors)
    sample = jets.read("ak4")[CALIBRATION_JETS : CALIBRATION_JETS + 700]
    costs = precision.cost(serving, names, reference=MODEL, jets=sample)
    at = {(row["model"], row["discriminant"]): row for row in costs}
    for name in names:
        row = at[name, "b_vs_light"]
        assert row["largest_change"] > 0, "it is not the same model"
        # Padding at a distance of 1e9, or neighbours chosen by 16-bit distances, would cost tenths.
        assert row["mean_change"] < 0.02, row
        assert abs(row["auc_change"]) < 0.005 + row["auc_change_half_width"], row
    assert at[MODEL, "b_vs_c"]["auc_change"] == 0
    # Rounding to 16 bits changes less than rounding to 8.
    assert at[names[0], "b_vs_c"]["mean_change"] < at[names[1], "b_vs_c"]["mean_change"]


def test_wrong_wishes_are_refused_in_words(work: Path) -> None:
    with pytest.raises(SetupError, match="The variant fp61 could not be made: KeyError"):
        precision.make(MODEL, ["fp61"])
    for name in (f"{MODEL}_PT", "add_sub"):
        with pytest.raises(ModelError, match=r"no model\.onnx"):
            precision.make(name)


@pytest.mark.nightly
def test_the_change_of_an_area_is_known_better_than_the_area() -> None:
    generator = np.random.default_rng(7)
    signal, background = generator.normal(1, 1, 400), generator.normal(0, 1, 500)
    rounded = np.round(signal, 1), np.round(background, 1)
    change, deviation = auc_change((signal, background), rounded)
    areas = [roc("x", *sides) for sides in ((signal, background), rounded)]
    assert change == pytest.approx(areas[1].auc - areas[0].auc, abs=1e-12)
    assert 0 < deviation < 0.2 * areas[0].auc_uncertainty
    assert auc_change((signal, background), (signal, background)) == (0.0, 0.0)
    # The deviation is that of the change: half of the samples, drawn anew, scatter by it.
    drawn = []
    for _ in range(300):
        s, b = generator.integers(0, 400, 400), generator.integers(0, 500, 500)
        drawn.append(auc_change((signal[s], background[b]), (rounded[0][s], rounded[1][b]))[0])
    assert np.std(drawn) == pytest.approx(deviation, rel=0.25)
