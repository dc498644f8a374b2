"""What lies beside the weights in the model repository: configuration, labels, table.

Names, shapes and batch sizes are those of CMS's ``deeptau_nosplit``. CMS serves a TensorFlow graph, which Triton no longer runs; ours is
ONNX.
"""

from __future__ import annotations

import math
from pathlib import Path

from .features import LABELS, inputs, write_preprocess

MODEL = "deeptau_nosplit"
OUTPUT = "main_output/Softmax"
SIDES = {"inner": 11, "outer": 21}
"""Cells along each side of the grids."""
MAX_BATCH_SIZE = 1000
PREFERRED_BATCH_SIZES = (16, 32)


def shapes() -> dict[str, tuple[int, ...]]:
    """The inputs in the order of the model and their shapes, without the batch."""
    result: dict[str, tuple[int, ...]] = {}
    for name, features in inputs().items():
        side = next((side for grid, side in SIDES.items() if f"_{grid}_" in name), None)
        result[name] = (side, side, len(features)) if side else (len(features),)
    return result


def _tensor(name: str, dims: tuple[int, ...], more: str = "") -> str:
    return f'  {{\n    name: "{name}"\n    data_type: TYPE_FP32\n    dims: [ {", ".join(map(str, dims))} ]\n{more}  }}'


def config_text() -> str:
    """The ``config.pbtxt``."""
    entries = ",\n".join(_tensor(name, dims) for name, dims in shapes().items())
    warm = "\n".join(
        f'    inputs {{\n      key: "{name}"\n      value {{\n        data_type: TYPE_FP32\n        dims: [ {", ".join(map(str, dims))} ]\n'
        f"        zero_data: true\n      }}\n    }}"
        for name, dims in shapes().items()
    )
    numbers = sum(math.prod(dims) for dims in shapes().values())
    return f"""# DeepTau: is a reconstructed tau a tau, an electron, a muon or a jet? {numbers:,} numbers in, {len(LABELS)} scores out.
# Two grids in pseudorapidity and azimuth around the tau, 11 x 11 cells of 0.02 and 21 x 21 of 0.05; a cell holds the features of one
# electron, photon, muon, charged and neutral hadron. preprocess.json says how a client fills them. CMS serves its network as a
# TensorFlow graph; this one is ONNX.
name: "{MODEL}"
platform: "onnxruntime_onnx"
max_batch_size: {MAX_BATCH_SIZE}

input [
{entries}
]

output [
{_tensor(OUTPUT, (len(LABELS),), '    label_filename: "labels.txt"' + chr(10))}
]

dynamic_batching {{
  preferred_batch_size: [ {", ".join(map(str, PREFERRED_BATCH_SIZES))} ]
}}

# An empty tau runs through the model before it is READY: the first run is slow.
model_warmup [
  {{
    name: "batch of 1"
    batch_size: 1
    count: 2
{warm}
  }}
]
"""


def write_beside(folder: Path) -> None:
    """Write everything of the model's folder except the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text(config_text())
    (folder / "labels.txt").write_text("\n".join(LABELS) + "\n")
    write_preprocess(folder / "preprocess.json")
