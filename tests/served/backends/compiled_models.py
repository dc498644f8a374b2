"""Small networks compiled by AOTInductor, and files that look like such: ``python compiled_models.py FOLDER`` with the server's Python."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import zipfile
from pathlib import Path

import torch

Tensor = torch.Tensor


class Scaled(torch.nn.Module):
    """Wrong when arguments or results are swapped; one argument has a name, and the results have."""

    def forward(self, a: Tensor, b: Tensor, *, scale: Tensor) -> dict[str, Tensor]:
        """Shapes (batch, 2), (batch, 2) and (batch, 1) in."""
        return {"difference": (a - b) * scale, "product": a * b}


class Affine(torch.nn.Module):
    """Returns ``2 x + 1``."""

    def forward(self, x: Tensor) -> Tensor:
        """One in, one out."""
        return 2 * x + 1


def told_otherwise(source: Path, target: Path, **told: str) -> None:
    """Copy a package that says something else of itself."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for entry in old.namelist():
            content = old.read(entry)
            if entry.endswith("_metadata.json"):
                content = json.dumps(json.loads(content) | told).encode()
            new.writestr(entry, content)


def main(folder: Path) -> None:
    """Write each file to ``folder/NAME.pt2``."""
    (folder / "cache").mkdir(exist_ok=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "cache")
    from torch._inductor import aoti_compile_and_package  # reads them

    torch.set_num_threads(1)
    # As training/jets/compiled.py has it: nothing but what all processors of today know.
    portable = {"cpp.march": "x86-64-v3", "cpp.simdlen": 256}
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    pair = tuple(torch.ones(3, 2) for _ in range(2))
    scaled = torch.export.export(Scaled(), pair, {"scale": torch.ones(3, 1)}, dynamic_shapes={"a": batch, "b": batch, "scale": batch})
    aoti_compile_and_package(
        scaled, package_path=str(folder / "scaled.pt2"), inductor_configs=portable | {"aot_inductor.check_lowerbound": False}
    )
    affine = torch.export.export(Affine(), (torch.ones(3, 2),), dynamic_shapes=(batch,))
    aoti_compile_and_package(affine, package_path=str(folder / "two_and_more.pt2"), inductor_configs=portable)
    torch.export.save(affine, folder / "exported.pt2")
    for name, told in {
        "other_processor": {"AOTI_CPU_ISA": "AVX512 AVX9000"},
        "other_device": {"AOTI_DEVICE_KEY": "cuda"},
    }.items():
        told_otherwise(folder / "scaled.pt2", folder / f"{name}.pt2", **told)
    whole = (folder / "scaled.pt2").read_bytes()
    (folder / "cut.pt2").write_bytes(whole[: len(whole) // 2])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
