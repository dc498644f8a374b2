"""Finds a Python that can carry the course, or says in one sentence what to type. Runs before anything is downloaded.

This file is a script for whatever Python is on the machine, however old: it must parse on Python 3.6 and use the standard
library only. It hands over to :mod:`helpers.setup.environments` in the Python that it has chosen.
"""

import json
import os
import platform
import subprocess
import sys
from typing import Any, Dict, List, Optional, Sequence, Tuple

Facts = Dict[str, Any]
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Python versions of the course, the newest first: the server's side needs numpy 1.26, which has no wheel for 3.13.
VERSIONS = ((3, 12), (3, 11))
# The wheel of the embedded server is built for this C library and newer ones.
GLIBC = (2, 35)
# In a container people are root, and there is no sudo.
SUDO = "" if hasattr(os, "geteuid") and os.geteuid() == 0 else "sudo "

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
pip = ""
if has("pip"):
    import pip as module
    pip = module.__version__
print(json.dumps({
    "version": list(sys.version_info[:3]),
    "executable": getattr(sys, "_base_executable", sys.executable),
    "prefix": getattr(sys, "base_prefix", sys.prefix),
    "venv": has("venv"), "ensurepip": has("ensurepip"), "pip": pip, "libpython": libpython(),
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


def c_library() -> Tuple[str, ...]:
    """Return name and version of the C library, such as ``("glibc", "2.36")``."""
    try:
        # Not platform.libc_ver(): on old Pythons it tells what the interpreter was linked against.
        return tuple((os.confstr("CS_GNU_LIBC_VERSION") or "").split()) or ("", "")
    except (ValueError, OSError):
        return ("", "")


def embedded_obstacle(system: str = "", machine: str = "", libc: Optional[Tuple[str, ...]] = None) -> str:
    """Return why the embedded server cannot run on this machine, in one sentence; '' when it can."""
    system, machine = system or platform.system(), machine or platform.machine()
    libc = libc if libc is not None else c_library()
    other = 'it works with a server on another machine, connect("HOST:9000").'
    if (system, machine) != ("Linux", "x86_64"):
        why = "This is {} on {}: the embedded server needs Linux on x86-64".format(system, machine)
    elif libc[0] != "glibc":
        why = "This Linux has no glibc (its C library is {}): the embedded server cannot run".format(libc[0] or "another one")
    elif tuple(int(part) for part in libc[1].split(".")[:2]) < GLIBC:
        why = "This Linux has glibc {}, older than {}.{}: the embedded server cannot run".format(libc[1], *GLIBC)
        other = 'launch_server(runtime="apptainer") or connect("HOST:9000") serve the models.'
    else:
        return ""
    return "{}, so only the notebooks' side is made here; {}".format(why, other)


def os_release(path: str = "/etc/os-release") -> Tuple[str, str]:
    """Return the ID and VERSION_ID of this Linux, such as ``("ubuntu", "24.04")``; empty texts elsewhere."""
    facts = {}
    if os.path.exists(path):
        with open(path) as lines:
            facts = dict(line.strip().split("=", 1) for line in lines if "=" in line)
    return facts.get("ID", "").strip('"'), facts.get("VERSION_ID", "").strip('"')


def advice(release: Optional[Tuple[str, str]] = None) -> str:
    """Return what to type to get a Python of the course, on this Linux and with conda."""
    own = {
        ("debian", "12"): SUDO + "apt-get install python3.11 python3.11-venv libpython3.11",
        ("ubuntu", "24.04"): SUDO + "apt-get install python3.12 python3.12-venv libpython3.12t64",
        ("ubuntu", "22.04"): SUDO + "apt-get install python3.11 python3.11-venv libpython3.11",
    }.get(release or os_release())
    conda = "conda env create -f environment.yml && conda activate triton-course"
    if own:
        return "Type: {}   (without administrator's rights, with conda: {})".format(own, conda)
    return "Type: {}   (without conda: install Python 3.12 from python.org or your system's packages)".format(conda)


def missing(facts: Facts, server: bool = True, venv: bool = True) -> str:
    """Return what the interpreter with these facts lacks to make environments, as one paragraph; '' when it has all."""
    name = "{}.{}".format(*facts["version"][:2])
    pip = tuple(int(part) for part in (facts["pip"] or "0.0").split(".")[:2] if part.isdigit())
    # pip 22.3 can fill an environment from outside: then ensurepip, which Debian and Colab leave out, is not needed.
    no_venv = venv and (not facts["venv"] or (not facts["ensurepip"] and pip < (22, 3)))
    no_library = server and not facts["libpython"]
    if not (no_venv or no_library):
        return ""
    lacks = " and ".join((["no venv module"] if no_venv else []) + (["no libpython{}.so".format(name)] if no_library else []))
    why = " The embedded server runs Python models with that library of the very same Python." if no_library else ""
    if facts["prefix"] == "/usr" and os_release()[0] in ("debian", "ubuntu"):
        library = "libpython" + name + ("t64" if os_release() == ("ubuntu", "24.04") else "")
        packages = (["python{}-venv".format(name)] if no_venv else []) + ([library] if no_library else [])
        todo = "Type: {}apt-get install {}".format(SUDO, " ".join(packages))
    elif no_library and ".pyenv" in facts["prefix"]:
        todo = "Type: PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install --force {}.{}.{}".format(*facts["version"])
    else:
        todo = "Use a complete one. " + advice()
    if no_library and not no_venv:
        todo += "   (or, without a server here: make lab SERVER=no)"
    return "The Python {} at {} has {}.{} {}".format(name, facts["executable"], lacks, why, todo)


def choose(programs: Sequence[str], server: bool = True, venv: bool = True) -> Facts:
    """Return the facts of the first of these interpreters that can carry the course.

    Raises:
        Problem: there is none; its text says what to type.
    """
    seen = []  # type: List[Facts]
    first_lack = ""
    for program in programs:
        facts = probe(program)
        if not facts or facts["executable"] in [other["executable"] for other in seen]:
            continue
        seen.append(facts)
        if tuple(facts["version"][:2]) in VERSIONS:
            lack = missing(facts, server, venv)
            if not lack:
                return facts
            first_lack = first_lack or lack
    if first_lack:
        raise Problem(first_lack)
    versions = ", ".join(sorted({".".join(str(part) for part in facts["version"]) for facts in seen})) or "none"
    raise Problem("The course needs Python 3.11 or 3.12; found on PATH: {}. {}".format(versions, advice()))


def candidates() -> List[str]:
    """Return interpreters to try: this one, then those on PATH."""
    return [sys.executable, *("python{}.{}".format(*version) for version in VERSIONS), "python3", "python"]


def main(arguments: List[str]) -> int:
    """Choose a Python and go on in it with :mod:`helpers.setup.environments`."""
    as_is = "--as-is" in arguments
    server = not as_is and "--server=no" not in arguments and not embedded_obstacle()
    try:
        chosen = choose(candidates(), server, venv=not as_is)
    except Problem as problem:
        sys.stderr.write("{}\n".format(problem))
        return 1
    os.chdir(ROOT)
    # PYTHONPATH and PYTHONHOME of other software (an experiment's release, a user's own) would put its packages before ours.
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    command = [chosen["executable"], "-m", "helpers.setup.environments"] + list(arguments)
    sys.stdout.flush()
    if os.name == "posix":
        os.execve(command[0], command, environment)
    return subprocess.call(command, env=environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
