"""Small TorchScript models, each made for one question about the backend.

The client's environment has no PyTorch, so the tests run this file with the server's Python: ``python torchscript_models.py FOLDER``.
"""

from __future__ import annotations

import sys
import warnings
import zipfile
from pathlib import Path

import torch

# PyTorch announces the end of TorchScript; Triton's backend of this release serves nothing else.
warnings.filterwarnings("ignore", category=DeprecationWarning)

Tensor = torch.Tensor


class Affine(torch.nn.Module):
    """Returns ``2 x + 1``."""

    def forward(self, x: Tensor) -> Tensor:
        """One in, one out."""
        return 2 * x + 1


class Identities(torch.nn.Module):
    """Returns its nine inputs, each of another type."""

    def forward(
        self, a: Tensor, b: Tensor, c: Tensor, d: Tensor, e: Tensor, f: Tensor, g: Tensor, h: Tensor, i: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Nine in, the same nine out."""
        return a, b, c, d, e, f, g, h, i


class Pair(torch.nn.Module):
    """Returns ``a - b`` and ``a * b``: wrong when the arguments are swapped, or the outputs."""

    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Two in, two out."""
        return a - b, a * b


class Lookup(torch.nn.Module):
    """Rows of a table, where an index out of range is an error for the whole batch, and a sum over a dimension of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.arange(20, dtype=torch.float32).reshape(10, 2))

    def forward(self, i: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Index of shape (batch, 1) and x of shape (batch, n) in, rows of shape (batch, 2) and sums of shape (batch, 1) out."""
        return self.rows[i[:, 0]], x.sum(1, keepdim=True)


class Spread(torch.nn.Module):
    """Needs far more memory for a moment than for its answer."""

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, n) in, (batch, 1) out, sixteen tensors of n × n in between."""
        tables = [x.unsqueeze(1) * x.unsqueeze(2)]
        for place in range(15):
            tables.append(tables[place] + 1.0)
        return torch.stack([table.sum((1, 2)) for table in tables]).sum(0).unsqueeze(1)


class Linear(torch.nn.Module):
    """Has weights, and tells whether it runs in inference mode."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        with torch.no_grad():
            self.layer.weight.copy_(torch.arange(6.0).reshape(2, 3))
            self.layer.bias.copy_(torch.tensor([1.0, -1.0]))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Shape (batch, 3) in, (batch, 2) out, and 1 in inference mode, else 0."""
        return self.layer(x), torch.full_like(x[:, :1], 1.0 if x.is_inference() else 0.0)


def pretend_saved_on_gpu(source: Path, target: Path) -> None:
    """Rewrite a TorchScript file as if its weights had lain on a GPU: the archive names the device of every storage."""
    target.parent.mkdir(parents=True, exist_ok=True)
    cpu, cuda = (b"X" + len(name).to_bytes(4, "little") + name for name in (b"cpu", b"cuda:0"))
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        changed = 0
        for entry in old.namelist():
            content = old.read(entry)
            if entry.endswith("data.pkl"):
                changed += content.count(cpu)
                content = content.replace(cpu, cuda)
            new.writestr(entry, content)
    if not changed:
        raise ValueError(f"{source} names no storage on a CPU")


def main(folder: Path) -> None:
    """Write every model to ``folder/NAME/1/model.pt``."""
    modules = [Affine(), Identities(), Pair(), Lookup(), Spread(), Linear()]
    for module in modules:
        path = folder / type(module).__name__.lower() / "1" / "model.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.jit.script(module).save(str(path))
    pretend_saved_on_gpu(folder / "linear/1/model.pt", folder / "from_gpu/1/model.pt")
    (folder / "statedict" / "1").mkdir(parents=True, exist_ok=True)
    torch.save(Linear().state_dict(), folder / "statedict/1/model.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
