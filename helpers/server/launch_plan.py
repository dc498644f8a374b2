"""What a launch needs before anything starts: the repository, the models to load, the ports to try, the log."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from helpers import paths
from helpers.client.endpoint import BASE_PORT
from helpers.errors import InputError, SetupError
from helpers.paths import make_folder, writing
from helpers.server.serving import Command

# How many triples are tried before giving up: a class of forty on one node, twice over.
PORT_TRIPLES = 80

# Ports of one server. The next server on the same machine starts its search this many ports higher.
PORTS_PER_SERVER = 3


def repository(models: str | Path) -> Path:
    """The model repository that is meant: a path as given, else a folder of the course.

    Raises:
        InputError: this is no path.
        SetupError: there is no such folder, or it has no folder for a model.
    """
    if not isinstance(models, (str, Path)):
        raise InputError(f"{models!r} is no model repository.", "Expected the path of a folder.", 'Type: launch_server("models")')
    given = Path(models).expanduser()
    places = [given] if given.is_absolute() else [paths.root() / given, paths.work_dir().parent / given]
    if not given.is_absolute():
        places.append(paths.current_folder() / given)
    if not given.is_absolute() and given.parts[:1] == ("work",):
        places.insert(0, paths.work_dir() / given.relative_to("work"))
    path = next((place for place in places if place.is_dir()), None)
    if path is None:
        raise SetupError(
            f"There is no model repository {str(models)!r}.",
            "Expected a folder with one folder for each model.",
            'Type: launch_server("models")',
        )
    if not any(entry.is_dir() for entry in path.iterdir()):
        raise SetupError(f"The model repository {path} is empty.", "Expected one folder for each model.", 'Type: launch_server("models")')
    return path.resolve()


def loadable(path: Path, load: Sequence[str]) -> tuple[str, ...]:
    """The models to load, without those for which Triton would wait for ever, so that nothing would be served."""
    from helpers import repository  # loads gRPC, which a call that finds a running server need not wait for

    hanging = repository.faults(path, hanging=True)
    if not hanging:
        return tuple(load)
    wanted = [folder.name for folder in sorted(path.iterdir()) if folder.is_dir()] if "*" in load else load
    return tuple(name for name in wanted if name not in hanging and not name.startswith("."))


def candidates(base_port: int) -> range:
    """First ports of the triples to try.

    Raises:
        InputError: a port that ordinary users may not have, or too high for a triple.
    """
    last = base_port + PORTS_PER_SERVER * PORT_TRIPLES
    if not 1024 <= base_port <= 65533:
        raise InputError(
            f"The base port {base_port} cannot be used.",
            "Expected a number from 1024 to 65533.",
            f"Type: launch_server(base_port={BASE_PORT})",
        )
    return range(base_port, min(last, 65534), PORTS_PER_SERVER)


def make_run_dir(run_dir: Path, command: Command) -> None:
    """Make a server's private folder, with the backends in it.

    Raises:
        SetupError: it cannot be written; nothing of it is left.
    """
    try:
        kept = "A server's socket and backends go there, 2 MB, or where the environment variable COURSE_RUN_DIR points."
        with writing(run_dir, kept, "Type: export COURSE_RUN_DIR=$HOME/.triton-course, before you start JupyterLab"):
            run_dir.mkdir(mode=0o700)
            command.make_links(run_dir)
    except SetupError:
        shutil.rmtree(run_dir, ignore_errors=True)
        raise


def new_log(server_id: str) -> Path:
    """An empty log file that only its owner can read.

    Raises:
        SetupError: it cannot be written.
    """
    folder = paths.log_dir()
    path = folder / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{server_id}.log"
    try:
        make_folder(folder)
        path.touch(mode=0o600)
    except OSError as error:
        raise SetupError(
            f"The server's log cannot be written to {folder}: {error.strerror}.",
            "Expected a folder that you may write to, on a disk that is not full.",
            "Type: export COURSE_WORK=/a/folder/of/yours",
        ) from error
    return path
