"""``python -m benchmarks.openvino``: the AK4 tagger by ONNX Runtime's own provider and by Intel's OpenVINO, on one server.

Needs the server's second environment: ``python -m helpers install-server --openvino``. ``--write`` puts the table into
benchmarks/OPENVINO.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import report
from benchmarks.precision import BATCHES, throughputs
from helpers import jets, openvino_environment, repository
from helpers.client import Client
from helpers.errors import SetupError
from helpers.launch import launch_server
from helpers.server import Server

# Away from the ports of a course that runs on the same machine.
BASE_PORT = 12900
PLAIN = "particlenet_AK4"
OPENVINO = f"{PLAIN}_openvino"
_ALONE = "instance_group [ { count: 1 kind: KIND_CPU } ]"
_STANZA = 'optimization { execution_accelerators { cpu_execution_accelerator : [ { name : "openvino" } ] } }'
_THREAD = {"intra_op_thread_count": {"string_value": "1"}}
N_JETS = 1000


def prepare() -> None:
    """Both models in ``work/models``: one instance and one thread each; one of them asks for OpenVINO."""
    plain = repository.checkout(PLAIN) / PLAIN
    # OpenVINO compiles for each new shape, so the warm-up of the course's model would take minutes.
    repository.change_config(PLAIN, _ALONE, dynamic_batching=None, model_warmup=None, parameters=_THREAD)
    other = shutil.copytree(plain, plain.with_name(OPENVINO))
    text = (other / "config.pbtxt").read_text()
    (other / "config.pbtxt").write_text(text.replace(f'name: "{PLAIN}"', f'name: "{OPENVINO}"'))
    repository.change_config(OPENVINO, _STANZA)


def provider(server: Server) -> str:
    """The line of the log that says what the accelerated model's session runs with.

    Raises:
        RuntimeError: not with OpenVINO.
    """
    lines = [line for line in server.log(0).splitlines() if f"{OPENVINO}_0_0: ONNX Runtime" in line]
    if not lines or "OpenVINOExecutionProvider" not in lines[0]:
        raise RuntimeError(f"OpenVINO does not run the model:\n{server.log()}")
    return lines[0].partition("_0_0: ")[2].strip('" ')


def largest_difference(server: Server) -> tuple[float, float]:
    """Of a probability between the two: on 99 % of the jets, and on all; two neighbours equally far away make a jet differ."""
    sample = jets.read("ak4")[:N_JETS]
    with Client(server, timeout_s=300) as client:
        first, second = (jets.Tagger(client, name).tag(sample, batch=100, candidates=50).probabilities for name in (PLAIN, OPENVINO))
    apart = np.abs(first - second).max(axis=1)
    return float(np.quantile(apart, 0.99)), float(apart.max())


def document(found: dict[tuple[str, int], list[float]], session: str, apart: tuple[float, float], rounds: int, here: str) -> str:
    """The table and the machine."""
    lines = ["| batch | ONNX Runtime's own (jets/s) | OpenVINO (jets/s) | times as fast |", "|--:|--:|--:|--:|"]
    for batch in BATCHES:
        plain, other = found[PLAIN, batch], found[OPENVINO, batch]
        gains = [own / base for own, base in zip(other, plain, strict=True)]
        lines.append(f"| {batch} | {statistics.median(plain):.0f} | {statistics.median(other):.0f} | {statistics.median(gains):.2f} |")
    table = "\n".join(lines)
    return f"""# The tagger of narrow jets by OpenVINO

Made by `python -m benchmarks.openvino`: `{PLAIN}` with and without the stanza for OpenVINO on one server, one instance with one thread
each, two requests under way, real jets padded to 50 candidates and 4 vertices; medians of {rounds} rounds, the ratio taken round by round.

{table}

The session of the accelerated model: {session}. A probability differs by at most {apart[0]:.1e} on 99 % of {N_JETS} jets, and by
{apart[1]:.1e} on the one that differs most.

{here} In this comparison ONNX Runtime is the build with OpenVINO named above.
"""


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.openvino", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (default 3)")
    parser.add_argument("--write", action="store_true", help="write the report to benchmarks/OPENVINO.md")
    arguments = parser.parse_args()
    environment = openvino_environment.folder()
    if not openvino_environment.has_openvino(environment):
        raise SetupError("There is no server's environment with OpenVINO.", "", "Type: python -m helpers install-server --openvino")
    # Of the server's own environment: the other one has no PyTorch to tell the version of.
    here = report.machine(os.getloadavg()[0])
    with tempfile.TemporaryDirectory() as folder:
        os.environ["COURSE_SERVER_ENV"], os.environ["COURSE_WORK"] = str(environment.resolve()), folder
        prepare()
        with launch_server("work/models", base_port=BASE_PORT, name="bench-openvino") as server:
            session = provider(server)
            found = throughputs(server, (PLAIN, OPENVINO), arguments.rounds, Path(folder))
            apart = largest_difference(server)
    text = document(found, session, apart, arguments.rounds, here)
    print(text)
    if arguments.write:
        Path(__file__).with_name("OPENVINO.md").write_text(text)


if __name__ == "__main__":
    main()
