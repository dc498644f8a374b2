"""The course as pages to read, with its figures: ``python -m helpers.course_site``, or ``make site``.

Runs the solution notebooks (or takes such that ran already, ``--executed FOLDER``) and writes ``work/site/index.html`` with one page for
each. The pages need nothing from elsewhere: they can be read without a network, and copied to any web server.
"""

from __future__ import annotations

import argparse
import html
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import coursemap, settings
from helpers.errors import CourseError, InputError, SetupError
from helpers.files import shown, writing

if TYPE_CHECKING:
    from nbformat import NotebookNode

# Seconds that one cell may take: the search of notebook 09 is the longest.
_CELL_TIMEOUT_S = 600

_INDEX = """<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Serve machine-learning models with Triton</title><style>
body {{ font: 17px/1.55 system-ui, sans-serif; max-width: 50em; margin: 2em auto; padding: 0 1em; color: #1b1b1b; background: #fff }}
table {{ border-collapse: collapse }} td, th {{ text-align: left; padding: .35em 1.2em .35em 0; border-bottom: 1px solid #ddd }}
a {{ color: #0b5cad }} </style></head><body>
<h1>Serve machine-learning models with Triton</h1>
<p>A hands-on course for physicists. These pages are for those who read first: each notebook with its answers, as it ran on a real Triton
server. {when} In the course itself the answers are yours to find: <code>make lab</code>.</p>
<table><thead><tr><th scope="col"></th><th scope="col">Notebook</th><th scope="col">Minutes</th></tr></thead><tbody>
{rows}
</tbody></table></body></html>
"""


def execute(source: Path, folder: Path) -> NotebookNode:
    """Run a notebook from top to bottom, as a student would.

    Args:
        source: the notebook.
        folder: the current folder of its kernel.

    Returns:
        It, with outputs.

    Raises:
        SetupError: a cell failed that is not meant to.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.read(source, as_version=4)
    try:
        NotebookClient(notebook, timeout=_CELL_TIMEOUT_S, resources={"metadata": {"path": str(folder)}}).execute()
    except CellExecutionError as error:
        raise SetupError(f"{source.name} stopped: {error.ename}: {error.evalue}", "", "Type: make doctor") from error
    return notebook


def render(notebook: NotebookNode, others: set[str]) -> str:
    """A notebook as one page that needs nothing from elsewhere.

    Args:
        notebook: with outputs.
        others: names without ending of the pages to which links between notebooks may lead.

    Returns:
        HTML. Links to notebooks that have no page become plain words.
    """
    from nbconvert import HTMLExporter

    exporter = HTMLExporter(template_name="lab", embed_images=True, require_js_url="", jquery_url="", mathjax_url="", mermaid_js_url="")
    exporter.jupyter_widgets_base_url = ""
    exporter.widget_renderer_url = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(r"\[([^\]]+)\]\((\w+)\.ipynb\)", lambda link: _link(link[1], link[2], others), cell.source)
    page, _ = exporter.from_notebook_node(notebook)
    # The exporter's own scripts are for formulas, diagrams and widgets, which it would fetch from elsewhere; the pages have none of them.
    page = re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)
    title = re.search(r"^# (.+)$", notebook.cells[0].source, re.MULTILINE) if notebook.cells else None
    name = html.escape(title[1] if title else "Notebook")
    page = re.sub(r"<title>.*?</title>", lambda _: f"<title>{name}</title>", page, count=1, flags=re.DOTALL)
    back = '<p style="margin:1em 2em"><a href="index.html" style="color:#0b5cad;text-decoration:underline">All notebooks</a></p>'
    return re.sub(r"<body\b[^>]*>", lambda body: body[0] + back, page, count=1)


def _link(words: str, name: str, others: set[str]) -> str:
    return f"[{words}]({name}.html)" if name in others else words


def index(names: set[str], when: str) -> str:
    """The first page, with the table of notebooks."""
    rows = []
    for part in coursemap.PARTS:
        name = next((name for name in sorted(names) if name.startswith(f"{part.number}_")), None)
        title = html.escape(part.title)
        cell = f'<a href="{name}.html">{title}</a>' if name else title
        rows.append(f"<tr><td>{part.number}</td><td>{cell}</td><td>{part.minutes}</td></tr>")
    return _INDEX.format(rows="\n".join(rows), when=html.escape(when))


def build(executed: dict[str, NotebookNode], folder: Path) -> Path:
    """Write all pages.

    Args:
        executed: name without ending -> the notebook with outputs.
        folder: where to.

    Returns:
        The first page.

    Raises:
        SetupError: the folder cannot be written.
    """
    from helpers.machine import device

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, notebook in executed.items():
            (folder / f"{name}.html").write_text(render(notebook, set(executed)), encoding="utf-8")
        page = folder / "index.html"
        when = f"Made on {time.strftime('%Y-%m-%d')}, {device()}, Triton {settings.EMBEDDED_TRITON}."
        page.write_text(index(set(executed), when), encoding="utf-8")
    return page


def _found(folder: Path) -> dict[str, NotebookNode]:
    """Solutions that ran already, anywhere below a folder: the newest of each, with outputs."""
    import nbformat

    names = {path.stem: path for path in sorted((settings.root() / "notebooks" / "solutions").glob("[0-9][0-9]_*.ipynb"))}
    files = sorted(folder.rglob("*.ipynb"), key=lambda path: path.stat().st_mtime)
    newest = {name: path for path in files for name in names if path.stem in (name, f"solutions-{name}")}
    read = {name: nbformat.read(path, as_version=4) for name, path in sorted(newest.items())}
    executed = {name: notebook for name, notebook in read.items() if any(cell.get("outputs") for cell in notebook.cells)}
    if not executed:
        raise InputError(f"No notebook that ran is below {shown(folder)}.", "Expected names such as solutions-00_start_here.ipynb.")
    return executed


def main(arguments: list[str] | None = None) -> int:
    """Run what has to be run, and write the pages.

    Returns:
        0, or 1 when something is in the way, which was said.
    """
    parser = argparse.ArgumentParser(prog="python -m helpers.course_site", description="The course with its figures as pages to read.")
    parser.add_argument("notebooks", nargs="*", metavar="NN", help="numbers of notebooks, such as 00 04 (default all)")
    parser.add_argument("--executed", type=Path, metavar="FOLDER", help="take solutions that ran already, below this folder")
    options = parser.parse_args(arguments)
    try:
        executed = _found(options.executed) if options.executed else {}
        if not options.executed:
            work = settings.work_dir() / "site-run"
            work.mkdir(parents=True, exist_ok=True)
            # A work folder of its own: a student's models and progress stay as they are.
            os.environ["COURSE_WORK"] = str(work)
            for source in sorted((settings.root() / "notebooks" / "solutions").glob("[0-9][0-9]_*.ipynb")):
                if not options.notebooks or source.name[:2] in options.notebooks:
                    began = time.monotonic()
                    executed[source.stem] = execute(source, work)
                    print(f"{source.stem} ran ({time.monotonic() - began:.0f} s)", flush=True)
            os.environ["COURSE_WORK"] = str(work.parent)
        page = build(executed, settings.work_dir() / "site")
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Open {shown(page)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
