"""The two model repositories of these tests: one model per question, all in one server each."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from onnx import TensorProto

from tests.served.backends import onnx_models

ONE_CPU = "instance_group { kind: KIND_CPU count: 1 }"
# config.pbtxt's name -> ONNX's number and NumPy's type
ONNX_TYPES: dict[str, tuple[int, type]] = {
    "BOOL": (TensorProto.BOOL, np.bool_),
    "UINT8": (TensorProto.UINT8, np.uint8),
    "UINT16": (TensorProto.UINT16, np.uint16),
    "UINT32": (TensorProto.UINT32, np.uint32),
    "UINT64": (TensorProto.UINT64, np.uint64),
    "INT8": (TensorProto.INT8, np.int8),
    "INT16": (TensorProto.INT16, np.int16),
    "INT32": (TensorProto.INT32, np.int32),
    "INT64": (TensorProto.INT64, np.int64),
    "FP16": (TensorProto.FLOAT16, np.float16),
    "FP32": (TensorProto.FLOAT, np.float32),
    "FP64": (TensorProto.DOUBLE, np.float64),
}
# What Triton's PyTorch backend serves of these, in the order of the arguments of the test module.
TORCH_TYPES = ["BOOL", "UINT8", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64"]


def tensors(role: str, **shapes: str) -> str:
    """Lines of a config: ``tensors("input", x="FP32 [3]")``."""
    lines = []
    for name, text in shapes.items():
        dtype, dims = text.split(" ", 1)
        lines.append(f'{role} {{ name: "{name}" data_type: TYPE_{dtype} dims: {dims} }}')
    return "\n".join(lines)


def configure(folder: Path, *lines: str) -> None:
    """Write ``config.pbtxt``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text("\n".join(lines) + "\n")


def onnx_repository(root: Path) -> Path:
    """The repository of ONNX models; those named ``bad_…`` must not load."""
    platform, backend = 'platform: "onnxruntime_onnx"', 'backend: "onnxruntime"'
    affine_io = tensors("input", x="FP32 [3]") + "\n" + tensors("output", y="FP32 [3]", z="FP32 [3]")

    onnx_models.identities(root / "types/1/model.onnx", {name: number for name, (number, _) in ONNX_TYPES.items()})
    configure(root / "types", backend, ONE_CPU)

    onnx_models.affine(root / "auto/1/model.onnx")
    configure(root / "auto", backend)
    onnx_models.affine(root / "no_batch/1/model.onnx", (2, 3))
    configure(root / "no_batch", platform, ONE_CPU)
    onnx_models.per_event(root / "per_event/1/model.onnx")
    configure(root / "per_event", platform, "max_batch_size: 8", ONE_CPU)

    for version in (1, 2, 3):
        onnx_models.affine(root / f"versions/{version}/first.onnx", (3,))
    configure(
        root / "versions",
        platform,
        affine_io,
        'default_model_filename: "first.onnx"',
        "version_policy { specific { versions: [ 1, 3 ] } }",
        ONE_CPU,
    )

    onnx_models.affine(root / "reshaped/1/model.onnx")
    configure(
        root / "reshaped", platform, "max_batch_size: 4", ONE_CPU,
        'input { name: "x" data_type: TYPE_FP32 dims: [ 3, 1 ] reshape { shape: [ 3 ] } }',
        'output { name: "y" data_type: TYPE_FP32 dims: [ 1, 3 ] reshape { shape: [ 3 ] } }',
    )  # fmt: skip
    onnx_models.scale_optional(root / "optional/1/model.onnx")
    configure(
        root / "optional", platform, tensors("input", x="FP32 [3]"), tensors("output", y="FP32 [3]"), ONE_CPU,
        'input { name: "factor" data_type: TYPE_FP32 dims: [ 1 ] optional: true }',
    )  # fmt: skip

    slow_batches = "dynamic_batching { preferred_batch_size: [ 8 ] max_queue_delay_microseconds: 1000000 }"
    onnx_models.table(root / "table/1/model.onnx")
    configure(
        root / "table",
        platform,
        "max_batch_size: 8",
        tensors("input", i="INT64 [1]"),
        tensors("output", y="FP32 [2]"),
        ONE_CPU,
        slow_batches,
    )
    onnx_models.row_sum(root / "row_sum/1/model.onnx")
    configure(
        root / "row_sum", platform, "max_batch_size: 8", tensors("input", x="FP32 [-1]"), tensors("output", y="FP32 [1]"), ONE_CPU,
        slow_batches,
        'model_warmup { name: "four" batch_size: 4 inputs { key: "x" value { data_type: TYPE_FP32 dims: [ 5 ] random_data: true } } }',
    )  # fmt: skip
    onnx_models.keep_positive(root / "filter/1/model.onnx")
    configure(root / "filter", platform, "max_batch_size: 8", tensors("input", x="FP32 [3]"), tensors("output", y="FP32 [3]"), ONE_CPU)

    onnx_models.pairs(root / "pairs/1/model.onnx")
    configure(root / "pairs", platform, tensors("input", x="FP32 [-1]"), tensors("output", y="FP32 [2, 4]"), ONE_CPU)

    onnx_models.affine(root / "tuned/1/model.onnx")
    parameters = {
        "intra_op_thread_count": "3",
        "inter_op_thread_count": "2",
        "execution_mode": "1",
        "share_session_between_instances": "true",
    }
    configure(
        root / "tuned", platform, "max_batch_size: 4", tensors("input", x="FP32 [3]"), tensors("output", z="FP32 [3]"), ONE_CPU,
        'output { name: "y" data_type: TYPE_FP32 dims: [ 3 ] label_filename: "labels.txt" }',
        *(f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in parameters.items()),
        "optimization { graph { level: 2 } execution_accelerators {",
        'gpu_execution_accelerator { name: "tensorrt" parameters { key: "precision_mode" value: "FP16" } }',
        'cpu_execution_accelerator { name: "openvino" } } }',
    )  # fmt: skip
    (root / "tuned/labels.txt").write_text("quark\ngluon\ntop\n")
    _bad_onnx_models(root, platform, affine_io)
    return root


def _bad_onnx_models(root: Path, platform: str, affine_io: str) -> None:
    for name in ("shape", "type", "name", "missing_input", "batch", "parameter"):
        onnx_models.affine(root / f"bad_{name}/1/model.onnx", (1, 3) if name == "batch" else ("batch", 3))
    outputs = tensors("output", y="FP32 [3]")
    x = tensors("input", x="FP32 [3]")
    batch = "max_batch_size: 4"
    configure(root / "bad_shape", platform, batch, tensors("input", x="FP32 [4]"), outputs)
    configure(root / "bad_type", platform, batch, tensors("input", x="FP64 [3]"), outputs)
    configure(root / "bad_name", platform, batch, x, tensors("output", w="FP32 [3]"))
    configure(root / "bad_missing_input", platform, tensors("input", x="FP32 [3]"), tensors("output", y="FP32 [3]"))
    onnx_models.scale_optional(root / "bad_missing_input/1/model.onnx", optional=False)
    configure(root / "bad_batch", platform, batch)
    configure(
        root / "bad_parameter", platform, batch, affine_io, 'parameters { key: "intra_op_thread_count" value { string_value: "two" } }'
    )
    onnx_models.scalar(root / "bad_scalar/1/model.onnx")
    configure(root / "bad_scalar", platform, tensors("input", x="FP32 [1]"), tensors("output", y="FP32 [1]"))
    configure(root / "bad_file", platform)
    (root / "bad_file/1").mkdir()
    (root / "bad_file/1/model.onnx").write_bytes(b"this is no protobuf")
    configure(root / "bad_empty", platform, affine_io)
    (root / "bad_empty/1").mkdir()
    for name, change in onnx_models.MISTAKES.items():
        onnx_models.mistaken(root / f"bad_{name}/1/model.onnx", change)
        configure(root / f"bad_{name}", platform)
    configure(root / "bad_fixed", platform, batch, affine_io)
    onnx_models.affine(root / "bad_fixed/1/model.onnx", (2, 3))


def torch_repository(root: Path, made: Path) -> Path:
    """The repository of TorchScript models; those named ``bad_…`` must not load.

    Args:
        root: the repository to make.
        made: the folder that ``torchscript_models.py`` wrote.
    """
    platform, batch = 'platform: "pytorch_libtorch"', "max_batch_size: 8"

    def model(name: str, source: str, *lines: str) -> None:
        shutil.copytree(made / source, root / name)
        configure(root / name, platform, *lines, *([] if any("instance_group" in line for line in lines) else [ONE_CPU]))

    types = {f"{name.lower()}__{place}": f"{name} [2]" for place, name in enumerate(TORCH_TYPES)}
    back = {f"{name.lower()}_back__{place}": f"{name} [2]" for place, name in enumerate(TORCH_TYPES)}
    # Listed in the wrong order on purpose: the index, or the argument's name, decides. Each model is a process that imports PyTorch, which
    # takes seconds, so that one answers several questions where it can.
    wrong_order = [dict(reversed(entries.items())) for entries in (types, back)]
    model("types", "identities", batch, tensors("input", **wrong_order[0]), tensors("output", **wrong_order[1]))
    pair = "pair"
    outputs = tensors("output", product__1="FP32 [2]", difference__0="FP32 [2]")
    model("by_name", pair, batch, tensors("input", b="FP32 [2]", a="FP32 [2]"), outputs)
    model(
        "in_order", pair, batch, tensors("input", left="FP32 [2]", right="FP32 [2]"), tensors("output", minus="FP32 [2]", times="FP32 [2]")
    )
    x = tensors("input", x__0="FP32 [3]")
    switches = {"INTRA_OP_THREAD_COUNT": "3", "INTER_OP_THREAD_COUNT": "2", "ENABLE_WEIGHT_SHARING": "true", "INFERENCE_MODE": "false"}
    model(
        "tuned", "from_gpu", batch, x, "instance_group { kind: KIND_CPU count: 2 }",
        # The last two are wrong, which shows only when one of them is asked for.
        tensors("output", y__0="FP32 [2]", inference__1="FP32 [1]", double__0="FP64 [2]", none__3="FP32 [1]"),
        *(f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}' for key, value in switches.items()),
        'optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt" } } }',
    )  # fmt: skip
    slow_batches = "dynamic_batching { preferred_batch_size: [ 8 ] max_queue_delay_microseconds: 1000000 }"
    table = tensors("input", i__0="INT64 [1]", x__1="FP32 [-1]"), tensors("output", row__0="FP32 [2]", sum__1="FP32 [1]")
    model("lookup", "lookup", batch, slow_batches, *table)
    model("spread", "spread", batch, tensors("input", x__0="FP32 [-1]"), tensors("output", y__0="FP32 [1]"))
    model("bad_count", pair, batch, tensors("input", a="FP32 [2]"), outputs)
    model("bad_index", pair, batch, tensors("input", a__0="FP32 [2]", b__2="FP32 [2]"), outputs)
    model("bad_statedict", "statedict", batch, x, tensors("output", y__0="FP32 [2]"))
    return root
