"""A compiled network's file, ``model.pt2``, looked at from outside: is it one, and may this machine run it? Without PyTorch."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

from course_backend import ModelFault

AGAIN = "Compile the network again on this machine, or serve it as ONNX, which runs on all."
# Where a package of AOTInductor has its machine code.
_COMPILED = "/data/aotinductor/"
# What AOTInductor calls an instruction set, and Linux calls otherwise.
_FLAGS = {"avx512": "avx512f"}


def is_package(path: Path) -> bool:
    """True if a model's file is a compiled network that this machine may run.

    Raises:
        ModelFault: it should be one, by its name, and is none; or it was compiled for another processor, whose first instruction that
            this one does not know would end the process.
    """
    found = told(path)
    if found is None and path.suffix == ".pt2":
        raise ModelFault(
            f"{path} ({path.stat().st_size} bytes) is damaged, or holds no compiled network. "
            "Expected what torch._inductor.aoti_compile_and_package() writes."
        )
    if found is None:
        return False
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    here = set(flags[1].split()) if flags else set()
    needed = {_FLAGS.get(name, name) for name in found.get("AOTI_CPU_ISA", "").lower().split()} - {"invalid_vec_isa"}
    if missing := sorted(needed - here):
        raise ModelFault(f"{path.name} was compiled for processors with {' and '.join(missing)}, which this one does not have. {AGAIN}")
    return True


def told(path: Path) -> dict[str, str] | None:
    """Return what the compiler wrote beside the machine code: for which processor and device it is; None where there is no such code."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if _COMPILED in name]
            facts = [json.loads(archive.read(name)) for name in names if name.endswith("_metadata.json")]
    except (zipfile.BadZipFile, OSError):
        return None
    return {key: value for fact in facts for key, value in fact.items()} if names else None
