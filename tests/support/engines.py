"""Stand-ins for container engines and for nvidia-smi: small programs on PATH that note how they are called and answer as they are told."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

# Notes arguments and environment, then does what answers.json says for the first words that fit: status, output, errors.
_PROGRAM = """#!{python}
import json, os, pathlib, sys
here, name = pathlib.Path(__file__).parent, pathlib.Path(__file__).name
words = sys.argv[1:]
with open(here / "calls.jsonl", "a") as calls:
    calls.write(json.dumps([name, *words]) + "\\n")
    calls.flush()
if words[:1] == ["run"]:
    (here / "environment.json").write_text(json.dumps(dict(os.environ)))
answers = json.loads((here / "answers.json").read_text())
for pattern, (status, out, err) in answers.items():
    if " ".join([name, *words]).startswith(pattern):
        sys.stdout.write(out)
        sys.stderr.write(err)
        sys.exit(status)
sys.exit("the stand-in was not told about: " + " ".join([name, *words]))
"""
# What engines say on a machine where all is well.
DOCKER_INFO = {"Runtimes": {"runc": {}, "nvidia": {}}, "SecurityOptions": ["name=seccomp,profile=default"], "ServerErrors": None}
GOOD = {
    "docker info": (0, json.dumps(DOCKER_INFO), ""),
    "podman info": (0, json.dumps({"store": {"graphRoot": "/var/lib/containers/storage"}}), ""),
    "docker image inspect nvcr.io": (0, "[]", ""),
    "podman image inspect nvcr.io": (0, "[]", ""),
    "docker image inspect": (1, "", "Error: No such image"),
    "podman image inspect": (125, "", "Error: no such image"),
    "docker rm": (0, "", ""),
    "podman rm": (0, "", ""),
    "docker run": (3, "", "the stand-in serves nothing\n"),
    "podman run": (3, "", "the stand-in serves nothing\n"),
    "apptainer run": (3, "", "the stand-in serves nothing\n"),
    "nvidia-smi --query-gpu=name --format": (0, "Tesla T4\n", ""),
}


class Engines:
    """Stand-ins in a folder that is first on PATH.

    Args:
        folder: for the programs, their answers and their notes.
        monkeypatch: of the test.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        # Nothing else of the machine: whether it has engines or GPUs of its own must not matter.
        monkeypatch.setenv("PATH", str(folder))
        for variable in ("COURSE_IMAGE", "COURSE_IMAGES", "COURSE_ENGINE_ARGUMENTS", "CUDA_VISIBLE_DEVICES"):
            monkeypatch.delenv(variable, raising=False)
        self.tell()

    def install(self, *names: str) -> Engines:
        """Put programs of these names on PATH."""
        for name in names:
            program = self.folder / name
            program.write_text(_PROGRAM.format(python=sys.executable))
            program.chmod(0o755)
        return self

    def tell(self, **answers: tuple[int, str, str]) -> None:
        """Answers other than usual, by the words of the call with ``_`` between them."""
        told = {name.replace("_", " "): answer for name, answer in answers.items()}
        (self.folder / "answers.json").write_text(json.dumps(told | {call: answer for call, answer in GOOD.items() if call not in told}))

    def calls(self, *beginning: str) -> list[list[str]]:
        """The calls that began with these words, in their order."""
        file = self.folder / "calls.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [row for row in rows if row[: len(beginning)] == list(beginning)]

    def environment(self) -> dict[str, str]:
        """The environment that the last ``run`` saw."""
        return json.loads((self.folder / "environment.json").read_text())
