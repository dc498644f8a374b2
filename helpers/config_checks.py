"""What is wrong with a model's folder, found before the server sees it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig

from helpers import config_text
from helpers.errors import ConfigError
from helpers.files import read_text
from helpers.model_folder import CONFIG, guessable, served, versions, visible
from helpers.wording import quoted, suggestion

# Backend → the file that it looks for in a version folder. The first three are the course's own in the embedded runtime.
_FILES = {"python": "model.py", "onnxruntime": "model.onnx", "pytorch": "model.pt", "tensorrt": "model.plan", "openvino": "model.xml"}
# Backends of the NGC image that need no file of a fixed name, so that only their name can be checked.
_OTHERS = ("dali", "fil", "identity", "repeat", "square", "tensorflow", "tensorrtllm", "vllm")
_PLATFORMS = {
    "onnxruntime_onnx": "onnxruntime",
    "pytorch_libtorch": "pytorch",
    "tensorrt_plan": "tensorrt",
    "tensorflow_graphdef": "tensorflow",
    "tensorflow_savedmodel": "tensorflow",
    "ensemble": "",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        text: what it is, without a full stop.
        expected: what was expected.
        todo: what to type.
        line: the line in ``config.pbtxt``, 0 when it is not about a line.
        where: the entry of the model's folder that it is about: ``""`` for the folder, ``config.pbtxt``, ``1``, …
        fatal: whether the server would refuse the model.
        hangs: whether Triton would wait for this model for ever, and all other models with it.
        error: the complete error, where there is one already.
    """

    text: str
    expected: str = ""
    todo: str = ""
    line: int = 0
    where: str = CONFIG
    fatal: bool = True
    hangs: bool = False
    error: ConfigError | None = None


def problems(folder: Path) -> list[Problem]:
    """All that is wrong with a model's folder, fatal or not."""
    path = folder / CONFIG
    if not path.is_file():
        text = "no config.pbtxt" + ("; the server has to guess it from the model file" if guessable(folder) else "")
        return [Problem(text, "Expected a file config.pbtxt in the model's folder.", where="", fatal=not guessable(folder))]
    try:
        text = read_text(path)
        config = config_text.parse(text, str(path))
    except ConfigError as error:
        line = re.search(r", line (\d+)", error.happened)
        return [Problem(f"syntax error in line {line[1]}" if line else "syntax error", line=int(line[1]) if line else 0, error=error)]
    except OSError as error:
        return [Problem(f"cannot be read: {error.strerror or error}")]
    return check_config(folder, config, text)


def check_config(folder: Path, config: ModelConfig, text: str = "") -> list[Problem]:
    """All that is wrong with a config for a model's folder, fatal or not.

    Args:
        folder: the model's folder.
        config: the config to check; it need not have been written yet.
        text: its text, so that lines can be named.
    """
    lines = _Lines(text)
    checks = (_check_name, _check_backend, _check_versions, _check_tensors, _check_batching, _check_instances, _check_steps)
    return [problem for check in checks for problem in check(folder, config, lines)]


class _Lines:
    """Where in the text a field stands."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._spans = config_text.top_level_fields(text) if text else []

    def of(self, field: str, inside: str = "") -> int:
        for name, start, end in self._spans:
            if name == field:
                found = re.search(rf'["\']{re.escape(inside)}["\']', self._text[start:end]) if inside else None
                if not inside or found:
                    return self._text.count("\n", 0, start + (found.start() if found else 0)) + 1
        return 0


def _check_name(folder: Path, config: ModelConfig, lines: _Lines) -> Iterator[Problem]:
    if config.name and config.name != folder.name:
        yield Problem(
            f"the name is {config.name!r}, but the folder is {folder.name!r}",
            "The two must be the same.",
            f'Write: name: "{folder.name}", or leave the line out',
            lines.of("name"),
        )


def _backend(config: ModelConfig) -> str:
    return config.backend or _PLATFORMS.get(config.platform, "")


def _check_backend(folder: Path, config: ModelConfig, lines: _Lines) -> Iterator[Problem]:
    known = [*_FILES, *_OTHERS]
    if config.platform and config.platform not in _PLATFORMS and not config.backend:
        yield Problem(
            f"unknown platform {config.platform!r}",
            f"Expected one of {quoted(_PLATFORMS)}.",
            suggestion(config.platform, _PLATFORMS) or suggestion(config.platform, known).replace("mean", "mean the backend"),
            lines.of("platform"),
        )
    elif config.backend and config.backend not in known:
        yield Problem(
            f"unknown backend {config.backend!r}",
            f"The embedded runtime has {quoted(list(_FILES)[:3])}; the NGC image has more.",
            suggestion(config.backend, known),
            lines.of("backend"),
        )
    elif not config.backend and not config.platform and not guessable(folder):
        yield Problem("neither backend nor platform is given", "The server must know what runs the model.", 'Write: backend: "python"')


def _check_versions(folder: Path, config: ModelConfig, lines: _Lines) -> Iterator[Problem]:
    found = versions(folder)
    if not found:
        yield Problem("no version folder", "Expected a folder with a number as its name, such as 1, that holds the model.", where="")
    wanted = config.default_model_filename or _FILES.get(_backend(config), "")
    for version in served(folder, config):
        files = [path.name for path in visible(version)]
        if config.platform == "ensemble" or config.HasField("ensemble_scheduling") or not wanted or wanted in files:
            continue
        yield Problem(
            f"version {version.name} {f'has no {wanted}' if files else 'is empty'}",
            f"Expected {wanted} in the folder {version.name}." + (f" It holds {quoted(files)}." if files else ""),
            where=version.name,
            # The process of a Python model ends when it finds no file, and Triton 2.51 goes on waiting for it.
            hangs=_backend(config) == "python",
        )
    missing = {str(number) for number in config.version_policy.specific.versions} - {path.name for path in found}
    if missing:
        yield Problem(f"version_policy names version {quoted(sorted(missing))}, which has no folder", line=lines.of("version_policy"))


def _check_tensors(folder: Path, config: ModelConfig, lines: _Lines) -> Iterator[Problem]:
    for field, tensors in (("input", config.input), ("output", config.output)):
        yield from _check_each(field, tensors, lines)
        if _backend(config) == "pytorch":
            for tensor in tensors:
                if not re.fullmatch(r".+__\d+", tensor.name):
                    yield Problem(
                        f"{field} {tensor.name!r} has no index in its name",
                        "The pytorch backend passes tensors by position, as in NAME__0, NAME__1.",
                        line=lines.of(field, tensor.name),
                        fatal=False,
                    )
    for tensor in config.output:
        if tensor.label_filename and not (folder / tensor.label_filename).is_file():
            yield Problem(
                f"the label file {tensor.label_filename!r} of output {tensor.name!r} is not there",
                "Expected it in the model's folder, beside config.pbtxt.",
                line=lines.of("output", tensor.label_filename),
            )


def _check_each(field: str, tensors: Iterable, lines: _Lines) -> Iterator[Problem]:
    for name, count in Counter(tensor.name for tensor in tensors).items():
        if not name:
            yield Problem(f"an {field} has no name", 'Expected: name: "…"', line=lines.of(field))
        elif count > 1:
            yield Problem(f"{field} {name!r} is there {count} times", "Each name may stand once.", line=lines.of(field, name), fatal=False)
    for tensor in tensors:
        line = lines.of(field, tensor.name)
        if tensor.data_type == DataType.TYPE_INVALID:
            yield Problem(f"{field} {tensor.name!r} has no data_type", "Expected for example: data_type: TYPE_FP32", line=line)
        if not tensor.dims:
            yield Problem(
                f"{field} {tensor.name!r} has no dims", "Expected for example: dims: [ 16 ], or dims: [ -1 ] for any length", line=line
            )
        elif any(length == 0 or length < -1 for length in tensor.dims):
            yield Problem(f"{field} {tensor.name!r} has dims {list(tensor.dims)}", "Expected lengths, or -1 for any length.", line=line)


def _check_batching(folder: Path, config: ModelConfig, lines: _Lines) -> Iterator[Problem]:
    if config.max_batch_size < 0:
        yield Problem(f"max_batch_size is {config.max_batch_size}", "Expected 0 for no batching, or more.", line=lines.of("max_batch_size"))
    if not config.HasField("dynamic_batching"):
        return
    line = lines.of("dynamic_batching")
    if config.max_batch_size == 0:
        yield Problem("dynamic_batching has no effect with max_batch_size 0", todo="Write: max_batch_size: 8", line=line, fatal=False)
    sizes = list(config.dynamic_batching.preferred_batch_size)
    for size in sizes:
        if size <= 0 or size > config.max_batch_size:
            yield Problem(
                f"preferred_batch_size {size} is {'above max_batch_size ' + str(config.max_batch_size) if size > 0 else 'no batch size'}",
                "Expected batch sizes that the model may have.",
                f"Write: max_batch_size: {max(sizes)}, or a smaller preferred_batch_size",
                line,
            )


def _check_instances(folder: Path, config: ModelConfig, lines: _Lines) -> Iterator[Problem]:
    for group in config.instance_group:
        if group.count < 0:
            yield Problem(f"an instance_group has count {group.count}", "Expected 1 or more.", line=lines.of("instance_group"), fatal=False)


def _check_steps(folder: Path, config: ModelConfig, lines: _Lines) -> Iterator[Problem]:
    known = [path.name for path in visible(folder.parent) if path.is_dir()]
    for step in config.ensemble_scheduling.step:
        if step.model_name not in known:
            yield Problem(
                f"the ensemble's step {step.model_name!r} is no model of this repository",
                f"The repository holds {quoted(known)}.",
                suggestion(step.model_name, known),
                lines.of("ensemble_scheduling", step.model_name),
            )
