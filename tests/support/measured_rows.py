"""Rows as a measurement makes them, for tests of what is done with them: figures of one real machine, not random ones."""

from __future__ import annotations

from typing import Any

# batch -> throughput, its half width (inferences/s), p95, its half width (µs): measured with perf_analyzer on two cores, concurrency 1
ONNX = {1: (193, 34, 10990, 4239), 4: (508, 9, 10731, 354), 16: (591, 20, 35732, 5042), 64: (629, 12, 117424, 9024)}
TORCH = {1: (81, 12, 22462, 4749), 4: (280, 31, 24400, 6000), 16: (276, 35, 140000, 21000), 64: (362, 11, 203000, 14000)}
# concurrency -> the same at batch 8
CONCURRENT = {1: (584, 14, 17401, 177), 2: (1088, 75, 23409, 2762), 4: (1287, 24, 43247, 1418), 8: (1071, 80, 107315, 10729)}


def row(figures: tuple[float, float, float, float] = ONNX[4], **changes: Any) -> dict[str, Any]:
    """One measured row.

    Args:
        figures: throughput, its half width, p95, its half width.
        **changes: other columns.
    """
    throughput, spread, p95, p95_spread = figures
    made = {
        "model": "particlenet_AK4",
        "url": "localhost:9001",
        "protocol": "grpc",
        "batch": 4,
        "concurrency": 1,
        "request_rate_per_s": None,
        "throughput_infer_per_s": float(throughput),
        "throughput_spread_infer_per_s": float(spread),
        "latency_p50_us": 0.9 * p95,
        "latency_p90_us": 0.97 * p95,
        "latency_p95_us": float(p95),
        "latency_p99_us": 1.3 * p95,
        "latency_low_us": float(p95 - p95_spread),
        "latency_high_us": float(p95 + p95_spread),
        "client_send_us": 0.01 * p95,
        "network_us": 0.05 * p95,
        "queue_us": 0.04 * p95,
        "compute_input_us": 0.02 * p95,
        "compute_infer_us": 0.7 * p95,
        "compute_output_us": 0.05 * p95,
        "client_recv_us": 0.01 * p95,
        "windows": 9,
        "stable": True,
        "inputs": "random",
        "source": "measured",
        "device": "CPU",
        "cpu": "AMD EPYC",
        "server_version": "2.51.0",
        "perf_analyzer_version": "2.51.0",
    } | changes
    if "latency_avg_us" not in made and made["batch"] and throughput:
        # By Little's law: requests under way = requests per second x seconds of each.
        made["latency_avg_us"] = 1e6 * (made["concurrency"] or 1) * made["batch"] / throughput
    return made


def sweep_rows() -> list[dict[str, Any]]:
    """Two models at four batch sizes."""
    models = {"particlenet_AK4": ONNX, "particlenet_AK4_PT": TORCH}
    return [row(figures, model=model, batch=batch) for model, all_figures in models.items() for batch, figures in all_figures.items()]


def concurrency_rows() -> list[dict[str, Any]]:
    """One model at four concurrencies."""
    return [row(figures, batch=8, concurrency=concurrency) for concurrency, figures in CONCURRENT.items()]
