"""The working copy of the course's models in ``work/models``: students edit there, the course's own files stay as they are."""

from __future__ import annotations

import filecmp
import shutil
import tempfile
from datetime import datetime
from pathlib import Path

from helpers import settings
from helpers.errors import ModelError
from helpers.files import make_folder, writing
from helpers.model_folder import visible
from helpers.wording import quoted, suggestion


def checkout(*models: str, fresh: bool = False) -> Path:
    """Make the working copy of models in ``work/models``, where they may be edited.

    A model that is there already stays as it is.

    Args:
        models: names of models of the course; all of them when none is named.
        fresh: put the course's version in place of a copy that was changed; the old one goes to ``work/models.old``, with
            the time in its name.

    Returns:
        The folder of the working copies, a model repository itself.

    Raises:
        ModelError: the course has no such model.
        SetupError: the working copy cannot be written.
    """
    source, target = settings.models_dir(), settings.work_dir() / "models"
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
                old = settings.work_dir() / "models.old"
                old.mkdir(exist_ok=True)
                (target / name).rename(old / f"{name}.{datetime.now().astimezone():%Y-%m-%dT%H-%M-%S.%f}")
            _copy(source / name, target / name)
    return target


def _copy(source: Path, target: Path) -> None:
    # Copied under another name outside the repository first, so that a copy cut short is never taken for a model.
    temporary = Path(tempfile.mkdtemp(prefix=".checkout-", dir=target.parent.parent))
    try:
        shutil.copytree(source, temporary / target.name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        (temporary / target.name).rename(target)
    finally:
        shutil.rmtree(temporary)


def _same(left: Path, right: Path) -> bool:
    names = {
        path.relative_to(root) for root in (left, right) for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    return all(
        (left / name).is_file() and (right / name).is_file() and filecmp.cmp(left / name, right / name, shallow=False) for name in names
    )
