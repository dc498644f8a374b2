"""Metrics pages: read, subtracted, shown; canned ones with a GPU, and the real server's."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.client import Client
from helpers.errors import CourseError, InputError, RequestError, ServerError
from helpers.metrics import Snapshot, parse, scrape
from helpers.server import Server

# The shape of a page of Triton on a GPU node, with summaries turned on; the numbers are made up.
PAGE = """\
# HELP nv_inference_request_success Number of successful inference requests, all batch sizes
# TYPE nv_inference_request_success counter
nv_inference_request_success{{model="tagger",version="1"}} {requests}
nv_inference_request_success{{model="tagger",version="2"}} 5
# TYPE nv_inference_request_failure counter
nv_inference_request_failure{{model="tagger",reason="BACKEND",version="1"}} {failures}
nv_inference_request_failure{{model="tagger",reason="OTHER",version="1"}} 0
# TYPE nv_inference_count counter
nv_inference_count{{model="tagger",version="1"}} {inferences}
# TYPE nv_inference_exec_count counter
nv_inference_exec_count{{model="tagger",version="1"}} {executions}
# TYPE nv_inference_request_duration_us counter
nv_inference_request_duration_us{{model="tagger",version="1"}} {total}
# TYPE nv_inference_queue_duration_us counter
nv_inference_queue_duration_us{{model="tagger",version="1"}} {queue}
# TYPE nv_inference_compute_input_duration_us counter
nv_inference_compute_input_duration_us{{model="tagger",version="1"}} 0
# TYPE nv_inference_compute_infer_duration_us counter
nv_inference_compute_infer_duration_us{{model="tagger",version="1"}} {infer}
# TYPE nv_inference_compute_output_duration_us counter
nv_inference_compute_output_duration_us{{model="tagger",version="1"}} 0
# TYPE nv_inference_request_summary_us summary
nv_inference_request_summary_us_count{{model="tagger",version="1"}} {requests}
nv_inference_request_summary_us_sum{{model="tagger",version="1"}} {total}
nv_inference_request_summary_us{{model="tagger",quantile="0.95",version="1"}} 430
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{{model="tagger",version="1"}} {pending}
# TYPE nv_gpu_utilization gauge
nv_gpu_utilization{{gpu_uuid="GPU-1"}} {load}
# TYPE nv_gpu_power_usage gauge
nv_gpu_power_usage{{gpu_uuid="GPU-1"}} 71.5
# TYPE nv_energy_consumption counter
nv_energy_consumption{{gpu_uuid="GPU-1"}} {energy}
# TYPE nv_cache_num_hits_per_model counter
nv_cache_num_hits_per_model{{model="tagger",version="1"}} {hits}
"""


def page(time: float, **numbers: float) -> Snapshot:
    values = dict.fromkeys(
        ("requests", "failures", "inferences", "executions", "total", "queue", "infer", "pending", "load", "energy", "hits"), 0
    )
    return Snapshot(time, tuple(parse(PAGE.format(**values | numbers))))


BEFORE = page(100.0, requests=10, inferences=40, executions=10, total=4000, queue=100, infer=3000, energy=5.5, load=0.1)
AFTER = page(
    102.0,
    requests=30,
    failures=1,
    inferences=200,
    executions=40,
    total=14000,
    queue=2100,
    infer=9000,
    energy=8.0,
    load=0.9,
    hits=3,
    pending=2,
)


def test_names_are_tritons_own() -> None:
    assert AFTER.value("nv_inference_count", model="tagger") == 200
    assert AFTER.value("inference_count", model="tagger", version=1) == 200
    assert AFTER.value("nv_inference_request_success") == 35
    assert AFTER.value("nv_gpu_utilization", gpu_uuid="GPU-1") == 0.9


def test_a_difference_has_counters_as_differences_and_the_rest_as_it_is_now() -> None:
    change = AFTER - BEFORE
    assert change.seconds == 2
    assert change.value("nv_inference_count", model="tagger") == 160
    assert change.value("nv_inference_request_success", model="tagger", version="2") == 0
    assert change.value("nv_energy_consumption") == 2.5
    assert change.value("nv_inference_request_summary_us_count") == 20
    assert change.value("nv_inference_request_summary_us", quantile="0.95") == 430
    assert change.value("nv_gpu_utilization") == 0.9
    assert change.value("nv_inference_pending_request_count") == 2
    assert change.value("nv_cache_num_hits_per_model") == 3
    rows = {(row["metric"], row["labels"]): row for row in change.rows if row["version"] != "2"}
    assert rows["nv_inference_queue_duration_us", ""] == {
        "model": "tagger",
        "version": "1",
        "metric": "nv_inference_queue_duration_us",
        "value": 2000.0,
        "labels": "",
        "kind": "counter",
    }
    kinds = {name: row["kind"] for (name, _), row in rows.items()}
    assert kinds["nv_gpu_power_usage"] == kinds["nv_inference_pending_request_count"] == "gauge"


def test_where_the_time_of_a_request_went() -> None:
    change = AFTER - BEFORE
    (row,) = change.requests
    assert row["inferences_per_execution"] == pytest.approx(160 / 30)
    assert (row["model"], row["requests"], row["failures"]) == ("tagger", 20, 1)
    assert row["request_us"] == 500
    assert row["queue_us"] == 100
    assert row["compute_infer_us"] == 300
    assert row["overhead_us"] == 100
    assert row["compute_us"] == 300
    assert (row["throughput_infer_per_s"], row["requests_per_s"], row["pending"]) == (80, 10, 2)


def test_there_is_no_difference_across_a_restart_or_backwards() -> None:
    restarted = page(103.0, requests=4, inferences=4, executions=4, total=800, load=0.2, energy=9)
    for later, earlier in ((restarted, AFTER), (BEFORE, AFTER)):
        with pytest.raises(InputError, match=r"counters of tagger were higher.*started again from zero, or.*after - before"):
            later - earlier


def test_a_model_that_came() -> None:
    assert (AFTER - Snapshot(101.0, ())).value("nv_inference_count") == 200


@pytest.mark.parametrize(
    ("metric", "labels", "words"),
    [
        ("nv_inference_cuont", {}, "no metric 'nv_inference_cuont'.*Did you mean 'nv_inference_count'"),
        ("nv_inference_count", {"model": "taggr"}, "not there with model=taggr.*'model=tagger, version=1'"),
        ("nv_inference_count", {"model": "tagger", "version": 9}, "version=9"),
    ],
)
def test_a_number_that_is_not_there(metric: str, labels: dict, words: str) -> None:
    for place in (AFTER, AFTER - BEFORE):
        with pytest.raises(InputError, match=words):
            place.value(metric, **labels)


def test_nothing_ran() -> None:
    (row,) = (BEFORE - BEFORE).requests
    assert (row["requests"], row["inferences_per_execution"], row["request_us"], row["requests_per_s"]) == (0, None, None, None)
    assert "Means per request" not in str(BEFORE - BEFORE)


def test_text_and_html() -> None:
    change = AFTER - BEFORE
    lines = str(change).splitlines()
    assert lines[0] == "In 2 s; gauges as they are now."
    assert any("nv_inference_count" in line and "160" in line for line in lines)
    assert not any("reason=OTHER" in line for line in lines)
    html = change._repr_html_()
    assert html.count("<table>") == html.count("</table>") >= 2
    assert "nv_inference_exec_count" in html
    assert "<script" not in Snapshot(0, tuple(parse('# TYPE a gauge\na{model="<script>"} 1\n')))._repr_html_()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_real_server_counts_what_was_sent(models_server: Server, protocol: str) -> None:
    with Client(models_server, protocol) as client:
        client.infer("double", X=[[1]])
        before = scrape(models_server)
        for batch in (1, 3, 4):
            client.infer("double", X=np.ones((batch, 5), np.float32))
        after = scrape(models_server.metrics_url)
    change = after - before
    assert change.value("nv_inference_request_success", model="double") == 3
    assert change.value("nv_inference_count", model="double") == 8
    assert change.value("nv_inference_exec_count", model="double") == 3
    (row,) = (row for row in change.requests if row["model"] == "double")
    assert row["inferences_per_execution"] == pytest.approx(8 / 3)
    assert {each["model"] for each in change.requests if each["requests"]} == {"double"}
    parts = [row[f"{name}_us"] for name in ("queue", "compute_input", "compute_infer", "compute_output")]
    assert 0 < sum(parts) <= row["request_us"]
    assert row["overhead_us"] == pytest.approx(row["request_us"] - sum(parts))
    assert row["request_us"] < change.seconds * 1e6
    # This machine's server has no GPU: nothing depends on there being one.
    assert {"nv_cpu_utilization", "nv_cpu_memory_used_bytes"} <= {sample.metric for sample in after.samples}


def test_each_form_of_address(models_server: Server) -> None:
    port = models_server.metrics.port
    for url in (
        models_server,
        f"localhost:{port}",
        f"http://localhost:{port}",
        f"http://localhost:{port}/metrics",
        f"127.0.0.1:{port}/metrics",
    ):
        assert scrape(url).value("nv_inference_count", model="double") >= 0


def test_no_metrics_there(models_server: Server) -> None:
    with pytest.raises(RequestError, match=rf"no metrics page.*scrape\(\"localhost:{models_server.metrics.port}\"\)"):
        scrape(models_server.http_url)
    with pytest.raises(CourseError, match="does not speak HTTP"):
        scrape(models_server.grpc_url)
    with pytest.raises(ServerError, match="No server answers"):
        scrape("localhost:9")
    for wrong in (None, 3, object(), "", "a b:1"):
        with pytest.raises(InputError):
            scrape(wrong)
    assert models_server.is_ready()
