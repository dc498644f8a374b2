"""The pages to read: what a notebook shows is on its page, nothing comes from elsewhere, links lead to pages that are there."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib
import nbformat
import pytest
from nbformat import NotebookNode

from helpers import course_site, coursemap
from helpers.plots import style as figure_text

FIRST, SECOND = "00_start_here", "01_launch_a_server"


def _ran(title: str, link: str) -> NotebookNode:
    """A notebook as one that ran: text with a picture, a table, printed words, a figure with its words."""
    v4 = nbformat.v4
    text = v4.new_markdown_cell(f"# {title}\n\n![a very small red dot](attachment:dot.png)\n\n**Next:** [Launch a server]({link}.ipynb)")
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
    first = course_site.build({FIRST: _ran("Start here", SECOND), SECOND: _ran("Launch a server", "77_gone")}, tmp_path / "site")
    page, other = ((tmp_path / "site" / f"{name}.html").read_text() for name in (FIRST, SECOND))
    assert "<title>Start here</title>" in page and page.count("<h1") == 1
    assert "<td>READY</td>" in page and "16 sums" in page and 'alt="Figure: a line"' in page
    assert re.search(r'<img[^>]+alt="a very small red dot"', page), "pictures of the text travel along"
    assert f'href="{SECOND}.html"' in page
    assert "77_gone" not in other and "<p><strong>Next:</strong> Launch a server</p>" in other, "a link to no page is plain words"
    for text in (page, other, first.read_text()):
        assert not re.search(r"<script|<link\b[^>]+https?:|\bsrc=[\"'](?!data:)|@import|url\([\"']?https?:", text)


def test_the_first_page_has_every_notebook_of_the_course(tmp_path: Path) -> None:
    text = course_site.index({FIRST}, "Made on 2026-11-25.")
    for part in coursemap.PARTS:
        assert f"<td>{part.number}</td>" in text and part.title in text
    assert text.count("href=") == 1 and "Made on 2026-11-25." in text


def test_executed_notebooks_are_found_where_the_tests_leave_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert course_site.main(["--executed", str(tmp_path)]) == 1
    assert "No notebook that ran" in capsys.readouterr().err
    place = tmp_path / "test_solutions_run0"
    place.mkdir()
    nbformat.write(_ran("Start here", SECOND), place / f"solutions-{FIRST}.ipynb")
    assert course_site.main(["--executed", str(tmp_path)]) == 0
    assert capsys.readouterr().out.rstrip().endswith("site/index.html")


def test_a_cell_that_fails_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.ipynb"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")], metadata=kernel), broken)
    with pytest.raises(course_site.SetupError, match=r"broken\.ipynb stopped: ZeroDivisionError"):
        course_site.execute(broken, tmp_path)


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
    assert figure_text.words(figure) == (
        "Figure with 2 panels: Sweep, Throughput (jets/s) against Batch size, for ONNX, TorchScript; p_T (GeV) against Batch size."
    )
