"""``python -m benchmarks.report``: ``README.md`` of this folder, made from ``results.csv``."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.cases import CASES
from benchmarks.compare import Result, read, short

README = Path(__file__).with_name("README.md")
_HEAD = """# How fast the course is

Made by `python -m benchmarks.report` from [results.csv](results.csv); the newest result of each kind is shown. `make bench` measures all
cases in about five minutes, `make bench ARGS="fleet --rounds 10 --keep"` one of them, and keeps the results. What is compared is
measured in turn, round after round. A ratio is the mean over the rounds, ± half of its 95 % interval; ratios without ± are medians of an
earlier program. Look at the load average first: on a busy machine these figures say little.
"""
# What is not measured here any more, with what it needed; the commit in its lines has the program.
PAST = {
    "large": "DeepTau, 423 kB for a tau: one instance with one thread over the same network in one process, with the same real taus. Of "
    "each, tritonserver and the client take 1 ms of CPU each over gRPC, and the network 1.8 ms; by shared memory, two copies are left.",
    "start": "What a start takes from the call of `launch_server`, and the memory of a server with one instance each of two taggers. 1 s "
    "is a pause that Triton's Python backend makes whenever one of its processes ends, here the one that completes the config (`strace`).",
    "tagging": "Jets from ROOT file to scores, through a server of one instance with one thread, over one process without a server. The "
    "client of the server reads and pads while the network works; the process does one after the other.",
    "formats": "One network in three formats on one server, one instance with one thread each: ONNX, TorchScript, and compiled by "
    "AOTInductor for all processors of today. The same real jets went to all in turn, four requests under way over gRPC.",
    "dashboard": "What the live dashboard of three models under load costs a notebook's kernel, in per cent of one core.",
    "analysis": "An analysis with Dask through one address, from ROOT files to ROOT files by two workers, over perf_analyzer with the same "
    "jets and as many requests under way. Two servers behind Envoy, one instance with one thread each.",
    "sweep": "The sweep over four batch sizes, over the loop of the course text.",
    "search": "The search over NVIDIA's Model Analyzer 1.58.0 with its default windows, and over a grid of 24 combinations.",
    "peers": "The same ONNX tagger over PyTriton and MLServer: one instance, one thread, four requests under way from one Python client.",
    "OpenVINO": "The AK4 tagger by OpenVINO over ONNX Runtime's own provider, one thread; outputs equal within 4·10⁻⁷.",
    "precision": "The AK4 tagger in fewer bits over 32 bits. The AUC of b against c changed by at most 0.0011 ± 0.0013 (`int8_static`).",
    "graph": "The served ParticleNet over the same weights in the usual form of the network (`make -C training graph`). The dense layers "
    "multiply 33 million times for a jet in place of 48 million; the rest runs on every edge in both.",
    "stages": "Where the client's CPU time of the analysis goes, for each jet.",
    "H200": """`make test-gpu` on one NVIDIA H200 with 16 cores: random values for 50 candidates and 4 vertices. All rows are in
`notebooks/data/recorded_gpu_NVIDIA_H200.jsonl`.

![Throughput and 95th percentile of the latency against the batch size, of two taggers on an H200: throughput grows from 340 to 23,000 and
33,000 jets/s, latency from 3.6 to 6 ms](figures/h200.png)

A GPU takes as long for one jet as for thirty, about 3 ms, because a network of many small steps waits for each of them to be started. So
throughput grows almost with the batch. Dynamic batching puts single jets from 64 clients together: 5.6 times the throughput of one client,
still a twelfth of what requests of 128 jets give. The larger tagger differs from itself on the processor by up to 7.6·10⁻⁴ of probability
(cuDNN multiplies in TF32, with 10 bits of mantissa), the AK4 one by 7·10⁻⁷. Two such machines differed by up to a fifth. TensorRT, ONNX
Runtime with CUDA and containers were not there to be tried.""",
}


def line(result: Result) -> str:
    """Return a result as a row of a table."""
    spread = f" ± {short(result.spread)}" if result.spread else ""
    value = f"{short(result.value)}{spread} {result.unit}".strip()
    return f"| {' | '.join((result.what, value, result.goal, result.verdict(), result.note))} |"


def _section(name: str, text: str, results: Sequence[Result]) -> list[str]:
    newest = max(result.date for result in results)
    shown = {result.what: result for result in results if result.date == newest}
    last = next(reversed(shown.values()))
    return [
        f"## {name[0].upper()}{name[1:].replace('_', ' ')}\n",
        f"{text}\n",
        "| what | measured | goal | | |\n|---|--:|--:|---|---|",
        *map(line, shown.values()),
        f"\n{newest}, commit `{last.commit}`; {last.machine}.\n",
    ]


def document(results: Iterable[Result]) -> str:
    """Return the whole report."""
    by_case: dict[str, list[Result]] = {}
    for result in results:
        by_case.setdefault(result.case.replace(" ", "_"), []).append(result)
    parts = [_HEAD]
    for name, case in CASES.items():
        if name in by_case:
            parts += _section(name, " ".join((inspect.getdoc(case) or "").split()), by_case.pop(name))
    parts += ["# What others and earlier programs gave\n", "These are not measured any more; the commit beside each has the program.\n"]
    for name, text in PAST.items():
        parts += _section(name, text, by_case.pop(name))
    assert not by_case, f"results of unknown cases: {', '.join(by_case)}"
    return "\n".join(parts).rstrip() + "\n"


def write() -> None:
    """Make the report."""
    README.write_text(document(read()), encoding="utf-8")


if __name__ == "__main__":
    write()
