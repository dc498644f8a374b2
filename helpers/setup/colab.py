"""Sets the course up on Google Colab, or in another notebook service whose Python is not ours to make: ``%run helpers/setup/colab.py``.

Colab's own NumPy, Matplotlib, widgets and kernel stay as they are, because a running notebook uses them. What is missing is installed
beside them, and the server gets an environment of its own. Standard library only.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import distributions
from pathlib import Path

if __name__ == "__main__":
    # The course is not installed there: its folder is all there is.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from helpers.errors import CourseError
from helpers.paths import root
from helpers.setup import environments, notebook_copies

# What the service brings, in whichever version: to change these under a running kernel would need a restart.
THEIRS = ("ipykernel", "ipywidgets", "jupyterlab", "matplotlib", "numpy", "psutil", "requests")


def main() -> None:
    """Packages, server, notebooks; at once when they are there."""
    there = {each.metadata["Name"].lower(): each.version for each in distributions()}
    kept = [f"{name}=={there[name]}" for name in THEIRS if name in there]
    names = {line: re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in environments.client_requirements()}
    # Colab's own front end stands for JupyterLab.
    wanted = [line for line, name in names.items() if name != "jupyterlab" and not (name in THEIRS and name in there)]
    print("installing what is missing for the notebooks, half a minute", flush=True)
    environments.run([sys.executable, "-m", "pip", "install", "--quiet", *kept, *wanted], "The notebooks' packages")
    environments.install_server()
    notebook_copies.hand_out()
    print(f"The course is in {root()}. Run the next cell.")


if __name__ == "__main__":
    try:
        main()
    except CourseError as error:
        print(error)
        sys.exit(1)
