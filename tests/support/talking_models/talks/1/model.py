"""Prints, reads, writes and fails with letters beyond ASCII: Größe, μ, →."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

HERE = Path(__file__).parent


class TritonPythonModel:
    """One method for each thing that a model of one's own may do."""

    def execute(self, requests: list) -> list:
        """Do what each request asks for."""
        responses = []
        for request in requests:
            what = pb_utils.get_input_tensor_by_name(request, "WHAT").as_numpy()[0].decode()
            said = np.array([getattr(self, f"do_{what}")().encode()], dtype=object)
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("SAID", said)]))
        return responses

    def do_print(self) -> str:
        """Write to standard output."""
        print("H → bb ✓", flush=True)
        return "done"

    def do_stderr(self) -> str:
        """Write to standard error."""
        print("Glühwürmchen", file=sys.stderr, flush=True)
        return "done"

    def do_log(self) -> str:
        """Write through Triton's logger."""
        pb_utils.Logger.log_warn("π log")
        return "done"

    def do_read(self) -> str:
        """Read a file whose name and text are beyond ASCII."""
        return (HERE / "Życie.txt").read_text()

    def do_write(self) -> str:
        """Write such a file and read it again."""
        with open(HERE / "données.txt", "w") as file:
            file.write("été")
        return (HERE / "données.txt").read_text()

    def do_list(self) -> str:
        """Print the names of the files."""
        print(*sorted(path.name for path in HERE.iterdir()), flush=True)
        return "done"

    def do_load(self) -> str:
        """Save and load an array."""
        np.save(HERE / "μ.npy", np.ones(1))
        return str(np.load(HERE / "μ.npy")[0])

    def do_subprocess(self) -> str:
        """Start a program with such an argument."""
        return subprocess.run(["printf", "%s", "✓"], capture_output=True, text=True, check=True).stdout

    def do_raise(self) -> str:
        """Fail."""
        raise ValueError("kein gültiges μ")
