"""Copies of the course and crafted interpreters, for tests of the set-up that must not touch the real one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from helpers import paths
from tests.support import ROOT
from tests.support.processes import PATIENCE_S

# What the set-up needs of the course.
PARTS = ("Makefile", "pyproject.toml", "requirements.lock", "environment.yml", "containers", "helpers", "README.md")


def copy_course(target: Path) -> Path:
    """A course of its own without environments: the real helpers and lists, one model, two tiny notebooks."""
    target.mkdir(parents=True)
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, target / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / part, target / part)
    shutil.copytree(ROOT / "models" / "add_sub", target / "models" / "add_sub", ignore=shutil.ignore_patterns("__pycache__"))
    (target / "notebooks").mkdir()
    for name in ("00_start_here", "03_run_inference"):
        (target / "notebooks" / f"{name}.ipynb").write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}\n')
    return target


def link_course(target: Path, *models: str) -> Path:
    """The course by links, without git's and a student's own folders, and with these models alone where some are named."""
    target.mkdir(parents=True)
    for entry in ROOT.iterdir():
        if entry.name not in ("work", ".git", *(["models"] if models else [])):
            (target / entry.name).symlink_to(entry)
    for model in models:
        (target / "models").mkdir(exist_ok=True)
        (target / "models" / model).symlink_to(ROOT / "models" / model)
    return target


def run(command: list[str] | str, folder: Path, timeout_s: float = PATIENCE_S, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a newcomer would: nothing of this test run's own settings in its environment."""
    hidden = ("COURSE_", "VIRTUAL_ENV", "PYTHON", "CONDA_", "MAKE", "MFLAGS")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    environment.update(variables)
    shell = isinstance(command, str)
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        shell=shell,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
        check=False,
    )


def base_python() -> Path:
    """The interpreter below the tests' environment, without its packages."""
    return Path(getattr(sys, "_base_executable", sys.executable))


def bin_with(folder: Path, **programs: Path) -> Path:
    """A folder for PATH that has a shell's usual programs, make, and these interpreters under these names, and no other Python."""
    folder.mkdir(parents=True)
    for name in ("sh", "make", "rm", "mkdir", "cat", "env", "ls", "grep", "sed", "sleep", "git"):
        if found := shutil.which(name):
            (folder / name).symlink_to(found)
    for name, program in programs.items():
        # A script and not a link: an interpreter looks for its library beside where its link leads.
        script = folder / name.replace("_", ".")
        script.write_text(f'#!/bin/sh\nexec "{program}" "$@"\n')
        script.chmod(0o755)
    return folder


def crippled_python(folder: Path, without: tuple[str, ...]) -> Path:
    """A real interpreter that lacks something: a copy of this one whose folders have all but that.

    Args:
        folder: where to make it.
        without: modules of the standard library, or ``libpython``.
    """
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    library = folder / "lib" / version
    library.mkdir(parents=True)
    (folder / "bin").mkdir()
    program = folder / "bin" / version
    shutil.copy2(base_python().resolve(), program)
    for entry in Path(sysconfig.get_path("stdlib")).iterdir():
        if entry.name not in (*without, "site-packages", "__pycache__") and not entry.name.startswith("_sysconfigdata"):
            (library / entry.name).symlink_to(entry)
    # Where the library is said to be: in this prefix, where there is none.
    for data in Path(sysconfig.get_path("stdlib")).glob("_sysconfigdata*.py"):
        text = data.read_text().replace(sysconfig.get_config_var("LIBDIR"), str(folder / "lib"))
        (library / data.name).write_text(text)
    if "libpython" not in without:
        name = sysconfig.get_config_var("INSTSONAME")
        (folder / "lib" / name).symlink_to(Path(sysconfig.get_config_var("LIBDIR"), name))
    return program


def server_without(folder: Path, program: str) -> Path:
    """The server's environment by links, without one of its programs; for the variable ``COURSE_SERVER_ENV``."""
    (folder / "bin").mkdir(parents=True)
    for entry in (paths.server_env() / "bin").iterdir():
        if entry.name != program:
            (folder / "bin" / entry.name).symlink_to(entry)
    (folder / "lib").symlink_to(paths.server_env() / "lib")
    shutil.copy2(paths.server_env() / "pyvenv.cfg", folder)
    return folder
