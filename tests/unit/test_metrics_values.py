"""Which numbers of a metrics page may be added: counters may; quantiles, cumulative buckets and gauges may not. No server needed."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.errors import InputError
from helpers.metrics import Snapshot, parse

# Several models and versions, quantiles of one model alone, summaries before the first request, a counter with one more label.
PAGE = """\
# TYPE nv_inference_count counter
nv_inference_count{model="jets",version="1"} 7
nv_inference_count{model="tracks",version="1"} 5
# TYPE nv_inference_request_failure counter
nv_inference_request_failure{model="jets",version="1",reason="CANCELED"} 2
nv_inference_request_failure{model="jets",version="1",reason="OTHER"} 1
# TYPE nv_inference_queue_summary_us summary
nv_inference_queue_summary_us_count{model="jets",version="1"} 4
nv_inference_queue_summary_us_sum{model="jets",version="1"} 1000
nv_inference_queue_summary_us{model="jets",version="1",quantile="0.5"} 200
nv_inference_queue_summary_us{model="jets",version="1",quantile="0.9"} 480
nv_inference_queue_summary_us_count{model="tracks",version="1"} 6
nv_inference_queue_summary_us_sum{model="tracks",version="1"} 600
nv_inference_queue_summary_us{model="tracks",version="1",quantile="0.5"} 90
# TYPE nv_inference_request_summary_us summary
nv_inference_request_summary_us_count{model="idle",version="1"} 0
nv_inference_request_summary_us_sum{model="idle",version="1"} 0
nv_inference_request_summary_us{model="idle",version="1",quantile="0.99"} Nan
# TYPE nv_inference_first_response_histogram_ms histogram
nv_inference_first_response_histogram_ms_count{model="jets",version="1"} 6
nv_inference_first_response_histogram_ms_sum{model="jets",version="1"} 900
nv_inference_first_response_histogram_ms_bucket{model="jets",version="1",le="100"} 3
nv_inference_first_response_histogram_ms_bucket{model="jets",version="1",le="500"} 5
nv_inference_first_response_histogram_ms_bucket{model="jets",version="1",le="+Inf"} 6
nv_inference_first_response_histogram_ms_count{model="tracks",version="1"} 10
nv_inference_first_response_histogram_ms_sum{model="tracks",version="1"} 100
nv_inference_first_response_histogram_ms_bucket{model="tracks",version="1",le="100"} 10
nv_inference_first_response_histogram_ms_bucket{model="tracks",version="1",le="500"} 10
nv_inference_first_response_histogram_ms_bucket{model="tracks",version="1",le="+Inf"} 10
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="jets",version="1"} 2
nv_inference_pending_request_count{model="tracks",version="1"} 3
# TYPE nv_gpu_utilization gauge
nv_gpu_utilization{gpu_uuid="GPU-1"} 0.9
nv_gpu_utilization{gpu_uuid="GPU-2"} 0.3
# TYPE nv_gpu_power_usage gauge
nv_gpu_power_usage{gpu_uuid="GPU-1"} 60
nv_gpu_power_usage{gpu_uuid="GPU-2"} 40
# TYPE own_temperature gauge
own_temperature{model="jets",place="a"} 300
own_temperature{model="jets",place="b"} 310
own_temperature 290
"""
NOW = Snapshot(2.0, tuple(parse(PAGE)))
# Half of every counter: the other half came since.
BEFORE = Snapshot(1.0, tuple(one.__class__(one.metric, one.counter, one.labels, one.value / 2) for one in NOW.samples))
FIRST_MS = "nv_inference_first_response_histogram_ms"


@pytest.mark.parametrize(
    ("metric", "labels", "number"),
    [
        ("nv_inference_count", {}, 12),
        ("nv_inference_request_failure", {"model": "jets"}, 3),
        ("nv_inference_request_failure", {"reason": "OTHER"}, 1),
        ("nv_inference_queue_summary_us_count", {}, 10),
        ("inference_queue_summary_us_sum", {"model": "tracks"}, 600),
        ("nv_inference_queue_summary_us", {"model": "jets", "quantile": "0.9"}, 480),
        ("nv_inference_queue_summary_us", {"model": "tracks"}, 90),
        (f"{FIRST_MS}_count", {}, 16),
        (f"{FIRST_MS}_bucket", {"model": "jets", "le": "100"}, 3),
        ("nv_inference_pending_request_count", {"model": "jets"}, 2),
        ("nv_gpu_utilization", {"gpu_uuid": "GPU-2"}, 0.3),
        ("own_temperature", {"place": "b"}, 310),
    ],
)
def test_a_number_and_sums_that_mean_something(metric: str, labels: dict[str, Any], number: float) -> None:
    assert NOW.value(metric, **labels) == number
    now = number if metric.endswith(("summary_us", "utilization", "usage", "temperature", "pending_request_count")) else number / 2
    assert (NOW - BEFORE).value(metric, **labels) == now, "counters as differences, quantiles and gauges as they are now"


@pytest.mark.parametrize(
    ("metric", "labels", "words"),
    [
        ("nv_inference_queue_summary_us", {}, "3 times; the sum of such numbers means nothing"),
        ("nv_inference_queue_summary_us", {"model": "jets", "version": 1}, r"2 times.*quantile=0\.5' and .*quantile=0\.9'"),
        # The median of two models is not the sum of two medians.
        ("nv_inference_queue_summary_us", {"quantile": "0.5"}, "2 times.*'model=jets,.* and 'model=tracks,"),
        ("nv_inference_queue_summary_us", {"model": "tracks", "quantile": "0.9"}, r"not there with model=tracks, quantile=0\.9"),
        (f"{FIRST_MS}_bucket", {}, "6 times"),
        ("inference_first_response_histogram_ms_bucket", {"model": "jets"}, r"3 times.*le=100', .*le=500' and .*le=\+Inf'"),
        ("nv_gpu_utilization", {}, "2 times.*'gpu_uuid=GPU-1' and 'gpu_uuid=GPU-2'"),
        ("own_temperature", {"model": "jets"}, "2 times.*place=a' and .*place=b'"),
        ("nv_inference_pending_request_count", {}, "2 times.*'model=jets, version=1' and 'model=tracks, version=1'"),
        ("own_temperature", {}, "3 times.*'model=jets"),
        ("nv_inference_count", {"quantile": "0.5"}, "not there with quantile=0.5.*there with 'model=jets, version=1'"),
    ],
)
def test_sums_that_mean_nothing_are_refused_and_say_what_to_add(metric: str, labels: dict[str, Any], words: str) -> None:
    for page in (NOW, NOW - BEFORE):
        with pytest.raises(InputError, match=words):
            page.value(metric, **labels)
