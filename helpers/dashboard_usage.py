"""What the dashboard knows besides the metrics page: CPU and memory of each model's processes, and what nvidia-smi says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

import psutil

from helpers.dashboard_poller import ModelReading
from helpers.metrics_page import Sample
from helpers.server import Server

# Seconds between two looks for new processes, which costs more than looking at those that are known.
_LOOK_S = 3.0
# Milliseconds between two lines of nvidia-smi for each GPU.
_SMI_PERIOD_MS = 1000
_SMI_FIELDS = ("index", "name", "utilization.gpu", "memory.used", "memory.total", "power.draw")


class ModelProcesses:
    """CPU and memory by model, where each instance of a model is a process of its own: in the embedded server on this machine.

    Args:
        server: the server.
    """

    def __init__(self, server: Server) -> None:
        self._pid = server.pid if server.runtime == "embedded" else None
        self._looked = 0.0
        self._processes: dict[int, tuple[str, psutil.Process]] = {}
        self._cpu_s: dict[int, tuple[float, float]] = {}

    @property
    def known(self) -> bool:
        """Whether this server's models have processes that can be looked at."""
        return self._pid is not None

    def add_to(self, models: dict[str, ModelReading]) -> dict[str, ModelReading]:
        """The same readings with ``cpu_cores`` (CPU seconds per second since the last call) and ``memory_mb``."""
        if self._pid is None:
            return models
        now = time.monotonic()
        if now - self._looked >= _LOOK_S:
            self._looked = now
            self._find(models)
        cores: dict[str, float] = defaultdict(float)
        memory_mb: dict[str, float] = defaultdict(float)
        for pid, (model, process) in list(self._processes.items()):
            try:
                times, memory = process.cpu_times(), process.memory_info()
            except psutil.Error:  # the instance has ended
                del self._processes[pid]
                self._cpu_s.pop(pid, None)
                continue
            spent = times.user + times.system
            then, before = self._cpu_s.get(pid, (now, spent))
            self._cpu_s[pid] = now, spent
            cores[model] += (spent - before) / (now - then) if now > then else 0.0
            memory_mb[model] += memory.rss / 1e6
        return {
            model: replace(reading, cpu_cores=cores[model], memory_mb=memory_mb[model]) if model in memory_mb else reading
            for model, reading in models.items()
        }

    def _find(self, models: Iterable[str]) -> None:
        with suppress(psutil.Error):  # the server has just ended; the next reading says so
            for process in psutil.Process(self._pid).children(recursive=True):
                if process.pid not in self._processes and (model := _model_of(process.cmdline(), models)):
                    self._processes[process.pid] = model, process


def _model_of(command: list[str], models: Iterable[str]) -> str:
    """The model whose instance runs with this command line: its name and one or two numbers are an argument of it."""
    found = {model for model in models for word in command if re.fullmatch(rf"{re.escape(model)}(_\d+){{1,2}}", word)}
    return max(found, key=len, default="")


@dataclass(frozen=True)
class Gpu:
    """One line of nvidia-smi; None for what this GPU does not tell.

    Attributes:
        index: number of the GPU.
        name: what NVIDIA calls it.
        utilization: part of the time in which anything ran on it, 0 to 1.
        memory_used_mb: memory in use, by whatever process.
        memory_total_mb: memory in all.
        power_w: power that it draws.
    """

    index: str
    name: str
    utilization: float | None
    memory_used_mb: float | None
    memory_total_mb: float | None
    power_w: float | None


class NvidiaSmi:
    """``nvidia-smi`` in the background, where there is one and the server is on this machine: one line for each GPU each second."""

    def __init__(self, server: Server) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._text = ""
        self._gpus: dict[str, Gpu] = {}
        program = shutil.which("nvidia-smi") if server.is_here else None
        if program:
            query = [f"--query-gpu={','.join(_SMI_FIELDS)}", "--format=csv,noheader,nounits", f"--loop-ms={_SMI_PERIOD_MS}"]
            # A session of its own, so that a notebook's interrupt leaves it alone; without a reader its next line ends it.
            self._process = subprocess.Popen(
                [program, *query], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, start_new_session=True
            )
            assert self._process.stdout is not None
            os.set_blocking(self._process.stdout.fileno(), False)

    def read(self) -> list[Gpu]:
        """The last that it said of each GPU; empty where there is none."""
        if self._process is not None and self._process.stdout is not None:
            while chunk := self._process.stdout.read(65536):
                self._text += chunk.decode(errors="replace")
            *lines, self._text = self._text.split("\n")
            for line in lines:
                gpu = parse_smi(line)
                if gpu is not None:
                    self._gpus[gpu.index] = gpu
        return list(self._gpus.values())

    def close(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def parse_smi(line: str) -> Gpu | None:
    """Read one line of nvidia-smi; None for a line that is no such one (it reports errors in the same place)."""
    words = [word.strip() for word in line.split(",")]
    if len(words) != len(_SMI_FIELDS) or not words[0].isdigit():
        return None

    def number(word: str) -> float | None:
        # What a GPU does not tell is [N/A] or [Not Supported].
        return float(word) if re.fullmatch(r"\d+(\.\d+)?", word) else None

    percent, *others = (number(word) for word in words[2:])
    return Gpu(words[0], words[1], None if percent is None else percent / 100, *others)


def machine_notes(machine: tuple[Sample, ...], gpus: list[Gpu]) -> list[str]:
    """Sentences on the machine: CPU, GPUs as Triton sees them or why it sees none, GPUs as nvidia-smi sees them, the cache."""
    values = {sample.metric: sample.value for sample in machine}
    notes = []
    if values.get("nv_cpu_memory_total_bytes"):
        used, total = values["nv_cpu_memory_used_bytes"] / 1e9, values["nv_cpu_memory_total_bytes"] / 1e9
        busy = f"{values.get('nv_cpu_utilization', 0.0):.0%}"
        notes.append(f"Whole machine: CPU {busy} busy, memory {used:.1f} of {total:.1f} GB (refreshed by Triton every 2 s).")
    notes += _gpu_notes(machine, gpus)
    if values.get("nv_cache_num_lookups"):
        hits, lookups = values["nv_cache_num_hits"], values["nv_cache_num_lookups"]
        notes.append(f"Response cache, since the server's start: {hits:.0f} hits in {lookups:.0f} lookups ({hits / lookups:.0%}).")
    return notes


def _gpu_notes(machine: tuple[Sample, ...], gpus: list[Gpu]) -> list[str]:
    by_gpu: dict[str, dict[str, float]] = defaultdict(dict)
    for sample in machine:
        if sample.metric.startswith("nv_gpu_") and "gpu_uuid" in sample.labels:
            by_gpu[sample.labels["gpu_uuid"]][sample.metric] = sample.value
    notes = []
    for uuid, values in by_gpu.items():
        used, total = (values.get(f"nv_gpu_memory_{which}_bytes", 0.0) / 1e9 for which in ("used", "total"))
        busy, power = values.get("nv_gpu_utilization", 0.0), values.get("nv_gpu_power_usage", 0.0)
        notes.append(f"GPU {uuid[:12]}, by Triton: {busy:.0%} busy, memory {used:.1f} of {total:.1f} GB, {power:.0f} W.")
    if not by_gpu:
        notes.append(
            "No nv_gpu_… metrics, although nvidia-smi sees a GPU: this server does not measure it."
            if gpus
            else "No nv_gpu_… metrics: the server sees no GPU, so its models run on the CPU. That is no fault."
        )
    for gpu in gpus:
        parts = [f"{gpu.utilization:.0%} busy"] if gpu.utilization is not None else []
        if gpu.memory_used_mb is not None and gpu.memory_total_mb is not None:
            parts.append(f"memory {gpu.memory_used_mb / 1024:.1f} of {gpu.memory_total_mb / 1024:.1f} GiB")
        parts += [f"{gpu.power_w:.0f} W"] if gpu.power_w is not None else []
        notes.append(f"GPU {gpu.index} ({gpu.name}), by nvidia-smi: {', '.join(parts) or 'it tells no figures'}.")
    return notes
