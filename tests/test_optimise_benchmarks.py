"""The benchmarks of optimising: what they promise is judged from the numbers, and missed goals are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks import peers, peers_model
from helpers import repository


def rows(**rates: list[float]) -> list[peers.Row]:
    return [peers.Row(peers_model.PARTICLENET, 1, dict(rates), [0.9, 0.8]), peers.Row(peers_model.PARTICLENET, 8, dict(rates), [0.9, 0.8])]


def test_goals_that_are_missed_are_named_with_both_numbers() -> None:
    names = {"in process": [1000.0, 500.0], peers.OURS: [900.0, 450.0], peers.PYTRITON: [450.0, 225.0], peers.MLSERVER: [700.0, 350.0]}
    assert peers.missed(rows(**names)) == [
        f"{peers_model.PARTICLENET}, batch 1: 1.29 of MLServer, goal 1.40",
        f"{peers_model.PARTICLENET}, batch 8: 0.90 of in process, goal 0.97",
    ]
    text = peers.document(rows(**names), 2, 0.5)
    assert "| particlenet_AK4 | 8 | 750 | 675 | 338 | 525 | 0.90 | 2.00 | 1.29 | 85% |" in text
    assert "Goals that are missed" in text


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
