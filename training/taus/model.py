"""DeepTau in plain PyTorch: the layers that CMS published for version 2.1, half as wide in the grids.

In each cell of a grid, dense layers reduce the features of every kind of particle, then those of all kinds together. Convolutions
of 3 x 3 without padding shrink 11 x 11 and 21 x 21 cells to one. The features of the tau itself go through dense layers. Dense layers join
the three and end in four classes.

`DeepTau.forward` is the served function: dense tensors in, probabilities out. `DeepTau.logits_of_cells` is the same function of the
occupied cells alone, for training: all empty cells of a grid have the same features, so one of them is computed and copied.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .features import LABELS, inputs
from .serving import SIDES

GRID_SHARE = 0.5
"""Width of the layers in the grids, of that of CMS's."""
DROPOUT = 0.2
"""In dense layers; CMS has it in convolutions, too, where it costs time."""
KINDS = ("egamma", "muon", "hadrons")
INPUT_LIMIT = 10.0
"""Standardised inputs are clipped here, so that one odd track does not decide."""
_HEAD_ROOM = 1 + DROPOUT
"""CMS makes layers wider by the part that dropout takes away."""
CONVOLUTION_WIDTH = round(64 * GRID_SHARE)


def narrowing(first: int, last: int, factor: float) -> list[int]:
    """Widths of dense layers from ``first`` to ``last``, each smaller by ``factor`` than the one before."""
    widths = [first]
    while widths[-1] > last:
        widths.append(max(last, int(widths[-1] / factor)))
    return widths


class Standardise(nn.Module):
    """Mean and spread of our own taus, on top of CMS's transforms, which are for CMS's pile-up; no parameters, set before training."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("scale", torch.ones(n_features))

    def measure(self, rows: Tensor) -> None:
        """Take mean and spread from (n, n_features); a constant feature becomes 0."""
        spread = rows.std(dim=0)
        self.mean.copy_(rows.mean(dim=0))
        self.scale.copy_(torch.where(spread > 1e-5, 1 / spread.clamp(min=1e-5), torch.zeros_like(spread)))

    def forward(self, rows: Tensor) -> Tensor:
        """(n, n_features) to the same."""
        return ((rows - self.mean) * self.scale).clamp(-INPUT_LIMIT, INPUT_LIMIT)


class Dense(nn.Sequential):
    """Dense layers on rows, each with batch norm, PReLU and dropout."""

    def __init__(self, n_in: int, widths: list[int]) -> None:
        layers: list[nn.Module] = []
        for width in widths:
            layers += [nn.Linear(n_in, width), nn.BatchNorm1d(width), nn.PReLU(width), nn.Dropout(DROPOUT)]
            n_in = width
        super().__init__(*layers)


class Shrink(nn.Sequential):
    """Convolutions of 3 x 3 without padding until one cell is left, each with batch norm and PReLU."""

    def __init__(self, side: int, width: int) -> None:
        layers: list[nn.Module] = []
        for _ in range(side // 2):
            layers += [nn.Conv2d(width, width, 3), nn.BatchNorm2d(width), nn.PReLU(width)]
        super().__init__(*layers)


class Cell(nn.Module):
    """What becomes of one cell: dense layers for each kind of particle, then for all together."""

    def __init__(self, grid: str) -> None:
        super().__init__()
        counts = {kind: len(inputs()[f"input_{grid}_{kind}"]) for kind in KINDS}
        self.standardise = nn.ModuleDict({kind: Standardise(n) for kind, n in counts.items()})
        reduced = {
            kind: narrowing(math.ceil(2 * n * _HEAD_ROOM * GRID_SHARE), math.ceil(n * _HEAD_ROOM * GRID_SHARE), 1.6)
            for kind, n in counts.items()
        }
        self.kinds = nn.ModuleDict({kind: Dense(counts[kind], widths) for kind, widths in reduced.items()})
        together = sum(widths[-1] for widths in reduced.values())
        self.together = Dense(together, narrowing(together, CONVOLUTION_WIDTH, 1.6))

    def forward(self, rows: dict[str, Tensor]) -> Tensor:
        """By kind (n_cells, n_features), to (n_cells, width)."""
        return self.together(torch.cat([self.kinds[kind](self.standardise[kind](rows[kind])) for kind in KINDS], dim=1))


class DeepTau(nn.Module):
    """The network: seven tensors in, four probabilities out."""

    def __init__(self) -> None:
        super().__init__()
        n_tau = len(inputs()["input_tau"])
        self.standardise = Standardise(n_tau)
        widths = narrowing(math.ceil(2 * n_tau * _HEAD_ROOM), math.ceil(n_tau * _HEAD_ROOM), 1.4)
        self.tau = Dense(n_tau, widths)
        self.cells = nn.ModuleDict({grid: Cell(grid) for grid in SIDES})
        self.shrink = nn.ModuleDict({grid: Shrink(side, CONVOLUTION_WIDTH) for grid, side in SIDES.items()})
        self.join = Dense(widths[-1] + len(SIDES) * CONVOLUTION_WIDTH, [200] * 4)
        self.output = nn.Linear(200, len(LABELS))
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(
        self,
        input_tau: Tensor,
        input_inner_egamma: Tensor,
        input_inner_muon: Tensor,
        input_inner_hadrons: Tensor,
        input_outer_egamma: Tensor,
        input_outer_muon: Tensor,
        input_outer_hadrons: Tensor,
    ) -> Tensor:
        """Class probabilities (B, 4).

        Args:
            input_tau: (B, 47) features of the tau.
            input_inner_egamma, input_inner_muon, input_inner_hadrons: (B, 11, 11, n) features of the cells of the signal cone.
            input_outer_egamma, input_outer_muon, input_outer_hadrons: (B, 21, 21, n) likewise, of a wider surrounding.
        """
        grids = {
            "inner": (input_inner_egamma, input_inner_muon, input_inner_hadrons),
            "outer": (input_outer_egamma, input_outer_muon, input_outer_hadrons),
        }
        images = {}
        for grid, tensors in grids.items():
            rows = self.cells[grid]({kind: t.reshape(-1, t.shape[3]) for kind, t in zip(KINDS, tensors, strict=True)})
            images[grid] = rows.reshape(-1, SIDES[grid], SIDES[grid], CONVOLUTION_WIDTH).permute(0, 3, 1, 2)
        return torch.softmax(self._classes(input_tau, images), dim=1)

    def logits_of_cells(self, input_tau: Tensor, places: dict[str, Tensor], values: dict[str, dict[str, Tensor]]) -> Tensor:
        """As `forward` before the softmax, from the occupied cells.

        Args:
            input_tau: (B, 47).
            places: By grid, (n_cells,) number of each occupied cell, tau after tau and row after row.
            values: By grid and kind, (n_cells, n_features).
        """
        images = {}
        for grid, side in SIDES.items():
            with_empty = {kind: torch.cat([rows, rows.new_zeros(1, rows.shape[1])]) for kind, rows in values[grid].items()}
            rows = self.cells[grid](with_empty)
            image = rows[-1:].expand(len(input_tau) * side * side, -1).index_copy(0, places[grid], rows[:-1])
            images[grid] = image.reshape(-1, side, side, CONVOLUTION_WIDTH).permute(0, 3, 1, 2)
        return self._classes(input_tau, images)

    def _classes(self, input_tau: Tensor, images: dict[str, Tensor]) -> Tensor:
        parts = [self.tau(self.standardise(input_tau)), *(self.shrink[grid](images[grid]).flatten(1) for grid in SIDES)]
        return self.output(self.join(torch.cat(parts, dim=1)))


def count_parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
