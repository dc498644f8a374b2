"""What the README and its sisters tell people to type exists, and where they point is something."""

from __future__ import annotations

import pkgutil
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from helpers import cli
from tests.support import ROOT

PAGES = ("README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))
# Whose links are followed.
_MADE = {".venv", ".server", "work", ".git", ".pytest_cache"}
# Environments have ten thousands of files, which would be looked at whenever tests are collected.
_FOLDERS = [path for path in ROOT.iterdir() if path.is_dir() and path.name not in _MADE]
_FOUND = [*ROOT.glob("*.md"), *(page for folder in _FOLDERS for page in folder.rglob("*.md"))]
LINKED = sorted(str(path.relative_to(ROOT)) for path in _FOUND)


def text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def commands(pattern: str) -> list[tuple[str, str]]:
    """Every command that begins so, in code blocks and in code words, with its page."""
    found = []
    for page in LINKED:
        blocks = re.findall(r"^```\w*\n(.*?)^```", text(page), re.MULTILINE | re.DOTALL)
        words = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text(page), flags=re.MULTILINE | re.DOTALL))
        lines = [line.split("   ")[0] for block in blocks for line in block.splitlines()] + words
        found += [(page, part.strip()) for line in lines for part in line.split("&&") if part.strip().startswith(pattern)]
    return sorted(set(found))


@pytest.mark.parametrize(("page", "command"), commands("make "))
def test_make_targets_exist(page: str, command: str) -> None:
    done = subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{page}: {command}: {done.stderr}"


@pytest.mark.parametrize(("page", "command"), commands("python -m helpers"))
def test_commands_exist_with_their_options(page: str, command: str) -> None:
    arguments = shlex.split(command)[3:]
    if arguments:
        _, others = cli.parser(arguments[0]).parse_known_args(arguments)
        assert not others or arguments[0] in cli.PASS_ON


def test_commands_are_tested_at_all() -> None:
    assert len(commands("make ")) > 8
    assert len(commands("python -m helpers")) > 4


def test_every_make_target_is_in_its_help() -> None:
    makefile = text("Makefile")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)) - {"help"}
    told = set(re.findall(r'echo "make ([a-z-]+)', makefile))
    assert targets == told


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", LINKED)
def test_links_lead_somewhere(page: str) -> None:
    """To a file that is there, and to a heading in it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        if "://" not in target:
            file, _, anchor = target.partition("#")
            path = (ROOT / page).parent / file if file else ROOT / page
            assert path.exists(), f"{page}: {target}"
            assert not anchor or anchor in anchors(path), f"{page}: {target}"


def test_modules_that_pages_name_are_there() -> None:
    assert len(LINKED) > 10
    for path in (ROOT / page for page in LINKED):
        for name in set(re.findall(r"\bhelpers(?:\.[a-z_]\w*)+", path.read_text(encoding="utf-8"))):
            try:
                pkgutil.resolve_name(name)
            except (ImportError, AttributeError) as error:
                raise AssertionError(f"{path.relative_to(ROOT)} names {name}: {error}") from error


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    # What Binder opens is an address of JupyterLab.
    made_later = ("work/", ".venv", ".server", "lab/tree/")
    for word in re.findall(r"`([\w./-]+/[\w./-]*|[\w-]+\.(?:toml|yml|lock|txt|cff|md))`", text(page)):
        if not word.startswith(made_later) and "NN" not in word:
            assert (ROOT / word).exists(), f"{page}: {word}"


def test_tests_that_are_named_are_there() -> None:
    """As in the table of what happens when: each row has the test that does it for real."""
    there = {path.stem for path in (ROOT / "tests").rglob("test_*.py")}
    named = {name for page in LINKED for name in re.findall(r"`(test_\w+)`", text(page))}
    assert len(named) > 15 and named <= there, named - there


def test_messages_that_are_explained_are_given() -> None:
    """The first columns of the tables on what is in the way: words that the course really says."""
    said = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "helpers").rglob("*.py"))
    tables = [text(page).partition("## When something is in the way")[2] for page in ("README.md", "docs/installing.md")]
    rows = re.findall(r"^\| (`[^|]+) \|", "\n".join(tables), re.MULTILINE)
    phrases = [part for row in rows for word in re.findall(r"`([^`]+)`", row) for part in word.split(" … ")]
    assert len(phrases) >= 9
    for phrase in phrases:
        # Where a number stands, the course puts the one at hand.
        pattern = re.sub(r"3\\\.11|9000", ".*", re.escape(phrase))
        assert re.search(pattern, said), phrase


def test_the_contributors_page_fits_on_a_page() -> None:
    assert len(text("CONTRIBUTING.md").split()) < 750


def test_the_licence_is_the_whole_one() -> None:
    licence = text("LICENSE")
    assert "Apache License" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    assert len(licence) > 10_000


def test_no_package_registry_is_named() -> None:
    hosts = re.compile(r"(pypi|pythonhosted|anaconda|npmjs|debian)\.org")
    for path in [ROOT / page for page in (*PAGES, "Makefile", "pyproject.toml", "environment.yml", "requirements.lock")]:
        assert not hosts.search(path.read_text(encoding="utf-8")), path
    for path in Path(ROOT / "helpers").rglob("*.py"):
        assert not hosts.search(path.read_text(encoding="utf-8")), path


def test_links_of_notebooks_lead_somewhere() -> None:
    """In the exercises and in the solutions: to other notebooks and to pictures."""
    books = [*ROOT.glob("notebooks/[0-9]*.ipynb"), *ROOT.glob("notebooks/solutions/*.ipynb")]
    targets = {(book, target) for book in books for target in re.findall(r"\]\(([^)\s#:]+)\)", book.read_text(encoding="utf-8"))}
    assert len(targets) > 15
    lost = [
        f"{book.name}: {target}" for book, target in targets if not (book.parent / target).exists() and not target.startswith("attachment")
    ]
    assert not lost, lost
