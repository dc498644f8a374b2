"""The training code: architecture, packed kernels, exporters' silent errors, the chain. Needs the training environment."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

REASON = "needs the training environment, which `make -C training test` makes"
torch = pytest.importorskip("torch", reason=REASON)
pytest.importorskip("onnxruntime", reason=REASON)
from training.jets import export, model  # noqa: E402
from training.jets.dataset import JetTable, padded_inputs  # noqa: E402
from training.jets.features import TAGGERS  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


def real_jets(key: str) -> JetTable:
    pytest.importorskip("uproot", reason=REASON)
    from training.jets.sample import read_root

    return read_root(ROOT / "notebooks" / "data" / f"jets_{key}.root")


@pytest.mark.parametrize(("key", "parameters"), [("ak4", 232_486), ("ak8", 582_492)])
def test_parameter_counts_are_those_of_cms(key: str, parameters: int):
    assert model.count_parameters(model.build(key)) == parameters == model.LAYOUTS[key].parameters


def edge_block_by_the_book(block: model.EdgeConv, rows: torch.Tensor, neighbours: torch.Tensor) -> torch.Tensor:
    """One edge block, straight from its definition, with convolutions over edges."""
    near = rows[neighbours].view(len(rows), block.k, -1)
    edges = torch.cat([rows[:, None].expand_as(near), near - rows[:, None]], dim=2).flatten(0, 1)
    for linear, norm in (
        (block.first, block.norm_first),
        (block.second, block.norm_second),
        (block.third, block.norm_third),
    ):
        edges = torch.relu(norm(torch.nn.functional.conv1d(edges.T[None], linear.weight[:, :, None])[0].T))
    return torch.relu(edges.view(len(rows), block.k, -1).mean(1) + block.norm_shortcut(block.shortcut(rows)))


def test_the_split_first_convolution_is_the_same_function():
    torch.manual_seed(1)
    block = model.EdgeConv(5, 7, 3).double().eval()
    for norm in (block.norm_first, block.norm_second, block.norm_third, block.norm_shortcut):
        torch.nn.init.uniform_(norm.weight)
        torch.nn.init.uniform_(norm.running_mean)
    rows, neighbours = torch.randn(11, 5).double(), torch.randint(0, 11, (33,))
    with torch.no_grad():
        torch.testing.assert_close(block(rows, neighbours), edge_block_by_the_book(block, rows, neighbours))


def test_neighbours_are_the_nearest_real_points():
    rng = np.random.default_rng(2)
    points = torch.from_numpy(rng.normal(size=(2, 9, 2)).astype(np.float32))
    hidden = torch.zeros(2, 9)
    hidden[1, 6:] = 1
    index = model.nearest_neighbours(model.squared_distances_of_points(points), hidden, 4).view(2, 9, 4)
    for jet, real in ((0, 9), (1, 6)):
        for i in range(real):
            distance = ((points[jet, :real] - points[jet, i]) ** 2).sum(1).numpy()
            expected = set(np.argsort(distance)[1:5] + 9 * jet)
            assert set(index[jet, i].tolist()) == expected


@pytest.mark.slow
@pytest.mark.parametrize("key", list(TAGGERS))
def test_the_packed_kernels_train_the_same_network(key: str):
    pytest.importorskip("numba", reason=REASON)
    from training.jets import fast
    from training.jets.batches import TrainingSet

    jets = real_jets(key)
    # Jets of one length, so that the plain network sees no padding either.
    length = np.bincount(jets.n_candidates[(jets.n_vertices == 1) & (jets.n_candidates >= 20)]).argmax()
    chosen = jets.take(np.flatnonzero((jets.n_candidates == length) & (jets.n_vertices == 1))[:12])
    assert len(chosen) >= 4
    data = TrainingSet(chosen, TAGGERS[key])
    torch.manual_seed(3)
    network = model.build(key)
    network.dropout.p = 0.0
    weights, outputs, gradients, statistics = torch.randn(len(chosen), len(TAGGERS[key].labels)), [], [], []
    state = {name: value.clone() for name, value in network.state_dict().items()}
    for packed in (True, False):
        network.load_state_dict(state)
        network.zero_grad()
        jet = np.arange(len(chosen))
        batch = data.pack(jet, 100, 1)
        scores = fast.logits(network, batch, fast.Workspace(), network.k) if packed else network.logits(*data.padded(jet))
        (scores * weights).sum().backward()
        outputs.append(scores.detach())
        gradients.append({n: p.grad.clone() for n, p in network.named_parameters()})
        statistics.append({n: b.clone().float() for n, b in network.named_buffers() if "tracked" not in n})
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-4)
    for name, expected in gradients[1].items():
        scale = max(float(expected.abs().max()), 1e-3)
        assert float((gradients[0][name] - expected).abs().max()) < 0.02 * scale, name
    for name, expected in statistics[1].items():
        torch.testing.assert_close(statistics[0][name], expected, rtol=1e-3, atol=1e-4)


class SumOverNeighbours(torch.nn.Module):
    """Sums rows that share an index: what the old exporter gets wrong."""

    def forward(self, rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return torch.zeros(8, 3).index_add(0, index, rows)


class SafeDivision(torch.nn.Module):
    """Divides by a sum that real jets make zero, guarded by a constant: what the new exporter may delete."""

    def __init__(self, guard: float) -> None:
        super().__init__()
        self.guard = guard

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values / (values.sum(dim=2, keepdim=True) + self.guard)


@pytest.mark.slow
def test_the_check_catches_the_old_exporters_lost_sum(tmp_path: Path):
    pytest.importorskip("onnxscript", reason=REASON)
    module = SumOverNeighbours()
    inputs = [np.arange(18, dtype=np.float32).reshape(6, 3), np.array([0, 1, 1, 2, 2, 2])]
    examples = [torch.from_numpy(x) for x in inputs]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, tuple(examples), str(tmp_path / "bad.onnx"), dynamo=False, opset_version=17,
            input_names=["rows", "index"], output_names=["sums"],
        )  # fmt: skip
    with pytest.raises(export.ExportMismatch):
        export.check(export.eager_runner(module), export.onnx_runner(tmp_path / "bad.onnx"), inputs)
    export.to_onnx(module, examples, tmp_path / "good.onnx", ["rows", "index"], "sums", [{}, {}])
    export.check(export.eager_runner(module), export.onnx_runner(tmp_path / "good.onnx"), inputs)


@pytest.mark.slow
def test_the_check_catches_the_new_exporters_deleted_guard(tmp_path: Path):
    pytest.importorskip("onnxscript", reason=REASON)
    jets = real_jets("ak4").take(np.arange(20))
    # The vertex masks of real jets: most sum to zero. Random numbers would not.
    inputs = [padded_inputs(jets, TAGGERS["ak4"])["sv_mask"]]
    for guard, name in ((1e-8, "bad"), (1e-6, "good")):
        module = SafeDivision(guard)
        export.to_onnx(module, [torch.from_numpy(inputs[0])], tmp_path / f"{name}.onnx", ["x"], "y", [{}])
        reference, exported = export.eager_runner(module), export.onnx_runner(tmp_path / f"{name}.onnx")
        if name == "bad":
            with pytest.raises(export.ExportMismatch), np.errstate(all="ignore"):
                export.check(reference, exported, inputs)
        else:
            export.check(reference, exported, inputs)


def test_no_guard_of_the_network_is_small_enough_to_be_deleted():
    for key in TAGGERS:
        norms = [m for m in model.build(key).modules() if isinstance(m, torch.nn.BatchNorm1d)]
        assert min(n.eps for n in norms) > 2e-8
    assert "index_add" not in (ROOT / "training" / "jets" / "model.py").read_text()


@pytest.mark.slow
def test_the_whole_chain_runs_on_a_trial_size_and_is_served(tmp_path: Path, free_base_port):
    for package in ("pythia8mc", "fastjet", "numba", "onnxscript"):
        pytest.importorskip(package, reason=REASON)
    command = [sys.executable, "-m", "training.jets", "all", "ak4", "--events", "2000", "--output", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1500)
    assert done.returncode == 0, done.stderr[-3000:]
    for path in ("models/particlenet_AK4/1/model.onnx", "models/particlenet_AK4_PT/1/model.pt", "data/jets_ak4.root"):
        assert (tmp_path / path).stat().st_size > 10_000, path
    assert "b vs light" in done.stdout
    assert (tmp_path / "ak4" / "roc.png").exists()
    assert (tmp_path / "ak4" / "loss.png").exists()
    from helpers import jets
    from helpers.client import Client
    from helpers.server import launch_server

    made = jets.read(tmp_path / "data" / "jets_ak4.root")[:64]
    with (
        launch_server(tmp_path / "models", load=["particlenet_AK4"], base_port=free_base_port(), name="trial jets") as server,
        Client(server) as client,
    ):
        probabilities = np.asarray(jets.Tagger(client, "particlenet_AK4").tag(made).probabilities)
    assert probabilities.shape == (64, 8)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
