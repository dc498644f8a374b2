"""The pages to read: what a notebook shows is on its page, nothing comes from elsewhere, links lead to pages that are there."""

from __future__ import annotations

import base64
import io
import re
import sys
from pathlib import Path

import matplotlib
import nbformat
import numpy as np
import pytest
from nbformat import NotebookNode
from PIL import Image

from helpers import paths
from helpers.errors import SetupError
from helpers.plots import style
from tools import site, solutions

FIRST, SECOND = "00_start_here", "01_launch_a_server"


def _ran(title: str, link: str, words: str = "") -> NotebookNode:
    """A notebook as one that ran: text with a picture, a table, printed words, a figure with its words."""
    v4 = nbformat.v4
    text = v4.new_markdown_cell(
        f"# {title}\n\n![a very small red dot](attachment:dot.png)\n\n{words}\n\n**Next:** [Launch a server]({link}.ipynb)"
    )
    dot = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
    text.attachments = {"dot.png": {"image/png": dot}}
    shown = v4.new_output(
        "execute_result", {"text/html": "<table><tr><td>READY</td></tr></table>", "text/plain": "READY"}, execution_count=1
    )
    printed = v4.new_output("stream", name="stdout", text="16 sums\n")
    figure = v4.new_output("display_data", {"text/html": f'<img alt="Figure: a line" src="data:image/png;base64,{dot}">', "text/plain": ""})
    code = v4.new_code_cell("server", execution_count=1, outputs=[shown, printed, figure])
    return v4.new_notebook(cells=[text, code])


def test_pages_hold_all_that_was_shown_and_fetch_nothing(tmp_path: Path) -> None:
    first = site.build({FIRST: _ran("Start here", SECOND), SECOND: _ran("Launch a server", "77_gone")}, tmp_path / "site")
    page, other = ((tmp_path / "site" / f"{name}.html").read_text() for name in (FIRST, SECOND))
    assert "<title>Start here</title>" in page and page.count("<h1") == 1
    assert "<td>READY</td>" in page and "16 sums" in page and 'alt="Figure: a line"' in page
    assert re.search(r'<img[^>]+alt="a very small red dot"', page), "pictures of the text travel along"
    assert f'href="{SECOND}.html"' in page and 'href="index.html"' in page
    assert "77_gone" not in other and "<p><strong>Next:</strong> Launch a server</p>" in other, "a link to no page is plain words"
    for text in (page, other, first.read_text()):
        assert not re.search(r"<script|<link\b[^>]+https?:|\bsrc=[\"'](?!data:)|@import|url\([\"']?https?:", text)


def test_formulas_are_mathematics_without_a_script(tmp_path: Path) -> None:
    words = r"A $p_T$ above 0.5 GeV, `$HOME`, and $m = \sqrt{2\,p_{T1}\,p_{T2}\,\bigl(\cosh(\eta_1 - \eta_2)\bigr)}$."
    page = site.render(_ran("Start here", SECOND, words), [FIRST])
    assert page.count("<math ") == 2 and "<msub><mi>p</mi><mi>T</mi></msub>" in page and "<msqrt>" in page
    assert "$p_T$" not in page and "<code>$HOME</code>" in page, "code stays as it is"


def test_a_formula_without_the_developers_packages_is_one_paragraph(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `make lab` alone, which README and INSTRUCTORS have made pages of."""
    monkeypatch.setitem(sys.modules, "latex2mathml.converter", None)
    with pytest.raises(SetupError, match=r"latex2mathml.*Type: make notebooks"):
        site.render(_ran("Start here", SECOND, "A $p_T$."), [FIRST])


def test_a_second_site_keeps_nothing_of_the_first(tmp_path: Path) -> None:
    site.build({FIRST: _ran("Start here", SECOND), SECOND: _ran("Launch", FIRST)}, tmp_path / "site")
    site.build({SECOND: _ran("Launch", FIRST)}, tmp_path / "site")
    assert sorted(path.name for path in (tmp_path / "site").iterdir()) == [f"{SECOND}.html", "index.html"]


def test_the_first_page_has_every_notebook_of_the_course() -> None:
    solutions = site.solutions()
    text = site.render(site.index(solutions), list(solutions))
    assert len(solutions) >= 11 and "<title>Serve machine-learning models with Triton</title>" in text
    for name, notebook in solutions.items():
        title = re.search(r"# (.+?)(?: \(with answers\))?$", notebook.cells[0].source, re.MULTILINE)
        minutes = re.search(r"(\d+) minutes", notebook.cells[0].source)
        assert title and minutes and f'href="{name}.html">{name[:2]} {title[1]}</a>' in text and f">{minutes[1]}</td>" in text


def test_a_cell_that_fails_is_named(tmp_path: Path) -> None:
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")], metadata=kernel)
    with pytest.raises(site.SetupError, match=r"broken\.ipynb stopped: ZeroDivisionError"):
        site.execute(notebook, "broken.ipynb", tmp_path)


@pytest.mark.slow
def test_what_a_solution_keeps_is_small_and_without_dead_parts() -> None:
    points = np.random.default_rng(1).integers(0, 255, (600, 800, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(points).save(buffer, "PNG")
    picture = base64.b64encode(buffer.getvalue()).decode()
    v4 = nbformat.v4
    outputs = [
        v4.new_output("display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "bar"}),
        v4.new_output("display_data", {"image/png": picture, "text/html": "<img …>", "text/plain": "Figure: points."}),
        v4.new_output("stream", text=f"written to {paths.work_dir()}/rows.jsonl\n"),
    ]
    kept = solutions.keep(v4.new_notebook(cells=[v4.new_code_cell("1", outputs=outputs)]), "Made on a machine.")
    line, figure, printed = kept.cells[0].outputs
    assert line.data["text/plain"] == "Made on a machine." and printed.text == "written to work/rows.jsonl\n"
    assert len(buffer.getvalue()) > 10 * solutions.PICTURE >= 10 * len(base64.b64decode(figure.data["image/png"]))
    assert "text/html" not in figure.data
    assert 'alt="Figure: points."' in site.render(kept, [])


def test_words_for_a_figure() -> None:
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, (upper, lower) = plt.subplots(2, sharex=True)
    upper.plot([1, 2], label="ONNX")
    upper.plot([2, 3], label="TorchScript")
    upper.set(ylabel="Throughput (jets/s)", title="Sweep")
    upper.legend()
    lower.set(xlabel="Batch size", ylabel=r"$p_\mathrm{T}$ (GeV)")
    plt.close(figure)
    assert style.words(figure) == (
        "Figure with 2 panels: Sweep, Throughput (jets/s) against Batch size, "
        "ONNX rises from 1 to 2, TorchScript rises from 2 to 3; p_T (GeV) against Batch size."
    )
