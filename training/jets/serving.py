"""What lies beside the weights in the model repository: configuration, labels, table, warm-up.

Names, shapes and batch sizes are those of CMS's models, so that one of theirs can take
the place of ours.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .dataset import JetTable, padded_inputs
from .features import Tagger

PLATFORMS = {"pytorch_libtorch": "model.pt", "onnxruntime_onnx": "model.onnx"}
LABELS_FILE = "labels.txt"
TABLE_FILE = "preprocess.json"
WARMUP_LENGTHS = (50, 4)
"""Candidates and vertices of the warm-up jet: the shape that CMS's demonstration measures with."""
WARMUPS = ((1, 3), (10, 2))
"""Batch size and number of runs: the first two runs of a TorchScript model compile it."""


def input_names(torchscript: bool) -> list[str]:
    """Names of the six inputs; TorchScript has positions, so Triton wants ``NAME__POSITION``."""
    names = [f"{kind}_{part}" for kind in ("pf", "sv") for part in ("points", "features", "mask")]
    return [f"{name}__{i}" if torchscript else name for i, name in enumerate(names)]


def output_name(torchscript: bool) -> str:
    """Name of the output."""
    return "softmax__0" if torchscript else "softmax"


def model_name(tagger: Tagger, torchscript: bool) -> str:
    """Folder of the model in the repository."""
    return tagger.model + ("_PT" if torchscript else "")


def config_text(tagger: Tagger, torchscript: bool) -> str:
    """The ``config.pbtxt`` of one model."""
    widths = [2, len(tagger.candidates), 1, 2, len(tagger.vertices), 1]
    lengths = [WARMUP_LENGTHS[0]] * 3 + [WARMUP_LENGTHS[1]] * 3
    names = input_names(torchscript)
    jets = {"ak4": "anti-kT jets of radius 0.4", "ak8": "boosted anti-kT jets of radius 0.8"}[tagger.key]
    inputs = ",\n".join(
        f'  {{\n    name: "{name}"\n    data_type: TYPE_FP32\n    dims: [ {width}, -1 ]\n  }}'
        for name, width in zip(names, widths, strict=True)
    )

    def warmup(batch_size: int, runs: int) -> str:
        entries = "\n".join(
            f'    inputs {{\n      key: "{name}"\n      value {{\n        data_type: TYPE_FP32\n'
            f'        dims: [ {width}, {length} ]\n        input_data_file: "{name.split("__")[0]}"\n      }}\n    }}'
            for name, width, length in zip(names, widths, lengths, strict=True)
        )
        return f'  {{\n    name: "batch of {batch_size}"\n    batch_size: {batch_size}\n    count: {runs}\n{entries}\n  }}'

    warmups = ",\n".join(warmup(batch_size, runs) for batch_size, runs in WARMUPS)
    platform = "pytorch_libtorch" if torchscript else "onnxruntime_onnx"
    return f"""# ParticleNet for {jets}: six padded tensors in, {len(tagger.labels)} class probabilities out.
# The last dimension of every input is the number of candidates (pf) or secondary vertices (sv) that a request pads to;
# the network needs at least {tagger.neighbours + 1} of both together. {TABLE_FILE} says how a client fills them.
name: "{model_name(tagger, torchscript)}"
platform: "{platform}"
max_batch_size: {tagger.max_batch_size}

input [
{inputs}
]

output [
  {{
    name: "{output_name(torchscript)}"
    data_type: TYPE_FP32
    dims: [ {len(tagger.labels)} ]
    label_filename: "{LABELS_FILE}"
  }}
]

dynamic_batching {{
  preferred_batch_size: [ {tagger.preferred_batch_size} ]
}}

# The first runs of a model are slow, above all of a TorchScript model. A real jet runs through it before the model is READY.
model_warmup [
{warmups}
]
"""


def write_beside(tagger: Tagger, torchscript: bool, folder: Path, jets: JetTable) -> None:
    """Write everything of a model folder except the weights.

    Args:
        tagger: Which tagger.
        torchscript: Which of its two models.
        folder: The model's folder.
        jets: Real jets; the one with the most vertices becomes the warm-up.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text(config_text(tagger, torchscript))
    (folder / LABELS_FILE).write_text("\n".join(tagger.labels) + "\n")
    tagger.write_preprocess(folder / TABLE_FILE)
    warmup = folder / "warmup"
    warmup.mkdir(exist_ok=True)
    one = jets.take(np.array([int(np.argmax(np.minimum(jets.n_vertices, 4) * 100 + jets.n_candidates))]))
    for name, values in padded_inputs(one, tagger, *WARMUP_LENGTHS).items():
        (warmup / name).write_bytes(values[0].astype("<f4").tobytes())
