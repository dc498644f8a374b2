"""``python -m helpers lint``, or ``make lint``: what the commit hooks check, on everything."""

from __future__ import annotations

import argparse
import subprocess
import sys

from helpers import settings
from helpers.workspace import notebooks


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("--fix", action="store_true", help="mend what can be mended by itself")


def run(args: argparse.Namespace) -> int:
    """Run all checks; exit status 1 when one of them found something."""
    fix = args.fix
    books = [str(path) for path in [*notebooks(), *(settings.root() / "notebooks" / "solutions").glob("*.ipynb")]]
    checks = [
        ["ruff", "check", *(["--fix"] if fix else []), "."],
        ["ruff", "format", *([] if fix else ["--check"]), "."],
        ["codespell_lib", *(["-w"] if fix else []), "."],
        ["nbstripout", "--keep-id", *([] if fix else ["--verify"]), *books],
    ]
    codes = [subprocess.run([sys.executable, "-m", *check], cwd=settings.root(), check=False).returncode for check in checks]
    failed = [check[0] for check, code in zip(checks, codes, strict=True) if code]
    print(f"{' and '.join(failed)} found something to mend" if failed else "all clean")
    return 1 if failed else 0
