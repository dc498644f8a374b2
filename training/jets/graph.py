"""``make -C training graph``: the ParticleNet that the course serves against the same network written and exported plainly.

Plainly means as the architecture is usually written: channels before points, 1x1 convolutions on every edge of [x_i, x_j - x_i]. Both
have the same weights and compute the same; ONNX Runtime runs them on one thread, in turn. Needs PyTorch's exporter, so it runs in the
training's environment. A result is kept in benchmarks/results.csv.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from training.jets.agreement import network_of
from training.jets.dataset import padded_inputs
from training.jets.export import Runner, check, eager_runner, onnx_runner, to_onnx
from training.jets.features import TAGGERS
from training.jets.model import EdgeConv, FeatureConv, ParticleNet
from training.jets.sample import read_root
from training.jets.serving import input_names, output_name

ROOT = Path(__file__).parents[2]
BATCHES = (1, 10, 50)
# Padded lengths of candidates and vertices, as in the course text.
LENGTHS = (50, 4)
SLICE_S = 0.3
# How many times as fast the served graph is to be, at the batch sizes for which that is promised.
GOAL, GOAL_BATCHES = 2.0, (1, 10)
# Added to the coordinates of padding, so that it is nobody's neighbour.
_FAR = 1e9


class Plain(nn.Module):
    """The network as it is usually written, with the layers of the one that is served."""

    def __init__(self, network: ParticleNet) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, pf_points: Tensor, pf_features: Tensor, pf_mask: Tensor, sv_points: Tensor, sv_features: Tensor, sv_mask: Tensor
    ) -> Tensor:
        """Class probabilities (B, n_labels) of the same six tensors."""
        network, mask = self.network, torch.cat([pf_mask, sv_mask], dim=2)
        points = torch.cat([pf_points * pf_mask, sv_points * sv_mask], dim=2)
        features = torch.cat([_features(network.pf_conv, pf_features * pf_mask), _features(network.sv_conv, sv_features * sv_mask)], dim=2)
        features = features * mask
        shift = (mask == 0).to(points.dtype) * _FAR
        outputs: list[Tensor] = []
        for block in network.blocks:
            distances = _of_points(points + shift) if not outputs else _of_features(features + shift)
            # The nearest of all is the point itself.
            index = torch.topk(distances, network.k + 1, dim=2, largest=False)[1][:, :, 1:]
            features = _edge_block(block, features, index) * mask
            outputs.append(features)
        fused = torch.relu(network.norm_fusion(_convolution(network.fusion, torch.cat(outputs, dim=1)))) * mask
        pooled = fused.sum(dim=2) / mask.sum(dim=2).clamp(min=1.0)
        return torch.softmax(network.output(torch.relu(network.hidden(pooled))), dim=1)


def _convolution(linear: nn.Linear, x: Tensor) -> Tensor:
    """A 1x1 convolution of (B, C, P) or (B, C, P, k)."""
    if x.dim() == 4:
        return nn.functional.conv2d(x, linear.weight[:, :, None, None])
    return nn.functional.conv1d(x, linear.weight[:, :, None])


def _features(layers: FeatureConv, x: Tensor) -> Tensor:
    return torch.relu(layers.norm_out(_convolution(layers.linear, layers.norm_in(x))))


def _norm(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """Batch norm of (B, C, P, k)."""
    return nn.functional.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)


def _of_points(x: Tensor) -> Tensor:
    """(B, 2, P) to (B, P, P), from differences as the served network has it: equally near neighbours are then the same."""
    difference = x.unsqueeze(3) - x.unsqueeze(2)
    return (difference * difference).sum(dim=1)


def _of_features(x: Tensor) -> Tensor:
    square = (x * x).sum(dim=1)
    itself = torch.eye(x.size(2), dtype=x.dtype, device=x.device)
    return square.unsqueeze(2) + square.unsqueeze(1) - 2.0 * torch.matmul(x.transpose(1, 2), x) - 1e10 * itself


def _edge_block(block: EdgeConv, x: Tensor, index: Tensor) -> Tensor:
    """(B, C, P) and neighbours (B, P, k) to (B, width, P)."""
    n_jets, channels, n_points = x.shape
    k = index.size(2)
    flat = index.reshape(n_jets, 1, n_points * k).expand(n_jets, channels, n_points * k)
    neighbours = torch.gather(x, 2, flat).view(n_jets, channels, n_points, k)
    centre = x.unsqueeze(3).expand(n_jets, channels, n_points, k)
    edges = torch.cat([centre, neighbours - centre], dim=1)
    for linear, norm in ((block.first, block.norm_first), (block.second, block.norm_second), (block.third, block.norm_third)):
        edges = torch.relu(_norm(norm, _convolution(linear, edges)))
    return torch.relu(edges.mean(dim=3) + block.norm_shortcut(_convolution(block.shortcut, x)))


def measure(runners: dict[str, Runner], inputs: list[np.ndarray], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of CPU time of one run, for each round, in turn: on one thread that is the time of a machine without other work."""
    found: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        for name, run in runners.items():
            run(inputs)
            done, begin = 0, time.process_time()
            while (now := time.process_time()) - begin < SLICE_S:
                run(inputs)
                done += 1
            found[name].append(1000 * (now - begin) / done)
    return found


def multiply_adds(network: ParticleNet, points: int) -> tuple[float, float]:
    """Millions of multiplications in the dense layers for one jet: of the plain form, and of the served one."""
    edges, plain, served = points * network.k, 0, 0
    for block in network.blocks:
        width, twice_in = block.first.weight.shape
        later, shortcut = 2 * edges * width * width, points * width * twice_in // 2
        plain += edges * twice_in * width + later + shortcut
        # The first convolution runs once for each point, in two halves.
        served += points * twice_in * width + later + shortcut
    fusion = points * network.fusion.weight.numel()
    return (plain + fusion) / 1e6, (served + fusion) / 1e6


def table(rows: Sequence[tuple[int, dict[str, list[float]]]]) -> str:
    """A line for each batch size: medians, and the median of the rounds' ratios."""
    lines = [f"batch  plain (ms)  served (ms)  times as fast (goal {GOAL:g} at batch {' and '.join(map(str, GOAL_BATCHES))})"]
    for batch, times in rows:
        gain = statistics.median(plain / served for plain, served in zip(times["plain"], times["served"], strict=True))
        plain, served = (statistics.median(times[name]) for name in ("plain", "served"))
        lines.append(f"{batch:5}  {plain:10.2f}  {served:11.2f}  {gain:13.2f}")
    return "\n".join(lines)


def main() -> None:
    """Export, compare, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m training.jets.graph", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="how often everything is measured (default 15)")
    arguments = parser.parse_args()
    print(f"ONNX Runtime {onnxruntime.__version__}, one thread, CPU time; load average before {os.getloadavg()[0]:.1f}")
    torch.set_num_threads(1)
    tagger = TAGGERS["ak4"]
    jets = read_root(ROOT / "notebooks" / "data" / "jets_ak4.root")
    plain = Plain(network_of(ROOT / "models" / "particlenet_AK4_PT" / "1" / "model.pt", "ak4")).eval()
    batches = {batch: list(padded_inputs(jets.take(np.arange(batch)), tagger, *LENGTHS).values()) for batch in BATCHES}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plain.onnx"
        examples = [torch.from_numpy(x) for x in padded_inputs(jets.take(np.arange(5)), tagger, 40, 3).values()]
        axes = [{0: "batch", 2: "candidates"}] * 3 + [{0: "batch", 2: "vertices"}] * 3
        to_onnx(plain, examples, path, input_names(False), output_name(False), axes)
        runners = {"plain": onnx_runner(path), "served": onnx_runner(ROOT / "models" / "particlenet_AK4" / "1" / "model.onnx")}
        check(eager_runner(plain), runners["plain"], batches[10])
        difference = max(check(runners["served"], runners["plain"], inputs) for inputs in batches.values())
        rows = [(batch, measure(runners, inputs, arguments.rounds)) for batch, inputs in batches.items()]
    print(table(rows))
    plainly, served = multiply_adds(plain.network, sum(LENGTHS))
    print(f"Largest difference of a probability: {difference:.1e} (limit 1e-05).")
    print(f"Multiplications of the dense layers for a jet, in millions: {plainly:.0f} plain, {served:.0f} served.")


if __name__ == "__main__":
    main()
