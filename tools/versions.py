"""``make test VERSIONS=oldest`` or ``newest``: quick tests with the packages at the ends of the ranges, in an environment of their own.

It lies in ``work/versions``, made by the uv of the lock; the embedded server's environment stays as its lock says. Further arguments go to
pytest, in place of ``-m "not slow" tests/unit``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from helpers.paths import make_folder, root, work_dir
from helpers.setup import environments

# lowest-direct: of the packages that are named. The oldest of everything below them would be tests of other people's ranges.
RESOLUTIONS = {"oldest": "lowest-direct", "newest": "highest"}


def main(end: str, *arguments: str) -> int:
    """Make the environment, run the tests in it, and return pytest's exit status."""
    folder = make_folder(work_dir() / "versions") / end
    python = folder / "bin" / "python"
    shutil.rmtree(folder, ignore_errors=True)
    wanted = [*environments.client_requirements(dev=True), "perf-analyzer==0.1.0; sys_platform == 'linux'"]
    variables = {**os.environ, **environments.places_for_uv([sys.executable, "-m", "pip"])}
    for words in (
        ["venv", "--python", sys.executable, str(folder)],
        ["pip", "install", "--python", str(python), "--resolution", RESOLUTIONS[end], *wanted],
    ):
        subprocess.run([sys.executable, "-m", "uv", *words], check=True, env=variables)
    tests = list(arguments) or ["-m", "not slow", "tests/unit"]
    # The course is not installed there: notebooks' kernels, which start in other folders, find it by its path.
    variables = {**os.environ, "PYTHONPATH": str(root())}
    return subprocess.run([python, "-m", "pytest", "-q", *tests], cwd=root(), env=variables, check=False).returncode


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in RESOLUTIONS:
        sys.exit(f"Type: make test VERSIONS={' or '.join(RESOLUTIONS)}")
    sys.exit(main(*sys.argv[1:]))
