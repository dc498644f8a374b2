"""Run the solutions and keep what they show, for readers without a machine: ``python -m tools.solutions``, or ``make solutions``.

Each runs from top to bottom in a work folder that no student uses. Its outputs go into ``notebooks/solutions/``, with a line that says when
and on which machine; one that fails keeps what it had, is named at the end, and the others run all the same. ``NN`` runs some of them.
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import shutil
import sys
import time
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from PIL import Image

from helpers import machine, paths
from helpers.errors import CourseError
from tools import notebooks, site

# What a picture and all notebooks together may have, in bytes.
PICTURE, ALL = 100_000, 8_000_000
_FOLDER = "solutions-run"
# What the README shows: name of the picture -> the notebook, and the call in the cell that draws it.
README = {"roc_curves": ("04", "plots.roc_curves("), "event_display": ("05", "plots.event_display(event, labels)")}
# Views that live with a kernel alone.
_WIDGET = "application/vnd.jupyter.widget-view+json"


def keep(ran: NotebookNode, line: str) -> NotebookNode:
    """Return a notebook that ran as it is stored: small pictures, no dead widgets, no place of this machine, and when and where it ran."""
    for cell in ran.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.outputs = [_stored(output) for output in cell.outputs if _WIDGET not in output.get("data", {})]
    first = next(cell for cell in ran.cells if cell.cell_type == "code")
    first.outputs.insert(0, nbformat.v4.new_output("display_data", {"text/markdown": f"*{line}*", "text/plain": line}))
    ran.metadata = notebooks.METADATA
    return ran


def _stored(output: NotebookNode) -> NotebookNode:
    data = output.get("data", {})
    if "image/png" in data:
        data["image/png"] = base64.b64encode(smaller(base64.b64decode(data["image/png"]))).decode("ascii")
        if data.pop("text/html", None):
            # The same picture once more, with the words that stand for it.
            output.metadata["image/png"] = {"alt": data["text/plain"]}
    for name, text in [*data.items(), ("text", output.get("text")), ("evalue", output.get("evalue"))]:
        if isinstance(text, str) and name != "image/png":
            (data if name in data else output)[name] = _without_places(text)
    if "traceback" in output:
        output.traceback = [_without_places(line) for line in output.traceback]
    return output


def _without_places(text: str) -> str:
    """Take out where the course and its work folder lie on this machine."""
    places = {str(paths.work_dir()): "work", str(paths.root()): "course", os.path.realpath(paths.root()): "course", str(Path.home()): "~"}
    for place in sorted(places, key=len, reverse=True):
        text = text.replace(place, places[place])
    return text.replace(f"work/{_FOLDER}", "work")


def smaller(picture: bytes) -> bytes:
    """Return a PNG of at most ``PICTURE`` bytes: with fewer colours, then with fewer points."""
    colours, image = 256, Image.open(io.BytesIO(picture)).convert("RGB")
    while len(picture) > PICTURE:
        buffer = io.BytesIO()
        image.quantize(colours).save(buffer, "PNG", optimize=True)
        picture = buffer.getvalue()
        if colours > 64:
            colours //= 2
        else:
            image = image.resize((image.width * 4 // 5, image.height * 4 // 5), Image.Resampling.LANCZOS)
    return picture


def pictures(number: str, ran: NotebookNode, folder: Path) -> None:
    """Write the pictures of a notebook that the README shows."""
    for name, (where, call) in README.items():
        cells = [cell for cell in ran.cells if where == number and cell.cell_type == "code" and call in cell.source]
        shown = [output.data["image/png"] for cell in cells for output in cell.outputs if "image/png" in output.get("data", {})]
        if shown:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.png").write_bytes(base64.b64decode(shown[0]))


def main(arguments: list[str] | None = None) -> int:
    """Run and store; 1 when a notebook failed, or all together have become too large."""
    parser = argparse.ArgumentParser(prog="python -m tools.solutions", description="Run the solutions and keep what they show.")
    parser.add_argument("notebooks", nargs="*", metavar="NN", help="numbers of notebooks, such as 00 04 (default all)")
    wanted = parser.parse_args(arguments).notebooks
    # What an earlier run measured or entered must not be shown as today's.
    shutil.rmtree(paths.work_dir() / _FOLDER, ignore_errors=True)
    work = paths.make_folder(paths.work_dir() / _FOLDER)
    failed: list[str] = []
    for source in notebooks.sources():
        if wanted and source.name[:2] not in wanted:
            continue
        path = source.parent.parent / "solutions" / f"{source.stem}.ipynb"
        began = time.monotonic()
        try:
            text = notebooks.generate(source)[path]
            ran = site.execute(nbformat.reads(text, as_version=4), path.name, work)
        except CourseError as error:
            failed.append(source.name[:2])
            print(f"{source.stem} FAILED: {error}", flush=True)
            continue
        line = f"What you see was made on {time.strftime('%Y-%m-%d')} by a real run; {machine.description()}."
        path.write_text(notebooks.text_of(keep(ran, line)), encoding="utf-8")
        pictures(source.name[:2], ran, paths.root() / "docs" / "images")
        print(f"{source.stem} ran ({time.monotonic() - began:.0f} s), {path.stat().st_size / 1e6:.2f} MB", flush=True)
    size = sum(path.stat().st_size for path in (paths.root() / "notebooks").rglob("*.ipynb"))
    print(f"all notebooks have {size / 1e6:.1f} MB")
    if size > ALL:
        print(f"They may have {ALL / 1e6:.0f} MB.", file=sys.stderr)
    if failed:
        print(f'Not stored: {", ".join(failed)}. When that is corrected, type: make solutions NB="{" ".join(failed)}"', file=sys.stderr)
    return int(bool(failed) or size > ALL)


if __name__ == "__main__":
    sys.exit(main())
