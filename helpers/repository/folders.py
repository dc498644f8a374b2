"""Models' folders: find one, list a repository as a tree, copy models to work on, and find what a server would refuse."""

from __future__ import annotations

import filecmp
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tritonclient.grpc.model_config_pb2 import ModelConfig

from helpers import paths
from helpers.errors import ConfigError, ModelError, quoted, suggestion
from helpers.paths import find, make_folder, read_text, shown, writing
from helpers.repository.syntax import parse

CONFIG = "config.pbtxt"

# Backend → the file that it looks for in a version folder. The first three are the backends of the embedded runtime.
_FILES = {"python": "model.py", "onnxruntime": "model.onnx", "pytorch": "model.pt", "tensorrt": "model.plan", "openvino": "model.xml"}
# Compiled networks of PyTorch: the file tells the embedded runtime's backend, the platform NVIDIA's.
_COMPILED, _COMPILED_FILE = "torch_aoti", "model.pt2"
# Backends of the NGC image that need no file of a fixed name.
_OTHERS = ("dali", "fil", "identity", "repeat", "square", "tensorflow", "tensorrtllm", "vllm")
_PLATFORMS = {
    "onnxruntime_onnx": "onnxruntime",
    "pytorch_libtorch": "pytorch",
    _COMPILED: "pytorch",
    "tensorrt_plan": "tensorrt",
    "tensorflow_graphdef": "tensorflow",
    "tensorflow_savedmodel": "tensorflow",
    "ensemble": "",
}
# Triton 2.51 puts the names of models and of their instances into a shell's command line, without quotation marks.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.+=@%,:-]+")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a model's folder.

    Attributes:
        text: what it is, without a full stop.
        expected: what was expected.
        todo: what to type.
        line: the line in ``config.pbtxt``, 0 when it is not about a line.
        where: the entry of the model's folder that it is about: ``""`` for the folder, ``config.pbtxt``, ``1``, …
        fatal: True if the server would refuse the model.
        hangs: True if Triton would wait for this model for ever, and serve nothing.
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

    def __str__(self) -> str:
        return str(self.error or f"{self.text}. {self.expected}".strip())


def visible(folder: Path) -> list[Path]:
    """Return the entries of a folder that belong to a repository, sorted: no hidden ones, no Python caches."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name != "__pycache__")


def versions(folder: Path) -> list[Path]:
    """Return the version folders of a model, lowest first."""
    # Triton takes no leading zeros, and sorts by number.
    found = [path for path in visible(folder) if path.is_dir() and re.fullmatch(r"0|[1-9][0-9]*", path.name)]
    return sorted(found, key=lambda path: int(path.name))


def locate(model: str | Path) -> Path:
    """Find a model's folder.

    Args:
        model: the folder or its ``config.pbtxt``, absolute, or relative to the current folder or to the course's; or a model's
            bare name, looked up in the working copies first and then in the course's own models.

    Raises:
        ModelError: there is no such folder.
    """
    given = Path(model)
    places = (paths.work_dir() / "models", paths.models_dir())
    candidates = [*(place / given for place in places), find(given)] if len(given.parts) == 1 else [find(given)]
    for candidate in filter(None, candidates):
        if candidate.is_file() and candidate.name == CONFIG:
            return candidate.parent
        if candidate.is_dir():
            return candidate
    names = sorted({folder.name for place in places for folder in visible(place)})
    raise ModelError(
        f"There is no model folder {str(model)!r}.",
        f"The models here: {quoted(names)}.",
        suggestion(given.name, names) or "Type: repository.tree()",
    )


def checkout(*models: str, fresh: bool = False) -> Path:
    """Copy models to ``work/models``, where they may be edited. A copy that exists stays as it is.

    Args:
        models: names of models of the course; all of them when none is named.
        fresh: put the course's version in place of a changed copy; the old one goes to ``work/models.old``, with
            the time in its name.

    Returns:
        The folder of the working copies, a model repository itself.

    Raises:
        ModelError: the course has no such model.
        SetupError: the working copy cannot be written.
    """
    source, target = paths.models_dir(), paths.work_dir() / "models"
    known = [folder.name for folder in visible(source) if folder.is_dir()]
    for name in models:
        if name not in known:
            raise ModelError(f"The course has no model {name!r}.", f"It has {quoted(known)}.", suggestion(name, known))
    with writing(target):
        make_folder(target)
        for name in models or known:
            if (target / name).exists():
                if not fresh or _same(source / name, target / name):
                    continue
                old = paths.work_dir() / "models.old"
                old.mkdir(exist_ok=True)
                (target / name).rename(old / f"{name}.{datetime.now().astimezone():%Y-%m-%dT%H-%M-%S.%f}")
            _copy(source / name, target / name)
    return target


def tree(repository: str | Path = "models") -> str:
    """Return a model repository as text: folders, versions, sizes, and a mark at what is wrong.

    Raises:
        ModelError: there is no such folder.
    """
    folder = find(repository)
    if folder is None or not folder.is_dir():
        raise ModelError(
            f"There is no folder {str(repository)!r}.", "Expected a model repository: a folder with one folder for each model."
        )
    models = visible(folder)
    lines = [f"{folder.resolve().name}/" + ("" if models else "  ◀ empty: a server has nothing to serve here")]
    for model in models:
        branch, indent = ("└── ", "    ") if model is models[-1] else ("├── ", "│   ")
        marks: dict[str, str] = {} if model.is_dir() else {"": "no model: a server ignores files here"}
        for problem in problems(model) if model.is_dir() else ():
            marks[problem.where] = "; ".join(filter(None, [marks.get(problem.where), problem.text]))
        lines.append(f"{branch}{model.name}{'/' if model.is_dir() else ''}{_mark(marks.get(''))}")
        lines += _entries(model, indent, marks, "")
    return "\n".join(lines)


def problems(folder: Path) -> list[Problem]:
    """Return what is wrong with a model's folder and is better said before the server sees it; Triton says the rest."""
    found = list(_odd_name("the folder's name", folder.name, "Give the folder another name, and write it into its config.pbtxt", where=""))
    try:
        text = read_text(folder / CONFIG)
        return [*found, *check(folder, parse(text, str(folder / CONFIG)), text)]
    except FileNotFoundError:
        # Triton can tell the backend from these files.
        guessable = any((version / name).exists() for version in versions(folder) for name in _FILES.values())
        said = "no config.pbtxt" + ("; the server has to guess it from the model file" if guessable else "")
        return [*found, Problem(said, "Expected a file config.pbtxt in the model's folder.", where="", fatal=not guessable)]
    except ConfigError as error:
        line = re.search(r"line (\d+)", error.happened)
        return [*found, Problem(f"syntax error in {line[0] if line else CONFIG}", line=int(line[1]) if line else 0, error=error)]
    except OSError as error:
        return [*found, Problem(f"cannot be read: {error.strerror or error}")]


def check(folder: Path, config: ModelConfig, text: str = "") -> list[Problem]:
    """Return what is wrong with a config, which need not have been written yet, for a model's folder; its text gives the lines."""
    return [*_check_names(folder, config, text), *_check_versions(folder, config), *_check_steps(folder, config, text)]


def raise_first(found: list[Problem], folder: Path) -> None:
    """Raise the first fatal problem of a model's folder, which names the others; return if there is none."""
    fatal = [problem for problem in found if problem.fatal]
    if fatal:
        first, *others = fatal
        place = f"{shown(folder / CONFIG)}, line {first.line}" if first.line else shown(folder)
        more = f" ({len(others)} more: {'; '.join(problem.text for problem in others)})" if others else ""
        raise first.error or ConfigError(f"{place}: {first.text}.{more}", first.expected, first.todo)


def faults(repository: str | Path, *, hanging: bool = False) -> dict[str, str]:
    """Return the models that a server would refuse, as far as their folders show it, each with the reason in a sentence.

    Args:
        repository: the folder.
        hanging: only those for which Triton waits for ever, so that the whole server never gets ready.
    """
    models = [folder for folder in visible(find(repository) or Path(repository)) if folder.is_dir()]
    found = {model.name: [problem for problem in problems(model) if problem.hangs or (problem.fatal and not hanging)] for model in models}
    return {name: str(reasons[0]) for name, reasons in found.items() if reasons}


def _copy(source: Path, target: Path) -> None:
    # Copied outside the repository first, so that a copy cut short is never taken for a model.
    with tempfile.TemporaryDirectory(prefix=".checkout-", dir=target.parent.parent) as temporary:
        copied = shutil.copytree(source, Path(temporary) / target.name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        copied.rename(target)


def _same(left: Path, right: Path) -> bool:
    def files(root: Path) -> set[Path]:
        return {path.relative_to(root) for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts}

    return files(left) == files(right) and all(filecmp.cmp(left / name, right / name, shallow=False) for name in files(left))


def _mark(text: str | None) -> str:
    return f"  ◀ {text}" if text else ""


def _entries(folder: Path, indent: str, marks: dict[str, str], inside: str) -> Iterator[str]:
    entries = visible(folder)
    for entry in entries:
        branch, deeper = ("└── ", "    ") if entry is entries[-1] else ("├── ", "│   ")
        size = "/" if entry.is_dir() else f"  {_size(entry.stat().st_size)}"
        yield f"{indent}{branch}{entry.name}{size}{_mark(marks.get(f'{inside}{entry.name}'))}"
        yield from _entries(entry, indent + deeper, marks, f"{inside}{entry.name}/")


def _size(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"


def _line(text: str, field: str, value: str) -> int:
    """Return the line in which a field has this text as its value; 0 if there is none."""
    found = re.search(rf"""\b{field}\s*:\s*["']{re.escape(value)}["']""", text)
    return text.count("\n", 0, found.start()) + 1 if found else 0


def _odd_name(what: str, name: str, todo: str, text: str = "", where: str = CONFIG, hangs: bool = True) -> Iterator[Problem]:
    """Yield a problem for a name that a shell would take apart."""
    odd = dict.fromkeys(character for character in name if not _PLAIN_NAME.fullmatch(character))
    if odd:
        seen = ", ".join("a blank" if character.isspace() else repr(character) for character in odd)
        expected = "Triton takes letters of the English alphabet, digits and _ - . there."
        yield Problem(f"{what} {name!r} has {seen}", expected, todo, _line(text, r"\w+", name), where, hangs=hangs)


def _check_names(folder: Path, config: ModelConfig, text: str) -> Iterator[Problem]:
    if config.name and config.name != folder.name:
        yield Problem(
            f"the name is {config.name!r}, but the folder is {folder.name!r}",
            "The two must be the same.",
            f'Write: name: "{folder.name}", or leave the line out',
            _line(text, "name", config.name),
        )
    for group in config.instance_group:
        yield from _odd_name("the name of an instance_group", group.name, "Leave that name out", text, hangs=False)
    if config.backend == "python":
        yield from _odd_name("the file name", config.default_model_filename, "Give the file another name", text)
    known = [*_FILES, *_OTHERS]
    if config.backend and config.backend not in known:
        yield Problem(
            f"unknown backend {config.backend!r}",
            f"The embedded runtime has {quoted(list(_FILES)[:3])}; the NGC image has more.",
            suggestion(config.backend, known),
            _line(text, "backend", config.backend),
        )
    elif config.platform and config.platform not in _PLATFORMS and not config.backend:
        yield Problem(
            f"unknown platform {config.platform!r}",
            f"Expected one of {quoted(_PLATFORMS)}.",
            suggestion(config.platform, _PLATFORMS) or suggestion(config.platform, known).replace("mean", "mean the backend"),
            _line(text, "platform", config.platform),
        )
    if config.HasField("dynamic_batching") and config.max_batch_size == 0:
        yield Problem("dynamic_batching has no effect with max_batch_size 0", todo="Write: max_batch_size: 8", fatal=False)


def _check_versions(folder: Path, config: ModelConfig) -> Iterator[Problem]:
    found = versions(folder)
    if not found:
        yield Problem("no version folder", "Expected a folder with a number as its name, such as 1, that holds the model.", where="")
    backend = config.backend or _PLATFORMS.get(config.platform, "")
    usual = _COMPILED_FILE if config.platform == _COMPILED else _FILES.get(backend, "")
    wanted = config.default_model_filename or usual
    if config.HasField("ensemble_scheduling") or not wanted:
        return
    policy = config.version_policy
    if policy.HasField("specific"):
        found = [path for path in found if int(path.name) in policy.specific.versions]
    elif not policy.HasField("all"):
        found = found[-max(policy.latest.num_versions, 1) :]
    for version in found:
        files = [path.name for path in visible(version)]
        if wanted not in files and not (wanted == _FILES["pytorch"] and not config.platform and _COMPILED_FILE in files):
            yield Problem(
                f"version {version.name} {f'has no {wanted}' if files else 'is empty'}",
                f"Expected {wanted} in the folder {version.name}." + (f" It holds {quoted(files)}." if files else ""),
                where=version.name,
                # The process of a Python model ends when it finds no file, and Triton 2.51 goes on waiting for it.
                hangs=backend == "python",
            )


def _check_steps(folder: Path, config: ModelConfig, text: str) -> Iterator[Problem]:
    known = [path.name for path in visible(folder.parent) if path.is_dir()]
    for step in config.ensemble_scheduling.step:
        line = _line(text, "model_name", step.model_name)
        there = [path.name for path in versions(folder.parent / step.model_name)]
        what = f"the ensemble's step {step.model_name!r}"
        if step.model_name not in known:
            meant = suggestion(step.model_name, known)
            yield Problem(f"{what} is no model of this repository", f"The repository holds {quoted(known)}.", meant, line)
        elif step.model_version >= 0 and str(step.model_version) not in there:
            wanted = f"asks for version {step.model_version}" if step.model_version else "names no model_version, which means version 0"
            yield Problem(f"{what} {wanted}", f"There is {quoted(there)}; -1 stands for the latest.", "Write: model_version: -1", line)
