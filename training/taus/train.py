"""Train DeepTau on the occupied cells of the grids.

Training goes in rounds of a fixed number of taus; after each round a checkpoint is written, from which the same command goes on. Shards
that were generated meanwhile join at the next round, so training may start while generation still runs.

Typical use::

    python -m training.taus train --passes 500000
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from helpers.physics.taus import GRIDS, Taus, cells, high_level, read
from training.jets.pause import wait_while_paused

from .evaluate import areas
from .features import LABELS, preprocess
from .model import KINDS, DeepTau

ROUND_TAUS = 8_192
VALIDATION_ONE_IN = 20
"""One event in this many is kept from training; by event, so that no event is on both sides."""
VALIDATION_MAX_TAUS = 3_000
VALIDATION_ROUNDS = 2
CALIBRATION_TAUS = 8_000
PT_BINS_GEV = (20.0, 25.0, 30.0, 35.0, 40.0, 50.0, 65.0, 85.0, 120.0, math.inf)
MAX_WEIGHT = 10.0
WARM_UP_STEPS = 200


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        passes: Taus shown in all, each as often as it was drawn.
        batch_size: Taus per step.
        learning_rate: At the plateau.
        decay_from: Progress from which the learning rate falls linearly to 0.
        weight_decay: Of AdamW.
        seed: Of initialisation, shuffling and dropout.
    """

    passes: int = 110_000
    batch_size: int = 64
    learning_rate: float = 2e-3
    decay_from: float = 0.4
    weight_decay: float = 0.01
    seed: int = 1


def concatenate(parts: list[Taus]) -> Taus:
    """All taus of several files."""

    def joined(columns: list[dict[str, NDArray]]) -> dict[str, NDArray]:
        return {name: np.concatenate([column[name] for column in columns]) for name in columns[0]}

    features, candidates = joined([p.features for p in parts]), joined([p.candidates for p in parts])
    counts, label = (np.concatenate([getattr(p, name) for p in parts]) for name in ("n_candidates", "label"))
    return Taus(features, candidates, counts, label)


def load(folder: Path, known: dict[Path, Taus]) -> Taus:
    """All taus of the shards in ``folder``. ``known`` caches what was read.

    Raises:
        FileNotFoundError: There are none.
    """
    for path in sorted(folder.glob("[!.]*.npz")):
        if path not in known:
            known[path] = read(path)
    if not known:
        raise FileNotFoundError(f"no taus under {folder}: run `generate` first")
    return concatenate(list(known.values()))


def weights(taus: Taus) -> NDArray[np.float32]:
    """Weight of each tau in the loss: all classes have the same share and the same spectrum of transverse momentum, with a mean of 1."""
    place = np.digitize(taus.features["tau_pt"], PT_BINS_GEV[1:-1])
    counts = np.zeros((len(LABELS), len(PT_BINS_GEV) - 1))
    np.add.at(counts, (taus.label, place), 1)
    wanted = counts.sum(axis=0) / len(LABELS)
    weight = np.minimum(wanted / np.maximum(counts, 1), MAX_WEIGHT)[taus.label, place]
    return (weight / weight.mean()).astype(np.float32)


Batch = tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, dict[str, torch.Tensor]]]


def pack(taus: Taus, table: dict) -> Batch:
    """The arguments of `DeepTau.logits_of_cells`."""
    places, values = {}, {}
    for grid, (side, _) in GRIDS.items():
        place, filled = cells(taus, grid, table)
        places[grid] = torch.from_numpy(np.ravel_multi_index(tuple(place.T), (len(taus), side, side)))
        values[grid] = {kind: torch.from_numpy(filled[f"input_{grid}_{kind}"]) for kind in KINDS}
    return torch.from_numpy(high_level(taus, table["input_tau"])), places, values


def standardise(model: DeepTau, taus: Taus, table: dict) -> None:
    """Set what `model.Standardise` needs from these taus."""
    high, _, values = pack(taus, table)
    model.standardise.measure(high)
    for grid, kinds in values.items():
        for kind, rows in kinds.items():
            model.cells[grid].standardise[kind].measure(rows)


class Trainer:
    """One training run with its checkpoint, log and data.

    Args:
        output: Root of the working folder.
        recipe: How to train.
        device: ``"cpu"`` or ``"cuda"``.
        threads: CPU threads.
    """

    def __init__(self, output: Path, recipe: Recipe, device: str = "cpu", threads: int = 1) -> None:
        torch.set_num_threads(threads)
        torch.manual_seed(recipe.seed)
        self.output, self.recipe = output, recipe
        self.device = torch.device(device)
        self.table = preprocess()
        self.model = DeepTau().to(self.device)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        self.round = self.seen = self.steps = 0
        self.seconds = 0.0
        self._shards: dict[Path, Taus] = {}
        self._n_shards = 0

    @property
    def checkpoint(self) -> Path:
        """The file from which training resumes."""
        return self.output / "checkpoint.pt"

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        if self.checkpoint.exists():
            state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.round, self.seen, self.steps, self.seconds = (state[name] for name in ("round", "seen", "steps", "seconds"))

    def save(self) -> None:
        """Write the checkpoint atomically."""
        partial = self.checkpoint.with_suffix(".partial")
        state = {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}
        torch.save(state | {name: getattr(self, name) for name in ("round", "seen", "steps", "seconds")}, partial)
        partial.replace(self.checkpoint)

    def run(self) -> None:
        """Train until the recipe's number of taus was shown."""
        self.output.mkdir(parents=True, exist_ok=True)
        self.resume()
        bar = tqdm(total=self.recipe.passes, initial=self.seen, desc="train", unit="tau", mininterval=5)
        while self.seen < self.recipe.passes:
            self._refresh()
            if self.seen == 0:
                standardise(self.model, self._train.take(np.arange(min(4_000, len(self._train)))), self.table)
            before, started = self.seen, time.perf_counter()
            loss = self._one_round(bar)
            self.seconds += time.perf_counter() - started
            self.round += 1
            entry = {
                "round": self.round,
                "seen": self.seen,
                "taus": len(self._train),
                "loss": loss,
                "learning_rate": self.optimiser.param_groups[0]["lr"],
                "ms_per_tau": 1e3 * (time.perf_counter() - started) / (self.seen - before),
                "seconds": self.seconds,
            }
            if self.round % VALIDATION_ROUNDS == 0:
                entry |= self.validate()
            self.save()
            self._log(entry)
        bar.close()
        self._refresh()
        self.calibrate()
        self.save()
        self._log({"seen": self.seen, "seconds": self.seconds} | self.validate())

    def _log(self, entry: dict[str, float]) -> None:
        """Add a line to ``log.jsonl``."""
        with (self.output / "log.jsonl").open("a") as log:
            log.write(json.dumps(entry) + "\n")

    def calibrate(self) -> None:
        """Measure the statistics of the batch norms on many taus, without dropout: the last few batches of a training decide them else."""
        norms = [m for m in self.model.modules() if isinstance(m, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d)]
        self.model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
            norm.train()
        with torch.no_grad():
            index = np.arange(min(CALIBRATION_TAUS, len(self._train)))
            for part in np.array_split(index, max(1, index.size // 500)):
                self._logits(self._train.take(part))
        for norm in norms:
            norm.momentum = 0.1
        self.model.eval()

    def _refresh(self) -> None:
        """Take in shards that are new."""
        taus = load(self.output / "train", self._shards)
        if len(self._shards) == self._n_shards:
            return
        self._n_shards = len(self._shards)
        held_out = taus.features["event"] % VALIDATION_ONE_IN == 0
        self._train = taus.take(np.random.default_rng(self.recipe.seed).permutation(np.flatnonzero(~held_out)))
        chosen = np.flatnonzero(held_out)
        self._validation = taus.take(chosen[:: max(1, -(-chosen.size // VALIDATION_MAX_TAUS))])
        self._weight = weights(self._train)

    def _learning_rate(self) -> float:
        progress = self.seen / self.recipe.passes
        decay = min(1.0, (1 - progress) / (1 - self.recipe.decay_from))
        return self.recipe.learning_rate * decay * min(1.0, (self.steps + 1) / WARM_UP_STEPS)

    def _one_round(self, bar: tqdm) -> float:
        """Show `ROUND_TAUS` taus. Returns the mean loss."""
        self.model.train()
        rng = np.random.default_rng([self.recipe.seed, self.round])
        chosen = rng.permutation(len(self._train))[: min(ROUND_TAUS, self.recipe.passes - self.seen)]
        total = torch.zeros(())
        batches = np.array_split(chosen, max(1, round(chosen.size / self.recipe.batch_size)))
        for index in batches:
            wait_while_paused(self.output)
            for group in self.optimiser.param_groups:
                group["lr"] = self._learning_rate()
            taus = self._train.take(index)
            losses = cross_entropy(self._logits(taus), torch.from_numpy(taus.label).to(self.device), reduction="none")
            loss = (losses * torch.from_numpy(self._weight[index]).to(self.device)).mean()
            self.optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
            self.optimiser.step()
            total += loss.detach().cpu()
            self.steps += 1
            self.seen += index.size
            bar.update(index.size)
        return float(total) / len(batches)

    def _logits(self, taus: Taus) -> torch.Tensor:
        high, places, values = pack(taus, self.table)
        return self.model.logits_of_cells(
            high.to(self.device),
            {grid: place.to(self.device) for grid, place in places.items()},
            {grid: {kind: rows.to(self.device) for kind, rows in kinds.items()} for grid, kinds in values.items()},
        )

    def validate(self) -> dict[str, float]:
        """Loss and areas under curves on held-out taus."""
        self.model.eval()
        with torch.inference_mode():
            parts = np.array_split(np.arange(len(self._validation)), max(1, len(self._validation) // 200))
            logits = torch.cat([self._logits(self._validation.take(part)).cpu() for part in parts])
        label = self._validation.label
        loss = float(
            (cross_entropy(logits, torch.from_numpy(label), reduction="none") * torch.from_numpy(weights(self._validation))).mean()
        )
        return {"validation_loss": loss} | areas(logits.softmax(dim=1).numpy(), label)


def load_model(output: Path) -> DeepTau:
    """The network of the checkpoint."""
    model = DeepTau()
    model.load_state_dict(torch.load(output / "checkpoint.pt", map_location="cpu", weights_only=True)["model"])
    return model.eval()
