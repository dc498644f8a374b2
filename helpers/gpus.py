"""The NVIDIA GPUs of this machine, as its driver tells. Standard library only."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass

# Seconds for nvidia-smi: on a node with eight sleeping GPUs it takes a few.
_TIMEOUT_S = 30.0
# Names of GPUs for desks; to those of data centres NVIDIA's images bring what an older driver lacks.
_FOR_DESKS = re.compile(r"GeForce|RTX|TITAN|Quadro", re.IGNORECASE)


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        name: such as ``Tesla T4``.
        driver: version of NVIDIA's driver, such as ``535.183.01``.
    """

    name: str
    driver: str

    @property
    def driver_major(self) -> int:
        """The branch of the driver, such as 535; 0 where it is not told."""
        found = re.match(r"\d+", self.driver)
        return int(found[0]) if found else 0

    @property
    def for_data_centres(self) -> bool:
        """Whether it is of the kind for which NVIDIA's images carry a newer driver's libraries."""
        return not _FOR_DESKS.search(self.name)


def here() -> tuple[Gpu, ...]:
    """The GPUs that a server started now could use; none where ``CUDA_VISIBLE_DEVICES`` hides them all."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1", "NoDevFiles") or not shutil.which("nvidia-smi"):
        return ()
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    rows = [line.rsplit(",", 1) for line in answer.stdout.splitlines()] if answer.returncode == 0 else []
    return tuple(Gpu(row[0].strip(), row[1].strip()) for row in rows if len(row) == 2)
