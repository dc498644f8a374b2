"""What perf_analyzer wrote in real runs, as numbers and as errors in words."""

from __future__ import annotations

import pytest

from helpers.errors import RequestError
from helpers.measuring import perf_analyzer as perf_results
from helpers.measuring.measure import row_of
from helpers.measuring.perf_analyzer import Run, explain_failure

# From perf_analyzer 2.51.0: particlenet_AK4, batch 10, concurrency 1, on two cores.
TABLE = """Concurrency,Inferences/Second,Client Send,Network+Server Send/Recv,Server Queue,Server Compute Input,Server Compute Infer,\
Server Compute Output,Client Recv,p50 latency,p90 latency,p95 latency,p99 latency,request/response,response wait
1,529.994,19,1018,549,58,16603,476,4,16877,23235,25061,37402,23,18704
"""
VERBOSE = """
Request concurrency: 1
  Pass [1] throughput: 502.81 infer/sec. p95 latency: 30063 usec
  Pass [2] throughput: 516.43 infer/sec. p95 latency: 25754 usec
  Pass [3] throughput: 546.417 infer/sec. p95 latency: 25093 usec
  Pass [4] throughput: 528.561 infer/sec. p95 latency: 24112 usec
  Client:
    Request count: 213
    Throughput: 529.994 infer/sec
"""
NO_WINDOW = """  Pass [1] cb::Error: No valid requests recorded within time interval. Please use a larger time window.
WARNING: Pass contained only one request, so sample latency standard deviation will be infinity (UINT64_MAX).
  Pass [2] throughput: 771.416 infer/sec. Avg latency: 220939 usec (std 0 usec).
"""


def test_the_table_by_column_name() -> None:
    figures = perf_results.result_of("", TABLE).figures
    assert figures["throughput_infer_per_s"] == 529.994
    assert (figures["latency_p50_us"], figures["latency_p99_us"]) == (16877, 37402)
    assert (figures["queue_us"], figures["network_us"], figures["compute_infer_us"]) == (549, 1018, 16603)
    # What the tool itself calls the mean of that run: "Avg gRPC time: 18727 usec".
    assert figures["latency_avg_us"] == 18727


def test_a_column_that_is_missing_is_none_and_so_is_the_sum() -> None:
    figures = perf_results.result_of("", "Concurrency,Inferences/Second,p95 latency,Server Queue\n1,12.5,400,\n").figures
    assert figures["throughput_infer_per_s"] == 12.5
    assert figures["queue_us"] is None and figures["latency_avg_us"] is None and figures["latency_p50_us"] is None
    assert perf_results.result_of("").figures == {}


def test_windows_and_requests() -> None:
    result = perf_results.result_of(VERBOSE)
    assert [window.throughput_infer_per_s for window in result.windows] == [502.81, 516.43, 546.417, 528.561]
    assert result.windows[-1].latency_us == 24112 and result.requests == 213
    assert [window.requests for window in result.windows] == [51, 53, 56, 54], "shared by their rates"
    result = perf_results.result_of(NO_WINDOW)
    assert [window.throughput_infer_per_s for window in result.windows] == [771.416] and result.requests == 0


RUN = Run("particlenet_AK4", "localhost:9", batch=10)


def run_of(rates: list[float], latencies: list[float], requests: int, queue_us: float | None = 1.0) -> perf_results.Result:
    windows = tuple(perf_results.Window(*each, requests // 3) for each in zip(rates, latencies, strict=True))
    p95 = sorted(latencies)[1]
    figures = {"throughput_infer_per_s": sum(rates) / 3, **{f"latency_p{each}_us": p95 * each / 95 for each in (50, 90, 95, 99)}}
    return perf_results.Result(figures | {"queue_us": queue_us}, windows, requests)


def test_several_runs_together() -> None:
    row = row_of(RUN, [run_of([500] * 3, [latency] * 3, 90, queue) for latency, queue in ((10, 1.0), (12, 3.0), (90, 5.0))], {})
    assert (row["queue_us"], row["latency_p95_us"]) == (3.0, 12.0), "the mean of percentiles is none"
    assert row_of(RUN, [run_of([500] * 3, [10] * 3, 90, queue) for queue in (1.0, None)], {})["queue_us"] is None
    nothing = row_of(RUN, [perf_results.Result({}, (), 0)], {})
    assert nothing["throughput_infer_per_s"] is None and (nothing["stable"], nothing["note"]) == (
        False,
        "throughput not within 5%; p95 not within 10%",
    )


def test_a_row_is_settled_when_its_throughput_and_its_percentile_are_known() -> None:
    steady = [run_of([500, 502, 498], [1000, 1020, 990], 90) for _ in range(3)]
    row = row_of(RUN, steady, {})
    assert row["stable"] and row["note"] == "" and 940 < row["latency_low_us"] <= 1000 <= row["latency_high_us"] < 1060
    assert 0 < row["throughput_spread_infer_per_s"] < 5 and (row["windows"], row["requests"]) == (9, 270)
    row = row_of(RUN, [run_of([500, 502, 498], [700, 1000, 1400], 90) for _ in range(3)], {})
    assert not row["stable"] and row["note"] == "p95 not within 10%"
    wild = row_of(RUN, [run_of([500, 20, 1900], [700, 1000, 1400], 90) for _ in range(2)], {})["note"]
    assert wild == "throughput not within 5%; p95 not within 10%"
    few = row_of(RUN, [run_of([500, 502, 498], [1000, 1020, 990], 30)], {})
    assert few["latency_high_us"] is None and few["note"].endswith("p95 not within 10%")


# The standard error of real runs that failed, each with words of its error. What a server refuses beforehand, such as a model that is not
# loaded, is not among them: no run begins.
FAILURES = [
    (
        "error: failed to get model metadata: failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:17771: "
        "Failed to connect to remote host: Connection refused\n",
        "Connection refused",
    ),
    ("error: failed to get model metadata: HTTP client failed: Unsupported protocol\n", r"status 99\): .*Unsupported protocol"),
    (
        "\nFailed to maintain requested inference load. Worker thread(s) failed to generate concurrent requests.\n"
        "Thread [0] had error: [request id: <id_unknown>] unexpected shape for input 'pf_points' for model 'particlenet_AK4'. "
        "Expected [-1,2,-1], got [1,3,50]. NOTE: Setting a non-zero max_batch_size in the model config requires a batch\n",
        r"Expected \[-1,2,-1\], got \[1,3,50\]\. ",
    ),
    (
        "Thread [0] had error: model 'particlenet_AK4': ONNX Runtime: k argument [9] should not be greater than specified axis dim [4]\n",
        "'particlenet_AK4'.*k argument.*real inputs",
    ),
    ("Error: Failed to parse --input-data. Unsupported type provided: '/nope.json'. The\nUsage: x\n", "Failed to parse"),
    ("", "it gave no reason"),
]


@pytest.mark.parametrize(("said", "words"), FAILURES)
def test_failures_in_words(said: str, words: str) -> None:
    error = explain_failure(99, said, RUN)
    with pytest.raises(RequestError, match=words):
        raise error
    assert "\n" not in str(error) and "Thread [" not in str(error) and "request id" not in str(error)
    assert "type: python -m helpers perf_analyzer -m " in str(error), "the tool itself is seldom on PATH"


def test_a_server_that_ended_is_named() -> None:
    class Ended:
        owned = True

        def how_it_ended(self) -> tuple[str, str]:
            return "It was killed.", "Type: server.restart()"

    assert str(explain_failure(99, "Thread [0] had error: Socket closed\n", RUN, Ended())).endswith(
        "Socket closed. It was killed. Type: server.restart()"
    )
