"""Models' folders: find one, list a repository as a tree, copy models to work on, and find what a server would not say well."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tritonclient.grpc.model_config_pb2 import ModelConfig

from helpers import paths
from helpers.errors import ConfigError, ModelError, quoted, suggestion
from helpers.paths import find, make_folder, read_text, shown, writing
from helpers.repository.syntax import parse

CONFIG = "config.pbtxt"

# Backends of the embedded runtime, and the files that they look for in a version folder.
_FILES = {"python": "model.py", "onnxruntime": "model.onnx", "pytorch": "model.pt"}
_PLATFORMS = {"onnxruntime_onnx": "onnxruntime", "pytorch_libtorch": "pytorch"}
# Triton 2.51 puts the names of models into a shell's command line, without quotation marks.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.+=@%,:-]+")


@dataclass(frozen=True)
class Problem:
    """Why a server would refuse a model: what it is and what was expected, and what to type; ``hangs`` if Triton would wait for ever."""

    text: str
    todo: str = ""
    hangs: bool = False


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
    """Find a model's folder by its path, or by its name among the working copies and then among the course's own models."""
    given = Path(model)
    places = (paths.work_dir() / "models", paths.models_dir())
    for candidate in [*(place / given for place in places if len(given.parts) == 1), find(given)]:
        if candidate is not None and candidate.is_dir():
            return candidate
    names = sorted({folder.name for place in places for folder in visible(place)})
    raise ModelError(
        f"There is no model folder {str(model)!r}.",
        f"The models here: {quoted(names)}.",
        suggestion(given.name, names) or "Type: repository.tree()",
    )


def checkout(*models: str, fresh: bool = False) -> Path:
    """Copy models, or all of the course, to ``work/models``, where they may be edited, and return that folder.

    A copy that exists stays as it is; with ``fresh`` it goes to ``work/models.old``, with the time in its name.
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
                if not fresh:
                    continue
                old = paths.work_dir() / "models.old"
                old.mkdir(exist_ok=True)
                (target / name).rename(old / f"{name}.{datetime.now().astimezone():%Y-%m-%dT%H-%M-%S.%f}")
            # Copied outside the repository first, so that a copy cut short is never taken for a model.
            with tempfile.TemporaryDirectory(prefix=".checkout-", dir=target.parent) as temporary:
                ignored = shutil.ignore_patterns("__pycache__", ".*")
                Path(shutil.copytree(source / name, Path(temporary) / name, ignore=ignored)).rename(target / name)
    return target


def tree(repository: str | Path = "models") -> str:
    """Return a model repository as text: folders, versions, sizes, and a mark at each model that a server would refuse."""
    folder = find(repository)
    if folder is None or not folder.is_dir():
        expected = "Expected a model repository: a folder with one folder for each model."
        raise ModelError(f"There is no folder {str(repository)!r}.", expected)
    empty = "" if visible(folder) else "  ◀ empty: a server has nothing to serve here"
    return "\n".join([f"{folder.resolve().name}/{empty}", *_entries(folder, "", faults(folder))])


def problems(folder: Path) -> list[Problem]:
    """Return what is wrong with a model's folder and is better said before the server sees it; Triton says the rest."""
    found = []
    if not _PLAIN_NAME.fullmatch(folder.name):
        text = f"the folder's name {folder.name!r} has other characters than letters of the English alphabet, digits and _ - ."
        found.append(Problem(text, "Give the folder another name, and write it into its config.pbtxt", hangs=True))
    try:
        return found + check(folder, parse(read_text(folder / CONFIG), CONFIG))
    except FileNotFoundError:
        # Triton can tell the backend from these files.
        if not any(path.name in _FILES.values() for version in versions(folder) for path in visible(version)):
            found.append(Problem(f"no {CONFIG}. Expected one in the model's folder."))
        return found
    except (ConfigError, OSError) as error:
        return [*found, Problem(str(error))]


def check(folder: Path, config: ModelConfig) -> list[Problem]:
    """Return what is wrong with a config, which need not have been written yet, for a model's folder."""
    known = [path.name for path in visible(folder.parent) if path.is_dir()]
    missing = [step.model_name for step in config.ensemble_scheduling.step if step.model_name not in known]
    found = [Problem(f"the ensemble's step {name!r} is no model of this repository. It holds {quoted(known)}.") for name in missing]
    there = versions(folder)
    if not there:
        found.append(Problem("no version folder. Expected a folder with a number as its name, such as 1, that holds the model."))
    backend = config.backend or _PLATFORMS.get(config.platform, "")
    wanted = config.default_model_filename or _FILES.get(backend, "")
    policy = config.version_policy
    if policy.HasField("specific"):
        there = [path for path in there if int(path.name) in policy.specific.versions]
    elif not policy.HasField("all"):
        there = there[-max(policy.latest.num_versions, 1) :]
    for version in there if wanted and not config.HasField("ensemble_scheduling") else ():
        files = [path.name for path in visible(version)]
        if wanted not in files:
            holds = f"It holds {quoted(files)}." if files else "It is empty."
            # The process of a Python model ends when it finds no file, and Triton 2.51 goes on waiting for it.
            found.append(Problem(f"version {version.name} has no {wanted}. {holds}", hangs=backend == "python"))
    return found


def raise_first(found: list[Problem], folder: Path) -> None:
    """Raise the first problem of a model's folder, which names the others; return if there is none."""
    if found:
        more = f" And: {' '.join(problem.text for problem in found[1:])}" if found[1:] else ""
        raise ConfigError(f"{shown(folder)}: {found[0].text}{more}", "", found[0].todo)


def faults(repository: str | Path, *, hanging: bool = False) -> dict[str, str]:
    """Return the models that a server would refuse, as far as their folders show it, with the reason; or those for which it would hang."""
    found = {}
    for folder in visible(find(repository) or Path(repository)):
        if folder.is_dir() and (reasons := [problem.text for problem in problems(folder) if problem.hangs or not hanging]):
            found[folder.name] = reasons[0]
    return found


def _entries(folder: Path, indent: str, marks: Mapping[str, str]) -> Iterator[str]:
    entries = visible(folder)
    for entry in entries:
        branch, deeper = ("└── ", "    ") if entry is entries[-1] else ("├── ", "│   ")
        size = "/" if entry.is_dir() else f"  {_size(entry.stat().st_size)}"
        mark = f"  ◀ {marks[entry.name].splitlines()[0].partition('. ')[0].rstrip('.')}" if entry.name in marks else ""
        yield f"{indent}{branch}{entry.name}{size}{mark}"
        yield from _entries(entry, indent + deeper, {})


def _size(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"
