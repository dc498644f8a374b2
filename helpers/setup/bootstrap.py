"""Finds a Python that can carry the course, or says in one sentence what to type. Runs before anything is downloaded.

This file is a script for whatever Python is on the machine, however old: it must parse on Python 3.6 and use the standard
library only. It hands over to :mod:`helpers.setup.environments` in the Python that it has chosen.
"""

import contextlib
import json
import os
import platform
import re
import subprocess
import sys
from typing import Any, Dict, List, Optional, Sequence

Facts = Dict[str, Any]
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Python versions of the course, the newest first: the server's side needs numpy 1.26, which has no wheel for 3.13.
VERSIONS = ((3, 12), (3, 11))
# The wheel of the embedded server is built for this C library and newer ones.
GLIBC = [2, 35]

# Runs in an interpreter: where its own shared library lies, which must be that of the very same Python. Also for the launcher.
LIBPYTHON = """
import os, sys, sysconfig
def libpython():
    library = sysconfig.get_config_var("INSTSONAME") or ""
    if ".so" not in library:
        library = "libpython%d.%d.so.1.0" % sys.version_info[:2]
    folders = [sysconfig.get_config_var("LIBDIR") or "", getattr(sys, "base_prefix", sys.prefix) + "/lib"]
    folders += [os.path.join(folder, sysconfig.get_config_var("MULTIARCH") or "") for folder in folders]
    paths = [os.path.join(folder, library) for folder in folders if folder]
    return ([path for path in paths if os.path.exists(path)] or [""])[0]
"""
# Runs in a candidate: what the set-up needs to know about that interpreter. Debian leaves ensurepip out.
PROBE = (
    LIBPYTHON
    + """
import importlib.util, json
print(json.dumps({
    "version": list(sys.version_info[:3]),
    "executable": getattr(sys, "_base_executable", sys.executable),
    "prefix": getattr(sys, "base_prefix", sys.prefix),
    "venv": all(map(importlib.util.find_spec, ("venv", "ensurepip"))),
    "libpython": libpython(),
}))
"""
)


class Problem(SystemExit):
    """What is missing, and what to type: the sentence with which this program ends."""


def probe(program: str) -> Optional[Facts]:
    """Return the facts about the interpreter `program`, or None when it does not run (a dead link, a pyenv shim without a version)."""
    try:
        # -I: a PYTHONPATH of other software must not decide what this interpreter has.
        output = subprocess.run([program, "-I", "-c", PROBE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60).stdout
        return dict(json.loads(output.decode()))
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None


def embedded_obstacle(system: str = "", machine: str = "", libc: str = "") -> str:
    """Return why the embedded server cannot run on this machine, in one sentence; '' when it can."""
    only = '{}, so only the notebooks\' side is made here; use {}connect("HOST:9000").'
    system, machine = system or platform.system(), machine or platform.machine()
    if (system, machine) != ("Linux", "x86_64"):
        return only.format("This is {} on {}: the embedded server needs Linux on x86-64".format(system, machine), "")
    with contextlib.suppress(ValueError, OSError):
        # Not platform.libc_ver(): on old Pythons it tells what the interpreter was linked against.
        libc = libc or os.confstr("CS_GNU_LIBC_VERSION") or ""
    if [int(part) for part in re.findall(r"\d+", libc)[:2]] >= GLIBC:
        return ""
    why = "This Linux has {}, and the embedded server needs glibc {}.{}".format(libc or "no glibc", *GLIBC)
    return only.format(why, 'launch_server(runtime="apptainer") or ')


def advice() -> str:
    """Return what to type to get a Python of the course."""
    other = "install Python 3.11 or 3.12, with its venv module and its shared library, from your system's packages"
    return "Type: conda env create -f environment.yml && conda activate triton-course   (without conda: {})".format(other)


def missing(facts: Facts, server: bool = True, venv: bool = True) -> str:
    """Return what the interpreter with these facts lacks to make environments, as one paragraph; '' when it has all."""
    name = "{}.{}".format(*facts["version"][:2])
    lacks = {"python{}-venv".format(name): "no venv module"} if venv and not facts["venv"] else {}
    if server and not facts["libpython"]:
        lacks["libpython{}".format(name)] = "no libpython{}.so (the embedded server needs that very library)".format(name)
    if not lacks:
        return ""
    todo = advice()
    if facts["prefix"] == "/usr" and os.path.exists("/usr/bin/apt-get"):
        todo = "Type: sudo apt-get install {}   (without administrator's rights, with conda: see environment.yml)".format(" ".join(lacks))
    if server and not facts["libpython"]:
        todo += "   (or, without a server here: make lab SERVER=no)"
    return "The Python {} at {} has {}. {}".format(name, facts["executable"], " and ".join(lacks.values()), todo)


def choose(programs: Sequence[str], server: bool = True, venv: bool = True) -> Facts:
    """Return the facts of the first of these interpreters that can carry the course; raise Problem when there is none."""
    versions, lacks = set(), []
    for facts in filter(None, map(probe, programs)):
        versions.add("{}.{}.{}".format(*facts["version"]))
        if tuple(facts["version"][:2]) in VERSIONS:
            lacks.append(missing(facts, server, venv))
            if not lacks[-1]:
                return facts
    found = ", ".join(sorted(versions)) or "none"
    raise Problem(lacks[0] if lacks else "The course needs Python 3.11 or 3.12; found on PATH: {}. {}".format(found, advice()))


def main(arguments: List[str]) -> None:
    """Choose a Python and go on in it with :mod:`helpers.setup.environments`."""
    as_is = "--as-is" in arguments
    server = not as_is and "--server=no" not in arguments and not embedded_obstacle()
    programs = [sys.executable] + ["python{}.{}".format(*version) for version in VERSIONS] + ["python3", "python"]
    python = choose(programs, server, venv=not as_is)["executable"]
    os.chdir(ROOT)
    # PYTHONPATH and PYTHONHOME of other software (an experiment's release, a user's own) would put its packages before ours.
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    os.execve(python, [python, "-m", "helpers.setup.environments"] + arguments, environment)


if __name__ == "__main__":
    main(sys.argv[1:])
