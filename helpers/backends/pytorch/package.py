"""A compiled network's file, ``model.pt2``, looked at from outside: is it one, and may this machine run it? Without PyTorch."""

from __future__ import annotations

import json
import platform
import re
import sys
import zipfile
from pathlib import Path

from course_backend import ModelFault

AGAIN = "Compile the network again on this machine, or serve it as ONNX, which runs on all."
# Where a package of AOTInductor has its machine code, and one of torch.export.save() its graph.
_COMPILED, _EXPORTED = "/data/aotinductor/", "/models/model.json"
# What AOTInductor calls an instruction set, and Linux calls otherwise.
_FLAGS = {"avx512": "avx512f"}


def is_package(path: Path) -> bool:
    """True if a model's file is a compiled network that this machine may run.

    Raises:
        ModelFault: it should be one, by its name, and is none; or it was compiled for another processor, whose first instruction that
            this one does not know would end the process.
    """
    names = _names(path)
    if any(_COMPILED in name for name in names):
        _refuse_other_machines(path)
        return True
    if path.suffix == ".pt2":
        exported = any(name.endswith(_EXPORTED) for name in names)
        what = "is a graph that torch.export.save() wrote, not compiled yet" if exported else "is damaged, or written by another program"
        raise ModelFault(
            f"{path} ({path.stat().st_size} bytes) holds no compiled network: it {what}. "
            "Expected what torch._inductor.aoti_compile_and_package() writes."
        )
    return False


def told(path: Path) -> dict[str, str]:
    """Return what the compiler wrote beside the machine code: for which system, processor and device it is."""
    found: dict[str, str] = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if _COMPILED in name and name.endswith("_metadata.json"):
                found |= json.loads(archive.read(name))
    return found


def _names(path: Path) -> list[str]:
    """Return the names of the files in an archive; none where it is no archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return []


def _refuse_other_machines(path: Path) -> None:
    found = told(path)
    made = found.get("AOTI_PLATFORM", sys.platform), found.get("AOTI_MACHINE", platform.machine())
    needed = {_FLAGS.get(name, name) for name in found.get("AOTI_CPU_ISA", "").lower().split()} - {"invalid_vec_isa"}
    if made != (sys.platform, platform.machine()):
        raise ModelFault(
            f"{path.name} was compiled for {made[0]} on {made[1]}, and this is {sys.platform} on {platform.machine()}. {AGAIN}"
        )
    if missing := sorted(needed - _flags_of_this_cpu()):
        raise ModelFault(f"{path.name} was compiled for processors with {' and '.join(missing)}, which this one does not have. {AGAIN}")


def _flags_of_this_cpu() -> set[str]:
    """Return the names of the instruction sets that this processor has, as Linux gives them."""
    found = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return set(found[1].split()) if found else set()
