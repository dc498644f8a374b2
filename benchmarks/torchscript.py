"""Writes the network as TorchScript. Runs with the server's Python: ``torchscript.py WEIGHTS.npz N_PARTICLE_LAYERS FILE…``."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import torch

# PyTorch announces the end of TorchScript; Triton's backend of this release serves nothing else.
warnings.filterwarnings("ignore", category=DeprecationWarning)


class Network(torch.nn.Module):
    """Dense layers on every particle, the mean over particles, dense layers on the set.

    Args:
        matrices: weights of shape (inputs, outputs), one per layer.
        particle_layers: how many of them act on every particle.
    """

    def __init__(self, matrices: list[np.ndarray], particle_layers: int) -> None:
        super().__init__()

        def dense(chosen: list[np.ndarray]) -> list[torch.nn.Module]:
            layers: list[torch.nn.Module] = []
            for matrix in chosen:
                linear = torch.nn.Linear(*matrix.shape, bias=False)
                linear.weight = torch.nn.Parameter(torch.from_numpy(matrix.T.copy()), requires_grad=False)
                layers += [linear, torch.nn.ReLU()]
            return layers

        self.on_particles = torch.nn.Sequential(*dense(matrices[:particle_layers]))
        self.on_set = torch.nn.Sequential(*dense(matrices[particle_layers:])[:-1], torch.nn.Softmax(dim=-1))

    def forward(self, particles: torch.Tensor) -> torch.Tensor:
        """Shape (batch, particles, features) in, (batch, classes) out."""
        return self.on_set(self.on_particles(particles).mean(1))


if __name__ == "__main__":
    file, layers, *targets = sys.argv[1:]
    with np.load(file) as stored:
        network = Network(list(stored.values()), int(layers)).eval()
    for target in targets:
        torch.jit.script(network).save(target)
