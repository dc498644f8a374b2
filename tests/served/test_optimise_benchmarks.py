"""The benchmarks of optimising: what they promise is judged from the numbers, and missed goals are named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import peers, peers_model, sweep
from helpers import repository
from helpers.measuring import measure
from helpers.server import Server


def rows(**rates: list[float]) -> list[peers.Row]:
    return [peers.Row(peers_model.PARTICLENET, 1, dict(rates), [0.9, 0.8]), peers.Row(peers_model.PARTICLENET, 8, dict(rates), [0.9, 0.8])]


def test_goals_that_are_missed_are_named_with_both_numbers() -> None:
    names = {"in process": [1000.0, 500.0], peers.OURS: [900.0, 450.0], peers.PYTRITON: [450.0, 225.0], peers.MLSERVER: [700.0, 350.0]}
    assert peers.missed(rows(**names)) == [
        f"{peers_model.PARTICLENET}, batch 1: 1.29 ± 0.00 of MLServer, goal 1.40",
        f"{peers_model.PARTICLENET}, batch 8: 0.90 ± 0.00 of in process, goal 0.97",
    ]
    text = peers.document(rows(**names), 2, 0.5)
    assert "| particlenet_AK4 | 8 | 750 | 675 | 338 | 525 | 0.90 ± 0.00 | 2.00 ± 0.00 | 1.29 ± 0.00 | 85% |" in text
    assert "Goals that are missed" in text


def test_a_ratio_has_the_interval_of_its_rounds() -> None:
    names = {"in process": [1000.0] * 3, peers.PYTRITON: [450.0] * 3, peers.MLSERVER: [700.0] * 3, peers.OURS: [900.0, 950.0, 1000.0]}
    one = rows(**names)[1]
    # 4.30 × 0.05 / √3, by Student's distribution.
    assert one.words("in process") == "0.95 ± 0.12"
    (missed,) = [line for line in peers.missed(rows(**names)) if "batch 8" in line]
    assert missed.endswith("0.95 ± 0.12 of in process, goal 0.97; its interval reaches over the goal: cannot tell")
    assert peers.ROUNDS >= 7


def test_a_loop_without_a_stable_result_is_no_yardstick() -> None:
    settled = {"loop": 500.0, "loop_mean": 500.0, "loop_spread": 20.0, "sweep": 510.0, "sweep_spread": 5.0}
    assert sweep.equal(settled) is True
    assert sweep.equal({**settled, "sweep": 600.0}) is False
    assert sweep.equal({**settled, "loop": None}) is None, "its windows did not agree"


@pytest.mark.slow
def test_the_sweep_is_timed_as_it_is_called(models_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop as the tool does it and a call of sweep(), on a small model with short windows."""
    monkeypatch.setattr(sweep, "MODEL", "add_sub")
    monkeypatch.setattr(sweep, "WINDOW_MS", 200)
    monkeypatch.setattr(measure, "WINDOW_S", (0.15, 1.0))
    row = sweep.compare(models_server, 1, sweep.find_perf_analyzer())
    assert row["sweep"] > 0 and row["sweep_windows"] >= 3 and row["sweep_s"] > 0.4
    assert row["loop_windows"] >= 3 and row["loop_s"] > 0.5
    assert "| 1 | " in sweep.table([row])


@pytest.mark.parametrize("path", sorted(Path(sweep.__file__).parent.glob("[A-Z]*.md")), ids=lambda path: path.stem)
def test_every_report_names_its_machine_its_date_and_its_load(path: Path) -> None:
    if path.name in ("README.md", "GPU.md"):
        # Written by people: the machine and the date are in the first sentences.
        assert re.search(r"\d+ cores of an ", path.read_text()) and re.search(r"\d{4}-\d\d-\d\d", path.read_text())
        return
    lines = [line for line in path.read_text().splitlines() if re.match(r"\d{4}-\d\d-\d\d; .+, \d+ cores, ", line)]
    assert lines, "what benchmarks.machine.machine() says"
    assert all(re.search(r"load average before the measurement \d", line) and "ONNX Runtime" in line for line in lines)


def test_all_servers_get_models_with_one_instance_and_one_thread(tmp_path: Path) -> None:
    files = peers_model.write_repository(tmp_path / "models")
    assert list(files) == [peers_model.PARTICLENET, peers_model.SMALL]
    for name, file in files.items():
        assert file.is_file()
        config = repository.read_config(tmp_path / "models" / name)
        assert [(group.count, config.parameters["intra_op_thread_count"].string_value) for group in config.instance_group] == [(1, "1")]
        assert not config.HasField("dynamic_batching")
        repository.validate(tmp_path / "models" / name)
    arrays = peers_model.arrays(peers_model.shapes(peers_model.PARTICLENET), 4)
    assert all(array.shape[0] == 4 and array.dtype == np.float32 for array in arrays.values())
    assert arrays["pf_mask"].min() == 1
