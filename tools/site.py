"""The course as pages to read, with its figures: ``python -m tools.site``; and its demonstration: ``--demo``, or ``make demo``.

Writes ``work/site/index.html``, with one page for each solution notebook, as it ran last. The pages need nothing from elsewhere: they can
be read without a network, and copied to any web server.
"""

from __future__ import annotations

import argparse
import html
import os
import re
import shutil
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter
from nbformat import NotebookNode

from helpers import paths
from helpers.errors import CourseError, SetupError

# Seconds that one cell may take: only against hanging.
_CELL_TIMEOUT_S = 1800
_NOTEBOOK_LINK = re.compile(r"\[([^\]]+)\]\((\w+)\.ipynb\)")
# Formulas stand between dollar signs. Code does, too, now and then: it is passed over.
_FORMULA = re.compile(r"(```.*?```|`[^`\n]*`)|\$([^$\n]+)\$", re.DOTALL)
# The exporter's own page is as wide as the window, too wide to read.
_STYLE = """<style>
body.jp-Notebook main, nav.course { max-width: 60rem; margin: 0 auto } nav.course { padding: 1em }
.jp-RenderedHTMLCommon { font-size: 16px } .jp-InputPrompt, .jp-OutputPrompt, .jp-OutputArea-prompt { display: none !important }
nav.course a { color: #0b5cad; text-decoration: underline } img { max-width: 100%; height: auto }
</style>"""
_NAVIGATION = '<nav class="course"><a href="index.html">All notebooks</a></nav>'
_INDEX = """# Serve machine-learning models with Triton

A hands-on course for physicists. These pages are for those who read first: each notebook with its answers, as it ran on a real Triton
server. In the course itself the answers are yours to find: `make lab`.

| Notebook | Minutes |
|---|--:|
"""


def execute(notebook: NotebookNode, name: str, folder: Path, *, say: bool = False) -> NotebookNode:
    """Run a notebook from top to bottom, as a student would, and return it with its outputs; a SetupError where a cell fails.

    Args:
        notebook: as read.
        name: for the error.
        folder: the current folder of its kernel, and what the helpers there take for ``work/``.
        say: print what each cell printed, as soon as it is done.
    """
    client = NotebookClient(notebook, timeout=_CELL_TIMEOUT_S, resources={"metadata": {"path": str(folder)}})
    if say:
        client.on_cell_executed = _say
    try:
        client.execute(env={**os.environ, "COURSE_WORK": str(folder)})
    except CellExecutionError as error:
        raise SetupError(f"{name} stopped: {error.ename}: {error.evalue}", "", "Type: make doctor") from error
    except (CellTimeoutError, DeadKernelError) as error:
        raise SetupError(f"{name} stopped: {error}", "", "Type: make doctor") from error
    return notebook


def _say(cell: NotebookNode, **_: object) -> None:
    printed = (output.text for output in cell.get("outputs", []) if output.get("name") == "stdout")
    print(*printed, sep="", end="", flush=True)


def render(notebook: NotebookNode, pages: list[str], *, code: bool = True) -> str:
    """Return a notebook as one page of HTML that needs nothing from elsewhere.

    Args:
        notebook: with outputs.
        pages: names without ending of all pages; links to notebooks that have no page become plain words.
        code: show the code, too.
    """
    exporter = HTMLExporter(template_name="lab", embed_images=True, require_js_url="", jquery_url="", mathjax_url="", mermaid_js_url="")
    exporter.exclude_input, exporter.exclude_output_prompt, exporter.exclude_anchor_links = not code, True, True
    exporter.jupyter_widgets_base_url = ""
    exporter.widget_renderer_url = ""
    formulas: list[str] = []

    def keep(found: re.Match[str]) -> str:
        if found[1]:
            return found[1]
        # Here: the demonstration, which is for those without the developers' packages, has no formula.
        try:
            from latex2mathml.converter import convert
        except ImportError as error:
            happened = f"{error.name} is not installed, which makes the formulas of these pages."
            raise SetupError(
                happened, "It is one of the developers' packages.", "Type: make notebooks   and then the same again"
            ) from error
        # The exporter would take MathML apart, so a word stands for each formula until it is done.
        formulas.append(convert(found[2]))
        return f"FORMULA{len(formulas) - 1}ALUMROF"

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            linked = _NOTEBOOK_LINK.sub(lambda link: f"[{link[1]}]({link[2]}.html)" if link[2] in pages else link[1], cell.source)
            cell.source = _FORMULA.sub(keep, linked)
        for output in cell.get("outputs", []):
            # The exporter's own pictures have no words.
            if words := output.get("metadata", {}).get("image/png", {}).get("alt"):
                picture = output.data["image/png"].replace("\n", "")
                output.data["text/html"] = f'<img alt="{html.escape(words)}" src="data:image/png;base64,{picture}">'
    page, _ = exporter.from_notebook_node(notebook)
    page = re.sub(r"FORMULA(\d+)ALUMROF", lambda found: formulas[int(found[1])], page)
    # The exporter's own scripts are for formulas, diagrams and widgets, which it would fetch from elsewhere; browsers read MathML.
    page = re.sub(r"<script\b.*?</script>", "", page, flags=re.DOTALL)
    head = f"<title>{html.escape(_title(notebook))}</title>{_STYLE}"
    page = re.sub(r"<title>.*?</title>", lambda _: head, page, count=1, flags=re.DOTALL)
    return re.sub(r"<body\b[^>]*>", lambda body: body[0] + _NAVIGATION, page, count=1) if pages else page


def _title(notebook: NotebookNode) -> str:
    found = re.search(r"^# (.+)$", notebook.cells[0].source, re.MULTILINE)
    return found[1].removesuffix(" (with answers)") if found else "Notebook"


def index(executed: dict[str, NotebookNode]) -> NotebookNode:
    """Return the first page as a notebook, with a table of all notebooks and what they say about their time."""
    rows = []
    for name, notebook in executed.items():
        minutes = re.search(r"\*\*Time:\*\* (\d+) minutes", notebook.cells[0].source)
        rows.append(f"| [{name[:2]} {_title(notebook)}]({name}.ipynb) | {minutes[1] if minutes else ''} |\n")
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(_INDEX + "".join(rows))])


def build(executed: dict[str, NotebookNode], folder: Path) -> Path:
    """Write all pages, in place of those of an earlier run, and return the first; ``executed`` has them by name without ending."""
    with paths.writing(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, notebook in {"index": index(executed), **executed}.items():
            (folder / f"{name}.html").write_text(render(notebook, list(executed)), encoding="utf-8")
    return folder / "index.html"


def solutions() -> dict[str, NotebookNode]:
    """Return the solution notebooks, with what they show, by their names without ending."""
    files = sorted((paths.root() / "notebooks" / "solutions").glob("[0-9][0-9]_*.ipynb"))
    return {file.stem: nbformat.read(file, as_version=4) for file in files}


def demo(work: Path) -> Path:
    """Run the demonstration (``tools/demo.py``) and write it as one page, which is returned; a SetupError where it fails."""
    cells = []
    for part in re.split(r"^# %%", (Path(__file__).parent / "demo.py").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        kind, _, text = part.partition("\n")
        if "[markdown]" in kind:
            cells.append(nbformat.v4.new_markdown_cell(re.sub(r"^# ?", "", text.strip(), flags=re.MULTILINE)))
        else:
            cells.append(nbformat.v4.new_code_cell(text.strip()))
    notebook = execute(nbformat.v4.new_notebook(cells=cells), "The demonstration", work, say=True)
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        # What was printed for the terminal stands on the page in other places.
        cell.outputs = [output for output in cell.outputs if output.output_type != "stream"]
    page = paths.make_folder(work / "demo") / "index.html"
    page.write_text(render(notebook, [], code=False), encoding="utf-8")
    return page


def main(arguments: list[str] | None = None) -> int:
    """Write the pages; 1 when something is in the way, which was said."""
    parser = argparse.ArgumentParser(prog="python -m tools.site", description="The course with its figures as pages to read.")
    parser.add_argument("--demo", action="store_true", help="the demonstration alone, in two minutes, into work/demo/")
    try:
        if parser.parse_args(arguments).demo:
            page = demo(paths.make_folder(paths.work_dir()))
        else:
            page = build(solutions(), paths.work_dir() / "site")
    except CourseError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Open {paths.shown(page)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
