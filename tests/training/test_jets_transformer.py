"""The small transformer of notebook 11: what its masks promise, that the shipped files belong together, and its training on few jets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("numba", reason="needs the environment of the training: make -C training test")
pytest.importorskip("torch", reason="needs the environment of the training: make -C training test")
import torch

from training.jets import transformer
from training.jets.batches import TrainingSet
from training.jets.evaluate import QUESTIONS, area, split
from training.jets.export import check, eager_runner, onnx_runner
from training.jets.features import AK4
from training.jets.model import count_parameters
from training.jets.sample import read_root


@pytest.fixture(scope="module")
def network() -> transformer.JetTransformer:
    made = transformer.JetTransformer()
    made.load_state_dict(torch.load(transformer.FOLDER / "jet_transformer.pt", weights_only=True))
    return made.eval()


@pytest.fixture(scope="module")
def jets() -> TrainingSet:
    return TrainingSet(read_root(transformer.DATA / "jets_ak4.root").take(np.arange(500)), AK4)


def test_it_is_small(network: transformer.JetTransformer) -> None:
    assert count_parameters(network) == 47_048
    files = [path for path in transformer.FOLDER.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1e6, files


@torch.inference_mode()
def test_padding_and_the_order_of_candidates_change_nothing(network: transformer.JetTransformer, jets: TrainingSet) -> None:
    pf, pf_mask, sv, sv_mask = transformer.tensors(jets, np.arange(20))
    right = network(pf, pf_mask, sv, sv_mask)
    noise = torch.cat([pf, torch.full((20, 20, 7), 3.0)], dim=2)
    torch.testing.assert_close(network(noise, torch.nn.functional.pad(pf_mask, (0, 7)), sv, sv_mask), right, atol=1e-5, rtol=0)
    order = torch.randperm(pf.shape[2], generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(network(pf[:, :, order], pf_mask[:, :, order], sv, sv_mask), right, atol=1e-5, rtol=0)


def test_the_shipped_files_belong_together(network: transformer.JetTransformer, jets: TrainingSet) -> None:
    batch = [tensor.numpy() for tensor in transformer.tensors(jets, np.arange(100))]
    check(eager_runner(network), onnx_runner(transformer.FOLDER / "exported.onnx"), batch)
    assert json.loads((transformer.FOLDER / "preprocess.json").read_text()) == transformer.table()


def test_it_trains_goes_on_and_writes_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = read_root(transformer.DATA / "jets_ak4.root")
    sample.take(np.arange(3000)).save(tmp_path / "ak4" / "train" / "some.npz")
    (tmp_path / "data").mkdir()
    for passes in (2_000, 30_000):
        transformer.main(["--passes", str(passes), "--output", str(tmp_path), "--data", str(tmp_path / "data")])
    log = [json.loads(line) for line in (tmp_path / "transformer" / "log.jsonl").read_text().splitlines()]
    seen = [entry["seen"] for entry in log]
    assert seen == sorted(seen) and seen[0] >= 2_000 and seen[-1] >= 30_000, seen
    assert log[-1]["validation_loss"] < log[0]["validation_loss"]
    assert "| b vs light |" in capsys.readouterr().out
    test = sample.take(np.arange(3000, 5000))
    batch = transformer.tensors(TrainingSet(test, AK4), np.arange(2000))
    scores = onnx_runner(tmp_path / "data" / "exported.onnx")([tensor.numpy() for tensor in batch])
    question = QUESTIONS["ak4"][0]
    signal, background = split(AK4, question, scores, test.label)
    assert area(signal, background) > 0.8
