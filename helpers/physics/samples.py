"""Samples of the course that are NumPy's archives: columns of events and of taus."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from helpers import paths
from helpers.errors import SetupError


def columns(name: str, path: str | Path | None = None) -> dict[str, NDArray[Any]]:
    """Return the columns of a sample of the course, or of another file of the same form; raise SetupError if it cannot be read."""
    file = Path(path) if path else paths.root() / "notebooks" / "data" / name
    try:
        with np.load(file) as stored:
            return {column: stored[column] for column in stored.files}
    except (OSError, ValueError, EOFError) as error:
        raise SetupError(
            f"{file} cannot be read ({type(error).__name__}: {error}).",
            f"Expected a file such as notebooks/data/{name}.",
            "Type: git checkout -- notebooks/data",
        ) from error
