"""A small transformer that tags AK4 jets: the network of notebook 11, as plain PyTorch.

A jet is a set of candidates and secondary vertices. Each becomes a vector, and **attention** lets each of them look at all others. Experiments
have gone from ParticleNet to such networks; theirs are larger, and also tell attention how far apart two candidates are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH, HEADS, LAYERS = 48, 4, 2
CANDIDATE_FEATURES, VERTEX_FEATURES, CLASSES = 20, 11, 8


class Attention(nn.Module):
    """Each point asks all points of its jet, and takes from each as much as fits its question."""

    def __init__(self) -> None:
        super().__init__()
        self.ask, self.answer = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, points: Tensor, real: Tensor) -> Tensor:
        """(jets, points, WIDTH) and which of them are real, (jets, 1, 1, points), to (jets, points, WIDTH)."""
        parts = self.ask(points).unflatten(-1, (3, HEADS, WIDTH // HEADS)).permute(2, 0, 3, 1, 4)
        heads = nn.functional.scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask=real)
        return self.answer(heads.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Attention, then a small network on each point by itself; both add to what was there."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_1, self.attention, self.norm_2 = nn.LayerNorm(WIDTH), Attention(), nn.LayerNorm(WIDTH)
        self.alone = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, points: Tensor, real: Tensor) -> Tensor:
        """As `Attention.forward`."""
        points = points + self.attention(self.norm_1(points), real)
        return points + self.alone(self.norm_2(points))


class JetTransformer(nn.Module):
    """Features and masks in, the probabilities of eight classes out."""

    def __init__(self) -> None:
        super().__init__()
        self.candidate = nn.Sequential(
            nn.Linear(CANDIDATE_FEATURES, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH)
        )
        self.vertex = nn.Sequential(nn.Linear(VERTEX_FEATURES, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.classes = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, CLASSES))

    def forward(self, pf_features: Tensor, pf_mask: Tensor, sv_features: Tensor, sv_mask: Tensor) -> Tensor:
        """Probabilities (jets, 8).

        Args:
            pf_features: (jets, 20, candidates), as the table beside the model says.
            pf_mask: (jets, 1, candidates), 1 for a candidate, 0 for padding.
            sv_features, sv_mask: the same for secondary vertices, (jets, 11, vertices) and (jets, 1, vertices).
        """
        return torch.softmax(self.logits(pf_features, pf_mask, sv_features, sv_mask), dim=1)

    def logits(self, pf_features: Tensor, pf_mask: Tensor, sv_features: Tensor, sv_mask: Tensor) -> Tensor:
        """As `forward`, before the softmax."""
        points = torch.cat(
            [self.candidate(pf_features.transpose(1, 2)), self.vertex(sv_features.transpose(1, 2))], dim=1
        )
        mask = torch.cat([pf_mask, sv_mask], dim=2).transpose(1, 2)  # (jets, points, 1)
        real = mask.transpose(1, 2).unsqueeze(1) > 0.5
        for layer in self.layers:
            points = layer(points, real)
        mean = (self.norm(points) * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1.0)
        return self.classes(mean)
