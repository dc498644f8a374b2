"""The training of DeepTau: layers, occupied cells against dense grids, weights of the loss, the chain. Needs the training environment."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REASON = "needs the training environment, which `make -C training test` makes"
torch = pytest.importorskip("torch", reason=REASON)
from helpers.physics import taus  # noqa: E402
from training.taus import model, serving, train  # noqa: E402
from training.taus.features import preprocess  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


def shaken(sample: taus.Taus, seed: int = 4) -> model.DeepTau:
    """A network that has seen these taus: batch norms and slopes are not those of the start, and its answers differ."""
    torch.manual_seed(seed)
    network, table = model.DeepTau(), preprocess()
    train.standardise(network, sample, table)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
        elif isinstance(module, torch.nn.PReLU):
            torch.nn.init.uniform_(module.weight, -0.2, 0.5)
    network.train()
    with torch.no_grad():
        for _ in range(10):
            network.logits_of_cells(*train.pack(sample, table))
    return network.eval()


def test_layers_narrow_as_published():
    assert model.narrowing(113, 57, 1.4) == [113, 80, 57]
    network = model.DeepTau()
    widths = [layer.out_features for layer in network.tau if isinstance(layer, torch.nn.Linear)]
    assert widths == [113, 80, 57]
    for grid, convolutions in (("inner", 5), ("outer", 10)):
        layers = [layer for layer in network.shrink[grid] if isinstance(layer, torch.nn.Conv2d)]
        assert [layer.kernel_size for layer in layers] == [(3, 3)] * convolutions
        assert not any(any(layer.padding) for layer in layers)
        image = torch.zeros(2, model.CONVOLUTION_WIDTH, serving.SIDES[grid], serving.SIDES[grid])
        assert network.shrink[grid].eval()(image).shape == (2, model.CONVOLUTION_WIDTH, 1, 1)


def test_occupied_cells_and_dense_grids_give_the_same():
    sample = taus.read().take(np.arange(24))
    network, table = shaken(sample), preprocess()
    with torch.no_grad():
        dense = network(*(torch.from_numpy(values) for values in taus.tensors(sample, table).values()))
        sparse = network.logits_of_cells(*train.pack(sample, table)).softmax(dim=1)
    assert dense.std(dim=0).min() > 1e-3, "the answer must depend on the tau"
    torch.testing.assert_close(dense, sparse, rtol=0, atol=1e-5)


def test_gradients_reach_every_layer():
    sample = taus.read().take(np.arange(64))
    network = shaken(sample).train()
    scores = network.logits_of_cells(*train.pack(sample, preprocess()))
    torch.nn.functional.cross_entropy(scores, torch.from_numpy(sample.label)).backward()
    assert not [name for name, parameter in network.named_parameters() if not parameter.grad.abs().max() > 0]


def test_weights_give_all_classes_the_same_spectrum():
    rng = np.random.default_rng(5)
    label = rng.integers(0, 4, 40_000)
    pt = 20 + rng.exponential(20 + 3 * label)
    sample = taus.Taus({"tau_pt": pt}, {}, np.zeros(label.size, np.int64), label)
    weight = train.weights(sample)
    assert weight.mean() == pytest.approx(1, abs=1e-4)
    spectra = [np.histogram(pt[label == c], train.PT_BINS_GEV[:-1], weights=weight[label == c])[0] for c in range(4)]
    np.testing.assert_allclose(spectra, np.broadcast_to(np.mean(spectra, axis=0), np.shape(spectra)), rtol=0.02)


@pytest.mark.slow
def test_the_export_computes_what_was_trained(tmp_path: Path):
    pytest.importorskip("onnxscript", reason=REASON)
    from training.taus.export import export

    sample = taus.read().take(np.arange(40))
    assert export(shaken(sample), tmp_path, sample) <= 1e-5
    for name in ("config.pbtxt", "preprocess.json", "labels.txt"):
        assert (tmp_path / serving.MODEL / name).read_text() == (ROOT / "models" / serving.MODEL / name).read_text()


@pytest.mark.slow
def test_the_whole_chain_runs_on_a_trial_size_and_is_served(tmp_path: Path, free_base_port):
    for package in ("pythia8mc", "fastjet", "numba", "onnxscript"):
        pytest.importorskip(package, reason=REASON)
    command = [sys.executable, "-m", "training.taus", "all", "--events", "600", "--passes", "600", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "tau vs jet" in done.stdout
    for path in (f"models/{serving.MODEL}/1/model.onnx", "data/taus.npz", "loss.png"):
        assert (tmp_path / path).stat().st_size > 5_000, path
    from helpers.client import Client
    from helpers.server import launch_server

    made = taus.read(tmp_path / "data" / "taus.npz").take(np.arange(16))
    with (
        launch_server(tmp_path / "models", load=[serving.MODEL], base_port=free_base_port(), name="trial taus") as server,
        Client(server) as client,
    ):
        probabilities = client.infer(serving.MODEL, **taus.tensors(made))[serving.OUTPUT]
    assert probabilities.shape == (16, 4)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
