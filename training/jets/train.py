"""Train ParticleNet: on CPUs with the packed kernels, on a GPU with plain PyTorch.

Training goes in rounds of a fixed number of jets; after each round a checkpoint is
written, from which the same command goes on. Shards that were generated meanwhile join
at the next round, so training may start while generation still runs.

Typical use::

    python -m training.jets train ak8 --passes 500000
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from .batches import TrainingSet, class_weights
from .dataset import JetTable
from .features import TAGGERS, Tagger
from .model import ParticleNet, build
from .pause import wait_while_paused

ROUND_JETS = 4_096
VALIDATION_ONE_IN = 20
"""One event in this many is kept from training; by event, so that no event is on both sides."""
VALIDATION_MAX_JETS = 2_000
CALIBRATION_JETS = 3_000


@dataclass(frozen=True)
class Recipe:
    """How to train one tagger.

    Attributes:
        passes: Jets shown in all, each as often as it was drawn.
        batch_size: Jets per step.
        learning_rate: At the plateau.
        stages: Progress (0 to 1) at which a stage begins, how many of the k neighbours each
            edge block then uses, at random, and how many candidates are kept per jet: the
            early stages are cheap. `Trainer.calibrate` at the end uses all of both.
        decay_from: Progress from which the learning rate falls linearly to 0.
        weight_decay: Of AdamW.
        seed: Of initialisation, shuffling and dropout.
    """

    passes: int
    batch_size: int
    learning_rate: float
    stages: tuple[tuple[float, int, int], ...]
    decay_from: float
    weight_decay: float = 0.01
    seed: int = 1


RECIPES = {
    "ak4": Recipe(1_000_000, 128, 3e-3, ((0, 3, 24), (0.8, 6, 50)), 0.5),
    "ak8": Recipe(240_000, 64, 2e-3, ((0, 3, 24), (0.6, 5, 48), (0.9, 8, 100)), 0.5),
}
WARM_UP_STEPS = 300


def load_split(key: str, output: Path, known: dict[Path, JetTable]) -> tuple[JetTable, JetTable]:
    """Training and validation jets of all shards present. ``known`` caches what was read."""
    for path in sorted((output / key / "train").glob("*.npz")):
        if not path.name.startswith(".") and path not in known:
            known[path] = JetTable.load(path)
    if not known:
        raise FileNotFoundError(f"no jets under {output / key / 'train'}: run `generate {key}` first")
    jets = JetTable.concatenate(list(known.values()))
    held_out = jets.event % VALIDATION_ONE_IN == 0
    chosen = np.flatnonzero(held_out)
    every = -(-chosen.size // VALIDATION_MAX_JETS)  # spread over all processes
    return jets.take(np.flatnonzero(~held_out)), jets.take(chosen[::every])


class Trainer:
    """One training run with its checkpoint, log and data.

    Args:
        key: ``"ak4"`` or ``"ak8"``.
        output: Root of the working folder.
        recipe: How to train.
        device: ``"cpu"`` or ``"cuda"``.
        threads: CPU threads.
    """

    def __init__(self, key: str, output: Path, recipe: Recipe, device: str = "cpu", threads: int = 1) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(recipe.seed)
        self.tagger: Tagger = TAGGERS[key]
        self.output, self.recipe, self.threads = output, recipe, threads
        self.device = torch.device(device)
        self.folder = output / key
        self.folder.mkdir(parents=True, exist_ok=True)
        self.model: ParticleNet = build(key).to(self.device)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        self.round = self.seen = self.steps = 0
        self.seconds = 0.0
        self._shards: dict[Path, JetTable] = {}
        self._n_shards = 0
        if self.device.type == "cpu":
            import numba

            from .fast import Workspace

            numba.set_num_threads(threads)
            self._work = Workspace()

    @property
    def checkpoint(self) -> Path:
        """The file from which training resumes."""
        return self.folder / "checkpoint.pt"

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.round, self.seen, self.steps = state["round"], state["seen"], state["steps"]
            self.seconds = state["seconds"]

    def save(self) -> None:
        """Write the checkpoint atomically."""
        partial = self.checkpoint.with_suffix(".partial")
        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "round": self.round,
            "seen": self.seen,
            "steps": self.steps,
            "seconds": self.seconds,
        }
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def run(self) -> None:
        """Train until the recipe's number of jets was shown."""
        self.resume()
        bar = tqdm(total=self.recipe.passes, initial=self.seen, desc=f"train {self.tagger.key}", unit="jet", mininterval=5)
        while self.seen < self.recipe.passes:
            self._refresh()
            before, started = self.seen, time.perf_counter()
            loss, accuracy = self._one_round(bar)
            self.seconds += time.perf_counter() - started
            entry = {
                "round": self.round,
                "seen": self.seen,
                "jets": len(self._train),
                "loss": loss,
                "accuracy": accuracy,
                "learning_rate": self.optimiser.param_groups[0]["lr"],
                "stage": self._stage(),
                "ms_per_jet": 1e3 * (time.perf_counter() - started) / (self.seen - before),
                "seconds": self.seconds,
            }
            self.round += 1
            if self.round % 16 == 0 or self.seen >= self.recipe.passes:
                entry |= self.validate()
            self.save()
            with (self.folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(entry) + "\n")
        bar.close()
        if self.device.type == "cpu":
            self.calibrate()
            self.save()

    @torch.no_grad()
    def calibrate(self) -> None:
        """Measure the batch-norm statistics again, with all neighbours and all candidates."""
        from . import fast

        self._refresh()
        self.model.train()
        norms = [m for m in self.model.modules() if isinstance(m, torch.nn.BatchNorm1d)]
        usual = [norm.momentum for norm in norms]
        rng = np.random.default_rng([self.recipe.seed, 0])
        share = min(1.0, CALIBRATION_JETS / len(self._train))
        batches = self._train.epoch(rng, self.recipe.batch_size, np.ones(len(self._train)), share)
        for i, jets in enumerate(batches):
            wait_while_paused(self.output)
            for norm in norms:
                norm.momentum = 1.0 / (i + 1)  # a plain average over the batches
            batch = self._train.pack(jets, self.tagger.max_candidates, self.threads)
            fast.logits(self.model, batch, self._work, self.tagger.neighbours)
        for norm, momentum in zip(norms, usual, strict=True):
            norm.momentum = momentum

    def _refresh(self) -> None:
        """Take in new shards."""
        n = len(list((self.folder / "train").glob("*.npz")))
        if n != self._n_shards:
            train, validation = load_split(self.tagger.key, self.output, self._shards)
            self._n_shards = len(self._shards)
            self._train = TrainingSet(train, self.tagger)
            self._validation = TrainingSet(validation, self.tagger)
            self._weight = class_weights(train.label, len(self.tagger.labels))

    def _one_round(self, bar) -> tuple[float, float]:
        rng = np.random.default_rng([self.recipe.seed, self.round])
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.round)
        self.model.train()
        share = min(1.0, ROUND_JETS / len(self._train))
        batches = self._train.epoch(rng, self.recipe.batch_size, self._weight, share)
        losses, correct, count = 0.0, 0, 0
        for jets in batches:
            wait_while_paused(self.output)
            for group in self.optimiser.param_groups:
                group["lr"] = self._learning_rate()
            scores, label = self._scores(jets), self._train.label[jets].to(self.device)
            loss = cross_entropy(scores, label)
            self.optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
            self.optimiser.step()
            losses += loss.item() * jets.size
            correct += int((scores.argmax(1) == label).sum())
            count += jets.size
            self.seen += jets.size
            self.steps += 1
            bar.update(jets.size)
        return losses / count, correct / count

    def _scores(self, jets: np.ndarray) -> torch.Tensor:
        if self.device.type == "cpu":
            from . import fast

            neighbours, longest = self._stage()
            batch = self._train.pack(jets, longest, self.threads)
            return fast.logits(self.model, batch, self._work, neighbours)
        return self.model.logits(*(t.to(self.device) for t in self._train.padded(jets)))

    def _progress(self) -> float:
        return self.seen / self.recipe.passes

    def _stage(self) -> tuple[int, int]:
        """Neighbours used and candidates kept at this point."""
        return [stage[1:] for stage in self.recipe.stages if stage[0] <= self._progress()][-1]

    def _learning_rate(self) -> float:
        """Warm-up, plateau, linear decay."""
        warm = min(1.0, (self.steps + 1) / WARM_UP_STEPS)
        left = (1 - self._progress()) / (1 - self.recipe.decay_from)
        return self.recipe.learning_rate * warm * min(1.0, max(left, 1e-3))

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss and accuracy on events kept from training."""
        self.model.eval()
        losses, correct = 0.0, 0
        for jets in self._validation.evaluation_batches(64):
            wait_while_paused(self.output)
            scores = self.model.logits(*(t.to(self.device) for t in self._validation.padded(jets)))
            label = self._validation.label[jets].to(self.device)
            losses += cross_entropy(scores, label, reduction="sum").item()
            correct += int((scores.argmax(1) == label).sum())
        n = len(self._validation)
        return {"validation_loss": losses / n, "validation_accuracy": correct / n, "validation_jets": n}


def load_model(key: str, output: Path) -> ParticleNet:
    """The trained network of the checkpoint, ready for evaluation."""
    state = torch.load(output / key / "checkpoint.pt", map_location="cpu", weights_only=True)
    model = build(key)
    model.load_state_dict(state["model"])
    if not all(math.isfinite(float(p.detach().abs().sum())) for p in model.parameters()):
        raise ValueError(f"the checkpoint of {key} holds numbers that are not finite")
    return model.eval()
