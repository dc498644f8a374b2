"""The model repository: look at it, copy models to work on, read, change, check and compare their configs.

Typical use::

    from helpers import repository
    print(repository.tree("models"))
    repository.checkout("particlenet_PT")                                  # a copy in work/models, yours to edit
    repository.change_config("particlenet_PT", max_batch_size=64)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from helpers import config_effects, config_text, settings
from helpers.config_checks import Problem, check_config, problems
from helpers.config_compare import Comparison
from helpers.config_compare import compare as compare_configs
from helpers.errors import ConfigError, ModelError
from helpers.files import find, read_text, replace, shown, writing
from helpers.model_folder import CONFIG, visible
from helpers.repository_tree import tree
from helpers.server import Server
from helpers.wording import quoted, suggestion
from helpers.working_copy import checkout

__all__ = [
    "Problem",
    "change_config",
    "checkout",
    "compare",
    "config_json",
    "faults",
    "locate",
    "problems",
    "read_config",
    "tree",
    "validate",
    "write_config",
]


def locate(model: str | Path) -> Path:
    """Find a model's folder.

    Args:
        model: the folder or its ``config.pbtxt``, absolute, or relative to the current folder or to the course's; or a model's
            bare name, looked up in the working copies first and then in the course's own models.

    Raises:
        ModelError: there is no such folder.
    """
    given = Path(model)
    candidates = [find(given)]
    if len(given.parts) == 1:
        candidates = [settings.work_dir() / "models" / given, settings.models_dir() / given, *candidates]
    for candidate in filter(None, candidates):
        if candidate.is_file() and candidate.name == CONFIG:
            return candidate.parent
        if candidate.is_dir():
            return candidate
    names = sorted({folder.name for place in (settings.models_dir(), settings.work_dir() / "models") for folder in visible(place)})
    raise ModelError(
        f"There is no model folder {str(model)!r}.",
        f"The models here: {quoted(names)}.",
        suggestion(given.name, names) or "Type: repository.tree()",
    )


def read_config(model: str | Path) -> ModelConfig:
    """Read a model's ``config.pbtxt``.

    Args:
        model: as for :func:`locate`.

    Raises:
        ModelError: there is no such folder.
        ConfigError: it has no config, or the config has a fault in its syntax; the message names the line.
    """
    path = locate(model) / CONFIG
    return config_text.parse(_read(path), shown(path))


def write_config(model: str | Path, config: ModelConfig) -> None:
    """Write a model's ``config.pbtxt``; what does not change in it keeps its layout and its comments.

    Args:
        model: as for :func:`locate`; the course's own models are not written to.
        config: what it should say.

    Raises:
        ConfigError: the folder is one of the course's own models, or the old config has a fault.
        SetupError: the file cannot be written.
    """
    folder = _own(model)
    path = folder / CONFIG
    text = config_text.rewrite(_read(path), config) if path.is_file() else config_text.render(config)
    with writing(path):
        replace(path, text)


def change_config(
    model: str | Path, edit: Callable[[ModelConfig], Any] | str | None = None, *, check: bool = True, **fields: Any
) -> Comparison:
    """Change a model's config, check it, write it, and show what is different.

    Comments and layout survive outside the top-level fields that change; a comment inside a changed field is lost.

    Args:
        model: as for :func:`locate`; the course's own models are not written to.
        edit: a function that changes the config in place, or protobuf text such as ``dynamic_batching { }``, whose fields
            take the place of those of the same name.
        check: refuse a config that the server would refuse.
        fields: top-level fields with their new values, as numbers, text, lists and dictionaries; None takes a field out.

    Returns:
        Old and new side by side.

    Raises:
        ConfigError: the change has a fault, or would make a config that the server refuses; nothing was written.
    """
    folder = _own(model)
    old = read_config(folder)
    new = ModelConfig()
    new.CopyFrom(old)
    if callable(edit):
        edit(new)
    elif edit is not None:
        stanza = config_text.parse(edit, "the text to put in")
        for name in {field.name for field, _ in stanza.ListFields()}:
            new.ClearField(name)
        new.MergeFrom(stanza)
    for name, value in fields.items():
        _set(new, name, value)
    if check:
        _raise_first([problem for problem in check_config(folder, new) if problem.fatal], folder / CONFIG)
    write_config(folder, new)
    return compare_configs(old, new)


def compare(old: Any, new: Any, reported: Any = None) -> Comparison:
    """Put configs side by side: old, new, and what the server reports.

    Args:
        old: a config, a dictionary such as ``server.config(model)`` gives, or a model as for :func:`locate`.
        new: the same.
        reported: the same, or None; or the :class:`~helpers.server.Server` itself, and then fields that have no effect there are
            marked, with the reason. Fields that only the server knows are marked as filled in by it.
    """
    sides = [read_config(item) if isinstance(item, (str, Path)) else item for item in (old, new, reported)]
    if not isinstance(reported, Server):
        return compare_configs(*sides)
    named = locate(new).name if isinstance(new, (str, Path)) else dict(new)["name"] if isinstance(new, Mapping) else new.name
    return compare_configs(*sides[:2], *config_effects.of_server(reported, named))


def validate(model: str | Path) -> None:
    """Check a model's folder and config before the server sees it; see :func:`problems` for the list with its warnings.

    Raises:
        ModelError: there is no such folder.
        ConfigError: the server would refuse it; the message names the file and the line.
    """
    folder = locate(model)
    _raise_first([problem for problem in problems(folder) if problem.fatal], folder / CONFIG)


def faults(repository: str | Path, *, hanging: bool = False) -> dict[str, str]:
    """The models that a server would refuse, each with the reason in a sentence.

    Args:
        repository: the folder.
        hanging: only those for which Triton waits for ever, so that a server that is to load them never gets ready: Python
            models whose file is not there.
    """
    found = {}
    for model in visible(find(repository) or Path(repository)):
        fatal = [problem for problem in problems(model) if problem.fatal and (problem.hangs or not hanging)] if model.is_dir() else []
        if fatal:
            found[model.name] = str(fatal[0].error or f"{fatal[0].text}. {fatal[0].expected}".strip())
    return found


def config_json(config: str | Mapping[str, Any] | ModelConfig) -> str:
    """A config as the JSON text that Triton's load call takes.

    Args:
        config: text as in ``config.pbtxt``, or a dictionary such as ``server.config(model)`` gives.

    Raises:
        ConfigError: it has a fault.
    """
    if isinstance(config, str):
        config = config_text.parse(config, "the config")
    elif not isinstance(config, ModelConfig):
        config = _from_dict(dict(config))
    return json.dumps(config_text.as_dict(config))


def _read(path: Path) -> str:
    try:
        return read_text(path)
    except FileNotFoundError as error:
        raise ConfigError(
            f"There is no {shown(path)}.", "Expected a file config.pbtxt in the model's folder.", "Look with: repository.tree()"
        ) from error
    except OSError as error:
        raise ConfigError(f"{shown(path)} cannot be read: {error}.", "Expected a text file.") from error


def _own(model: str | Path) -> Path:
    folder = locate(model).resolve()
    if settings.models_dir() in folder.parents:
        raise ConfigError(
            f"The model in {shown(folder)} belongs to the course and is not edited.",
            "Expected a working copy in work/models.",
            f'Type: checkout("{folder.name}"), and serve work/models',
        )
    return folder


def _set(config: ModelConfig, name: str, value: Any) -> None:
    known = [field.name for field in ModelConfig.DESCRIPTOR.fields]
    if name not in known:
        raise ConfigError(f"A config has no field {name!r}.", "Expected a field of config.pbtxt.", suggestion(name, known))
    part = _from_dict({} if value is None else {name: value})
    config.ClearField(name)
    config.MergeFrom(part)


def _from_dict(fields: dict[str, Any]) -> ModelConfig:
    try:
        return json_format.ParseDict(fields, ModelConfig())
    except json_format.ParseError as error:
        raise ConfigError(f"These fields make no config: {str(error).rstrip('.')}.", "Expected what config.pbtxt takes there.") from error


def _raise_first(found: list[Problem], path: Path) -> None:
    if found:
        first = found[0]
        place = f"{shown(path)}, line {first.line}" if first.line else shown(path.parent)
        more = f" ({len(found) - 1} more: {'; '.join(problem.text for problem in found[1:])})" if len(found) > 1 else ""
        raise first.error or ConfigError(f"{place}: {first.text}.{more}", first.expected, first.todo)
