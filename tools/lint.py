"""What the commit hooks check, on everything, and the floors of helpers: ``make lint``, ``make lint FIX=yes``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# lint-imports has no module that Python can run.
_FLOORS = "import sys; from importlinter.cli import lint_imports_command; sys.argv[0] = 'lint-imports'; lint_imports_command()"


def main(fix: bool) -> int:
    """Run all checks.

    Args:
        fix: change what can be changed by itself.

    Returns:
        1 when one of them found something, else 0.
    """
    books = [str(path) for path in [*ROOT.glob("notebooks/[0-9]*.ipynb"), *ROOT.glob("notebooks/solutions/*.ipynb")]]
    checks = {
        "ruff check": ["-m", "ruff", "check", *(["--fix"] if fix else []), "."],
        "ruff format": ["-m", "ruff", "format", *([] if fix else ["--check"]), "."],
        "codespell": ["-m", "codespell_lib", *(["-w"] if fix else []), "."],
        "nbstripout": ["-m", "nbstripout", "--keep-id", *([] if fix else ["--verify"]), *books],
        "import-linter": ["-c", _FLOORS],
    }
    failed = [name for name, check in checks.items() if subprocess.run([sys.executable, *check], cwd=ROOT, check=False).returncode]
    print(f"{' and '.join(failed)} found something to fix" if failed else "all clean")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main("--fix" in sys.argv))
