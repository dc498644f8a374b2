"""The notebooks for Google Colab, which opens each in a new machine: the exercise with a cell in front that fetches the course.

They are notebooks of their own, in ``notebooks/colab/``, so that nobody else has to run past a cell that does nothing for them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from helpers import settings

if TYPE_CHECKING:
    from nbformat import NotebookNode

TEXT = """## Set up Colab

The next cell fetches the course and makes its server, 2 to 3 minutes in a new runtime. Choose *Runtime > Change runtime type > GPU* before,
if you have one: the server then uses it. Colab forgets everything when the runtime ends, also your answers; *File > Save a copy* keeps the
notebook."""

# COURSE_ROOT is what the helpers look at, too.
_CODE = """import os
import subprocess

course = os.environ.setdefault("COURSE_ROOT", "/content/course")
if not os.path.isdir(course):
    address = {address}
    subprocess.run(["git", "clone", "--quiet", "--depth=1", address, course], check=True)
%run $course/helpers/setup/colab.py"""
_ASK = 'input("Address of the repository in which you found this notebook: ")'


def repository() -> str:
    """The course's public address, ``repository-code`` in ``CITATION.cff``; empty where it has none."""
    citation = (settings.root() / "CITATION.cff").read_text(encoding="utf-8") if (settings.root() / "CITATION.cff").exists() else ""
    found = re.search(r"^repository-code: [\"']?(https://[^\s\"']+)", citation, re.MULTILINE)
    return found[1] if found else ""


def with_setup(cells: list[NotebookNode]) -> list[NotebookNode]:
    """The cells of a notebook with Colab's set-up behind the title."""
    import nbformat

    code = _CODE.format(address=f'"{repository()}"' if repository() else _ASK)
    return [cells[0], nbformat.v4.new_markdown_cell(TEXT), nbformat.v4.new_code_cell(code), *cells[1:]]
