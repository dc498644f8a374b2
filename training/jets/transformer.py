"""Train the small transformer of notebook 11 on the jets of the AK4 tagger: ``python -m training.jets.transformer``.

The network itself is ``notebooks/data/jet_transformer/jet_transformer.py``, which students read and export. It gets the jets that
`generate` made, with the features and the class weights of ParticleNet. Killed and typed again, it goes on where it was. At the end its
weights, the table of its inputs and its ONNX file lie beside it, and a table compares it with ParticleNet on the shipped jets.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from .batches import TrainingSet, class_weights
from .dataset import JetTable
from .evaluate import QUESTIONS, answer, area, scores, split
from .export import check, eager_runner, onnx_runner, to_onnx
from .features import AK4
from .pause import wait_while_paused
from .sample import read_root
from .train import load_split

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = REPOSITORY / "notebooks" / "data"
FOLDER = DATA / "jet_transformer"
sys.path.insert(0, str(FOLDER))

from jet_transformer import JetTransformer  # noqa: E402

PASSES = 400_000
BATCH_SIZE, LEARNING_RATE, WARM_UP_STEPS, WEIGHT_DECAY, SEED = 128, 2e-3, 300, 0.01, 1
ROUND_JETS = 16_384
"""Jets between two checkpoints."""
INPUTS = ("pf_features", "pf_mask", "sv_features", "sv_mask")
PLACES = (1, 2, 4, 5)
"""Where these stand among ParticleNet's six."""


def table() -> dict:
    """The table that the client reads, as ParticleNet's without the points, which are among the features, too."""
    full = AK4.preprocess()
    chosen = {name: {**full[name], "min_length": 1} for name in INPUTS}
    return {"output_names": full["output_names"], "input_names": list(INPUTS), **chosen}


def tensors(jets: TrainingSet, chosen: np.ndarray) -> list[torch.Tensor]:
    """The network's four inputs for these jets."""
    padded = jets.padded(chosen)
    return [padded[place] for place in PLACES]


def train(output: Path, passes: int) -> JetTransformer:
    """Show so many jets to the network, from the last checkpoint on."""
    torch.manual_seed(SEED)
    network, file, log = JetTransformer(), output / "checkpoint.pt", output / "log.jsonl"
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    seen, steps, seconds = 0, 0, 0.0
    output.mkdir(parents=True, exist_ok=True)
    if file.exists():
        state = torch.load(file, weights_only=True)
        network.load_state_dict(state["network"])
        optimiser.load_state_dict(state["optimiser"])
        seen, steps, seconds = state["seen"], state["steps"], state["seconds"]
    known: dict[Path, JetTable] = {}
    with tqdm(total=passes, initial=seen, unit="jet", mininterval=5) as bar:
        while seen < passes:
            training, validation = (TrainingSet(jets, AK4) for jets in load_split("ak4", output.parent, known))
            weight = class_weights(training.label.numpy(), len(AK4.labels))
            began, losses, before = time.perf_counter(), 0.0, seen
            torch.manual_seed(SEED + seen)
            network.train()
            for chosen in training.epoch(np.random.default_rng([SEED, seen]), BATCH_SIZE, weight, min(1.0, ROUND_JETS / len(training))):
                wait_while_paused(output.parent)
                # Up to full speed in some steps, then down along half a cosine.
                rate = min(1.0, (steps + 1) / WARM_UP_STEPS) * 0.5 * (1 + math.cos(math.pi * min(1.0, seen / passes)))
                optimiser.param_groups[0]["lr"] = LEARNING_RATE * rate
                loss = cross_entropy(network.logits(*tensors(training, chosen)), training.label[chosen])
                optimiser.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimiser.step()
                seen, steps, losses = seen + chosen.size, steps + 1, losses + loss.item() * chosen.size
                bar.update(chosen.size)
            seconds += time.perf_counter() - began
            entry = {"seen": seen, "jets": len(training), "loss": losses / (seen - before), "seconds": round(seconds)}
            entry["validation_loss"] = validate(network, validation)
            bar.set_postfix_str(f"loss {entry['loss']:.3f}, on held-out jets {entry['validation_loss']:.3f}")
            with log.open("a") as lines:
                lines.write(json.dumps(entry) + "\n")
            partial = file.with_suffix(".partial")
            state = {"network": network.state_dict(), "optimiser": optimiser.state_dict()}
            torch.save({**state, "seen": seen, "steps": steps, "seconds": seconds}, partial)
            partial.replace(file)
    return network.eval()


@torch.inference_mode()
def validate(network: JetTransformer, jets: TrainingSet) -> float:
    """The loss on jets of events that were kept from training."""
    network.eval()
    losses = [
        cross_entropy(network.logits(*tensors(jets, chosen)), jets.label[chosen], reduction="sum").item()
        for chosen in jets.evaluation_batches(64)
    ]
    return sum(losses) / len(jets)


def write(network: JetTransformer, data: Path, jets: JetTable) -> float:
    """Write weights, table and ONNX file; return the largest difference between file and network on real jets."""
    torch.save(network.state_dict(), data / "jet_transformer.pt")
    (data / "preprocess.json").write_text(json.dumps(table(), indent=1) + "\n")
    real = TrainingSet(jets, AK4)
    axes = [{0: "batch", 2: "candidates"}] * 2 + [{0: "batch", 2: "vertices"}] * 2
    to_onnx(network, tensors(real, np.arange(5)), data / "exported.onnx", INPUTS, "softmax", axes)
    exported, eager = onnx_runner(data / "exported.onnx"), eager_runner(network)
    batches = [[tensor.numpy() for tensor in tensors(real, np.arange(n))] for n in (1, 3, 100)]
    return max(check(eager, exported, batch) for batch in batches)


def compare(network: JetTransformer, jets: JetTable) -> str:
    """Areas under the ROC curves of both networks on the same jets, and the change with its uncertainty, as a Markdown table."""
    run = eager_runner(network)
    both = [
        scores(onnx_runner(REPOSITORY / "models" / AK4.model / "1" / "model.onnx"), AK4, jets),
        scores(lambda inputs: run([inputs[place] for place in PLACES]), AK4, jets),
    ]
    lines = ["| question | ParticleNet | transformer | change | jets (signal / background) |", "|---|---|---|---|---|"]
    rng = np.random.default_rng(3)
    for question in QUESTIONS["ak4"]:
        known = [answer(AK4, question, each, jets.label) for each in both]
        pairs = [split(AK4, question, each, jets.label) for each in both]
        changes = []
        for _ in range(300):
            # The same jets are drawn for both: what they have in common is no uncertainty of the change.
            signal, background = (rng.integers(0, group.size, group.size) for group in pairs[0])
            old, new = (area(s[signal], b[background]) for s, b in pairs)
            changes.append(new - old)
        areas = " | ".join(f"{each.area:.4f} ± {each.uncertainty:.4f}" for each in known)
        change = f"{known[1].area - known[0].area:+.4f} ± {np.std(changes):.4f}"
        lines.append(f"| {question.name} | {areas} | {change} | {known[0].n_signal} / {known[0].n_background} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Train, write, compare."""
    parser = argparse.ArgumentParser(prog="python -m training.jets.transformer", description="Train the transformer of notebook 11.")
    parser.add_argument("--passes", type=int, default=PASSES, help="jets shown in training")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "work" / "training" / "jets", help="working folder with ak4/train")
    parser.add_argument("--data", type=Path, default=FOLDER, help="where weights, table and ONNX file go")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    network = train(options.output / "transformer", options.passes)
    jets = read_root(DATA / "jets_ak4.root")
    print(f"the ONNX file differs from PyTorch by at most {write(network, options.data, jets):.1e} on shipped jets")
    print(compare(network, jets))


if __name__ == "__main__":
    main()
