"""``python -m benchmarks.record``: what students see who cannot measure themselves, into notebooks/data.

``recorded_sweep.jsonl`` has every load of notebooks 07 and 08, on a server of the course with its models as they are. ``--notebooks``
runs the solutions of notebooks 07 and 09 instead, in a working folder of their own, and keeps what they type and what their experiments
gave. Run it on a quiet machine; interrupted and run again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helpers import launch_server, paths, sweep
from helpers.machine import cpu
from helpers.measuring import recorded
from helpers.measuring.inputs import write_real
from helpers.measuring.perf_analyzer import words_of
from helpers.measuring.program import find_perf_analyzer
from helpers.measuring.table import append_row, plain, rows_of
from helpers.server import Server


@dataclass(frozen=True)
class Load:
    """Points of the same models and inputs: names, batch sizes, concurrencies, lengths of the inputs, and whether those are real ones."""

    models: tuple[str, ...]
    batches: tuple[int, ...]
    concurrencies: tuple[int, ...] = (1,)
    lengths: Mapping[str, int] = field(default_factory=dict)
    real: bool = False


_ONNX, _TORCH, _TAUS = "particlenet_AK4", "particlenet_AK4_PT", "deeptau_nosplit"
LOADS = (
    Load((_ONNX, _TORCH), (1, 4, 8, 16, 32, 64)),
    Load((_ONNX,), (10, 100)),
    Load((_ONNX,), (8,), (2, 4, 8)),
    Load((_ONNX,), (4,), (2,)),
    Load((_ONNX,), (10,), (8,)),
    Load((_ONNX,), (1, 4, 16), (4,), {"pf": 100, "sv": 10}),
    Load((_ONNX,), (10,), lengths={"pf": 50, "sv": 4}, real=True),
    Load((_ONNX,), (10,), lengths={"pf": 20, "sv": 4}, real=True),
    Load(("particlenet_PT",), (1, 10, 100)),
    Load((_TAUS,), (1, 4, 16), (4,), real=True),
)
BASE_PORT = 12700
# Seconds that the windows of a point may take.
POINT_S = 20.0
SOURCE = "recorded: this course, on a machine of its own"


def main() -> None:
    """Measure everything, then replace the file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record", description=__doc__)
    parser.add_argument("--notebooks", action="store_true", help="record what notebooks 07 and 09 ask for instead of the sweep")
    if parser.parse_args().notebooks:
        record_notebooks()
        return
    folder = paths.work_dir() / "record"
    with launch_server("models", load=sorted({model for load in LOADS for model in load.models}), base_port=BASE_PORT) as server:
        rows = [_public(row, paths.work_dir()) for load in LOADS for row in measured(server, load, folder)]
    _write(recorded.data_file("sweep"), rows)
    shutil.rmtree(folder)


def measured(server: Server, load: Load, folder: Path) -> list[dict[str, Any]]:
    """The rows of a load."""
    inputs: dict[str, Any] = {"lengths": load.lengths}
    if load.real:
        inputs = {"input_data": write_real(server, load.models[0], load.lengths)}
    return rows_of(sweep(server, load.models, load.batches, load.concurrencies, output=folder, max_seconds=POINT_S, **inputs))


def record_notebooks() -> None:
    """Run both notebooks, and replace both files; the search of notebook 09 is left out: it is not recorded."""
    before = os.environ.get("COURSE_WORK")
    with tempfile.TemporaryDirectory() as folder:
        # What is in the course's own working folder is somebody's.
        os.environ["COURSE_WORK"] = folder
        try:
            said: list[dict[str, Any]] = []
            _run("07", {"perf_analyzer": lambda *arguments: _typed(arguments, said)})
            _write(recorded.data_file("commands"), said)
            found = _run("09", {"tune": lambda *arguments, **options: None, "enter": lambda *arguments, **options: None})
            rows = [*found["table"].rows[:-1], {**plain(found["best"]), "experiment": "challenge"}]
            _write(recorded.data_file("experiments"), [_public(row, Path(folder).resolve()) for row in rows])
        finally:
            os.environ.pop("COURSE_WORK")
            if before is not None:
                os.environ["COURSE_WORK"] = before


def _run(number: str, replaced: Mapping[str, Callable[..., Any]]) -> dict[str, Any]:
    """The names that a solution's cells define, checks left out."""
    (path,) = (paths.root() / "notebooks" / "solutions").glob(f"{number}_*.ipynb")
    names: dict[str, Any] = {"__name__": "notebook"}
    try:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code" and "check" not in cell["metadata"].get("tags", []):
                exec(compile("".join(cell["source"]), path.name, "exec"), names)  # the course's own notebook
                names |= replaced
    finally:
        if "server" in names:
            names["server"].stop()
    return names


def _typed(arguments: tuple[str, ...], said: list[dict[str, Any]]) -> int:
    """Run a command as it was typed, and keep what it says."""
    words = words_of(*arguments)
    done = find_perf_analyzer().run(*words)
    line = {"words": recorded.without_place(words), "status": done.returncode, "said": done.stdout + done.stderr, "cpu": cpu()}
    said.append(line | {"source": SOURCE, "time": datetime.now(UTC).isoformat(timespec="seconds")})
    return done.returncode


def _public(row: Mapping[str, Any], work: Path) -> dict[str, Any]:
    # A file of inputs has a place on this machine only.
    return {**row, "source": SOURCE, "command": row["command"].replace(f"{work}/", "work/")}


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace a file in one step."""
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    for row in rows:
        append_row(part, row)
    part.replace(path)
    print(f"{path} is new")


if __name__ == "__main__":
    main()
