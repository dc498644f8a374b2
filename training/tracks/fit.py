"""One training loop for all three networks: one event a step, checkpoints that a stopped run goes on from."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .pause import wait_while_paused

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train.

    Attributes:
        name: Of the network; names its checkpoint.
        epochs: Passes over the training events.
        rate: Highest learning rate.
        seed: Of the order of events and of everything random in the loss.
    """

    name: str
    epochs: int
    rate: float = 3e-3
    seed: int = 1


def fit(
    network: nn.Module,
    plan: Plan,
    examples: Sequence[Any],
    loss: Callable[[nn.Module, Any, np.random.Generator], Tensor],
    folder: Path,
) -> nn.Module:
    """Train, or go on with a training that was stopped.

    Args:
        network: Trained in place.
        plan: How.
        examples: One for each training event.
        loss: Of one example.
        folder: Where the checkpoint and the log of losses go.

    Returns:
        The network in evaluation mode.
    """
    optimiser = torch.optim.AdamW(network.parameters(), lr=plan.rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, plan.rate, total_steps=plan.epochs * len(examples), pct_start=0.15)
    checkpoint = folder / f"{plan.name}.pt"
    done = _resume(checkpoint, network, optimiser, schedule)
    for epoch in range(done, plan.epochs):
        generator = np.random.default_rng([plan.seed, epoch])
        torch.manual_seed(1000 * plan.seed + epoch)
        start, cpu = time.perf_counter(), time.process_time()
        network.train()
        losses = []
        for index in generator.permutation(len(examples)):
            wait_while_paused()
            optimiser.zero_grad()
            value = loss(network, examples[index], generator)
            value.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            losses.append(value.item())
        row = {
            "network": plan.name,
            "epoch": epoch + 1,
            "loss": float(np.mean(losses)),
            "wall_s": time.perf_counter() - start,
            "cpu_s": time.process_time() - cpu,
        }
        log.info("%(network)s: epoch %(epoch)d, loss %(loss).4f, %(wall_s).0f s (CPU %(cpu_s).0f s)", row)
        _store(checkpoint, network, optimiser, schedule, epoch + 1)
        with (folder / "losses.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
    return network.eval()


def _resume(checkpoint: Path, network: nn.Module, optimiser: Any, schedule: Any) -> int:
    if not checkpoint.exists():
        return 0
    stored = torch.load(checkpoint, weights_only=True)
    if stored["schedule"]["total_steps"] != schedule.total_steps:
        raise ValueError(f"{checkpoint} is of a training of another length; remove it to train anew")
    network.load_state_dict(stored["network"])
    optimiser.load_state_dict(stored["optimiser"])
    schedule.load_state_dict(stored["schedule"])
    return int(stored["epochs"])


def _store(checkpoint: Path, network: nn.Module, optimiser: Any, schedule: Any, epochs: int) -> None:
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    part = checkpoint.with_suffix(".part")
    state = {"network": network.state_dict(), "optimiser": optimiser.state_dict(), "epochs": epochs}
    torch.save(state | {"schedule": {k: v for k, v in schedule.state_dict().items() if not callable(v)}}, part)
    os.replace(part, checkpoint)


def mirrored(features: np.ndarray, generator: np.random.Generator) -> Tensor:
    """The features of an event as its mirror image, turned around the beam: the detector looks the same, the network sees a new event."""
    turned = features.copy()
    turned[:, 1] = np.mod(turned[:, 1] * generator.choice((-1, 1)) + generator.uniform(0, 2) + 1, 2) - 1
    turned[:, 2] *= generator.choice((-1, 1))
    return torch.from_numpy(turned)
