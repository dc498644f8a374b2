"""The network written plainly, with which the served graph is compared: both compute the same."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="needs the training environment, which `make -C training test` makes")
from training.jets.graph import Plain  # noqa: E402
from training.jets.model import build  # noqa: E402


def test_the_plain_graph_has_the_same_result_on_full_and_on_padded_jets() -> None:
    torch.manual_seed(3)
    network = build("ak4").eval()
    # An untrained network gives all jets nearly the same; so its last layer speaks louder.
    network.output.weight.data *= 1000
    generator = torch.Generator().manual_seed(5)
    mask = torch.ones(3, 1, 24)
    mask[1, :, 15:] = 0
    inputs = [torch.rand(3, n, length, generator=generator) for n, length in ((2, 24), (20, 24), (2, 3), (11, 3))]
    tensors = (inputs[0], inputs[1], mask, inputs[2], inputs[3], torch.ones(3, 1, 3))
    with torch.inference_mode():
        expected = network(*tensors)
        assert torch.allclose(Plain(network)(*tensors), expected, atol=1e-5)
        # Not for want of differences: other masks give other probabilities.
        assert (network(*tensors[:2], torch.ones_like(mask), *tensors[3:]) - expected).abs().max() > 1e-4
