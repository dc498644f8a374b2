"""Finds a Python that can carry the course, or says in one sentence what to type. Runs before anything is downloaded.

This file is a script for whatever Python is on the machine, however old: it must parse on Python 3.6 and use the standard
library only. It hands over to :mod:`helpers.setup.environments` in the Python that it has chosen.
"""

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
# Runs in a candidate: what the set-up needs to know about that interpreter.
PROBE = (
    LIBPYTHON
    + """
import json
def has(name):
    try:
        __import__(name)
        return True
    except ImportError:
        return False
print(json.dumps({
    "version": list(sys.version_info[:3]),
    "executable": getattr(sys, "_base_executable", sys.executable),
    "prefix": getattr(sys, "base_prefix", sys.prefix),
    # Debian leaves ensurepip out.
    "venv": has("venv") and has("ensurepip"),
    "libpython": libpython(),
}))
"""
)


class Problem(Exception):
    """What is missing, and what to type."""


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
    system, machine = system or platform.system(), machine or platform.machine()
    other = ""
    if (system, machine) != ("Linux", "x86_64"):
        why = "This is {} on {}: the embedded server needs Linux on x86-64".format(system, machine)
    else:
        try:
            # Not platform.libc_ver(): on old Pythons it tells what the interpreter was linked against.
            libc = libc or os.confstr("CS_GNU_LIBC_VERSION") or "no glibc"
        except (ValueError, OSError):
            libc = "no glibc"
        version = [int(part) for part in re.findall(r"\d+", libc)[:2]]
        if version >= GLIBC:
            return ""
        why = "This Linux has {}, and the embedded server needs glibc {}.{}".format(libc, *GLIBC)
        other = 'launch_server(runtime="apptainer") or '
    return '{}, so only the notebooks\' side is made here; use {}connect("HOST:9000").'.format(why, other)


def advice() -> str:
    """Return what to type to get a Python of the course."""
    conda = "conda env create -f environment.yml && conda activate triton-course"
    other = "install Python 3.11 or 3.12, with its venv module and its shared library, from your system's packages"
    return "Type: {}   (without conda: {})".format(conda, other)


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
    versions, first_lack = [], ""
    for facts in filter(None, map(probe, programs)):
        versions.append(".".join(str(part) for part in facts["version"]))
        if tuple(facts["version"][:2]) in VERSIONS:
            lack = missing(facts, server, venv)
            if not lack:
                return facts
            first_lack = first_lack or lack
    found = ", ".join(sorted(set(versions))) or "none"
    raise Problem(first_lack or "The course needs Python 3.11 or 3.12; found on PATH: {}. {}".format(found, advice()))


def main(arguments: List[str]) -> int:
    """Choose a Python and go on in it with :mod:`helpers.setup.environments`."""
    as_is = "--as-is" in arguments
    server = not as_is and "--server=no" not in arguments and not embedded_obstacle()
    programs = [sys.executable] + ["python{}.{}".format(*version) for version in VERSIONS] + ["python3", "python"]
    try:
        chosen = choose(programs, server, venv=not as_is)
    except Problem as problem:
        sys.stderr.write("{}\n".format(problem))
        return 1
    os.chdir(ROOT)
    # PYTHONPATH and PYTHONHOME of other software (an experiment's release, a user's own) would put its packages before ours.
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    command = [chosen["executable"], "-m", "helpers.setup.environments"] + list(arguments)
    return become(command, environment)


def become(command: List[str], environment: Dict[str, str]) -> int:
    """Go on as another program; on Windows, which cannot do that, run it and return its status."""
    sys.stdout.flush()
    if os.name == "posix":
        os.execve(command[0], command, environment)
    return subprocess.call(command, env=environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
