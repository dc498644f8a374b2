"""How many servers a traffic needs: against sums done by hand, with the measurement's uncertainty, and with numbers that make no sense."""

from __future__ import annotations

import heapq
import math
import random
import statistics

import pytest

from helpers.errors import InputError
from helpers.measuring.table import recorded
from helpers.plots import capacity_figure
from helpers.scaling import queueing
from helpers.scaling.capacity import Traffic, plan
from tests.support.measured_rows import row

# 200 requests/s of 4 jets each; one server does 1000 jets/s, so each request keeps it busy for 4 ms, and 50 jobs are all that it can do.
TRAFFIC = Traffic(jobs=40, events_per_s=5, jets_per_event=4)
SPEED = row((1000, 50, 1e4, 0))


def test_what_comes_in_a_second() -> None:
    assert (TRAFFIC.requests_per_s, TRAFFIC.jets_per_s) == (200, 800)


def test_latency_by_hand_in_milliseconds() -> None:
    found = plan(TRAFFIC, SPEED, budget_ms=50)
    assert found.service_s == pytest.approx(0.004)
    # One server frees 250 - 200 places a second; wait and service together are exponential with these 50 places.
    assert found.latency_p95_ms(1) == pytest.approx(1000 * math.log(20) / 50)
    assert found.latency_p95_ms(1, jobs=60) == math.inf
    assert found.latency_p95_ms(1, jobs=0.001) == pytest.approx(4 * math.log(20), rel=1e-3), "no wait: the service is as random"


def test_the_percentile_of_wait_and_service_together_is_that_of_requests_played_through() -> None:
    """M/M/2 at a load of 0.3: 3.2 times the service's mean, and not 1.7, which is its mean and the percentile of the wait."""
    chance, clock, free, taken = random.Random(1), 0.0, [0.0, 0.0], []
    for _ in range(50_000):
        clock += chance.expovariate(0.6)
        end = max(clock, heapq.heappop(free)) + chance.expovariate(1)
        heapq.heappush(free, end)
        taken.append(end - clock)
    played = statistics.quantiles(taken, n=20)[-1]
    assert queueing.latency_p95_s(0.6, 1.0, 2) == pytest.approx(played, rel=0.03) == pytest.approx(3.2, abs=0.1)
    assert queueing.latency_p95_s(1.0, 1.0, 2) == pytest.approx(3.816, abs=0.001), "where wait and service end at the same rate"


def test_the_smallest_number_that_keeps_the_budget() -> None:
    assert plan(TRAFFIC, SPEED, budget_ms=60).servers == 1
    assert plan(TRAFFIC, SPEED, budget_ms=59.9).servers == 2
    assert plan(TRAFFIC, SPEED, budget_ms=12.2).servers == 3
    assert plan(Traffic(400, 5, 4), SPEED, budget_ms=1e6).servers == 9, "8 would be busy all the time"


def test_the_loads_at_which_it_changes() -> None:
    found = plan(TRAFFIC, SPEED, budget_ms=50)
    assert [found.limit_jobs(servers) for servers in (1, 2)] == pytest.approx([50, 100])
    assert found.latency_p95_ms(1) > 50 > found.latency_p95_ms(2)


def test_instances_of_one_server_work_side_by_side() -> None:
    found = plan(TRAFFIC, row((1000, 50, 1e4, 0), instances=2), budget_ms=60)
    assert found.service_s == pytest.approx(0.008), "half the throughput each"
    assert found.latency_p95_ms(1) == 1000 * queueing.latency_p95_s(200, 0.008, 2)
    assert found.limit_jobs(1) == pytest.approx(50)


def test_the_table_says_its_units_and_who_is_over_the_limit() -> None:
    found = plan(Traffic(60, 5, 4), SPEED, budget_ms=15)
    first, second = found.table[:2]
    assert (first["servers"], first["utilisation"], first["latency_p95_ms"], first["inside_budget"]) == (1, 1.2, "without end", "no")
    assert second["latency_p95_ms"] == round(1000 * queueing.latency_p95_s(300, 0.004, 2), 1) and second["limit_jobs"] == 100
    assert next(one["servers"] for one in found.table if one["inside_budget"] == "yes") == found.servers
    axes = capacity_figure(found).axes[0]
    assert "ms" in axes.get_ylabel() and "jobs" in axes.get_xlabel().lower()


def test_a_spread_becomes_an_interval_of_servers() -> None:
    spread = plan(TRAFFIC, row((820, 50, 1e4, 0)), budget_ms=1e4)
    assert spread.servers_interval == (1, 2) and "1 to 2 within the measurement's spread" in repr(spread.table)
    exact = plan(TRAFFIC, row((820, 0, 1e4, 0), throughput_spread_infer_per_s=None), budget_ms=1e4)
    assert exact.servers_interval == (1, 1) and "no spread is known" in repr(exact.table)


@pytest.mark.parametrize("half_width", [300, 1000, 1500])
def test_a_spread_that_reaches_below_the_budget_has_no_upper_end(half_width: float) -> None:
    """On a busy machine the spread may be as large as the throughput."""
    found = plan(TRAFFIC, row((1000, half_width, 1e4, 0)), budget_ms=13)
    assert found.servers_interval[1] == math.inf and found.servers_interval[0] <= found.servers
    assert "or more within the measurement's spread" in repr(found.table)


def test_speed_from_rows() -> None:
    measured = row((1200, 60, 1e4, 0), instances=2, servers=2)
    found = plan(TRAFFIC, measured, 1e4)
    assert (found.jets_per_s, found.half_width_per_s, found.parallel, found.source) == (600, 30, 2, "measured, CPU")
    assert plan(TRAFFIC, row((1200, 60, 1e4, 0)), 1e4).jets_per_s == 1200
    published = recorded("T4", "particlenet_AK4").query("batch == 4").iloc[0]
    found = plan(Traffic(1000, 2, 4), published, budget_ms=20)
    assert found.servers >= 8000 / published["throughput_infer_per_s"] and "no spread is known" in repr(found.table)


def test_a_row_of_two_servers_plans_as_many_as_one_of_one() -> None:
    one, two = row((1000, 50, 1e4, 0), servers=1), row((2000, 100, 1e4, 0), servers=2)
    assert plan(Traffic(400, 5, 4), two, 1e6).servers == plan(Traffic(400, 5, 4), one, 1e6).servers == 9


def test_several_rows_give_the_throughput_of_the_plateau_and_not_the_luckiest_one() -> None:
    rows = [row((rate, 50, 1e4, 0), servers=1, concurrency=place) for place, rate in enumerate((500, 980, 1040, 1000), 1)]
    found = plan(TRAFFIC, rows, 1e4)
    assert found.jets_per_s == pytest.approx((980 + 1040 + 1000) / 3) and found.half_width_per_s == pytest.approx(50 / math.sqrt(3))
    with pytest.raises(InputError, match="different numbers of servers"):
        plan(TRAFFIC, [*rows, row((2000, 50, 1e4, 0), servers=2)], 1e4)


@pytest.mark.parametrize("budget_ms", [11.9, 0, -1])
def test_a_budget_that_no_number_of_servers_keeps_is_named(budget_ms: float) -> None:
    with pytest.raises(InputError, match=f"95 of 100 requests take up to 12 ms, and the budget is {budget_ms} ms"):
        plan(TRAFFIC, SPEED, budget_ms)


def test_a_row_without_a_throughput_is_named() -> None:
    with pytest.raises(InputError, match="No row has a value"):
        plan(TRAFFIC, row(throughput_infer_per_s=None), 50)
