"""A fleet under more and more load: its throughput, the time in its servers' queues, and what theory expects of both.

Typical use::

    one = by_concurrency(fleet, "particlenet_AK4", (1, 2, 4, 8), batch=8)
    fleet.grow()
    two = by_concurrency(fleet, "particlenet_AK4", (1, 2, 4, 8), batch=8)
    plots.scale_figure([one, two], expected([one, two]))

Behind one address nobody knows which server answers, so what perf_analyzer asks of "the server" comes from any of them. Times inside
the servers are therefore taken from the counters of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from helpers.errors import InputError
from helpers.fleet import shares as fleet_shares
from helpers.measuring.measure import measure
from helpers.measuring.table import THROUGHPUT, THROUGHPUT_SPREAD, Row, Rows, is_recorded, plain, plateau, rows_of
from helpers.metrics import Snapshot
from helpers.queueing import SIMULATED_REQUESTS, simulate_clients

# Where these columns come from when a row of ours is simulated.
SIMULATED = "simulated"
# What perf_analyzer asks one of the servers.
_OF_ONE_SERVER = ("latency_avg_us", "network_us", "compute_input_us", "compute_infer_us", "compute_output_us")
# How the note about that begins, which is not true of rows that have these taken out.
_NOTE_OF_ONE = "queue and compute times are those of one"


def by_concurrency(fleet: Any, model: str, concurrencies: Iterable[int] = (1, 2, 4, 8), batch: int = 1, **options: Any) -> Rows:
    """Measure a fleet under more and more requests at once.

    Args:
        fleet: a :class:`~helpers.fleet.Fleet`, or a single server.
        model: name of the model.
        concurrencies: requests under way at any time, one measurement for each.
        batch: jets in each request.
        **options: as for :func:`helpers.measuring.measure.measure`.

    Returns:
        Rows as :func:`under_load` gives them.
    """
    return Rows.of([under_load(fleet, model, batch, concurrency, **options) for concurrency in concurrencies])


def under_load(fleet: Any, model: str, batch: int = 1, concurrency: int = 1, **options: Any) -> Row:
    """Measure a fleet under one load.

    Args:
        fleet: a :class:`~helpers.fleet.Fleet`, or a single server.
        model: name of the model.
        batch: jets in each request.
        concurrency: requests under way at any time.
        **options: as for :func:`helpers.measuring.measure.measure`.

    Returns:
        A measured row with ``servers`` (how many answered), ``queue_us`` (mean time of a request in the queue of its server, by the
        counters of all) and ``largest_share`` (of the requests, that of the busiest server).
    """
    before = snapshot(fleet)
    row = measure(fleet, model, batch, concurrency, **options)
    if is_recorded(row):
        return row
    note = "; ".join(part for part in row["note"].split("; ") if not part.startswith(_NOTE_OF_ONE))
    return Row.of({**plain(row), **dict.fromkeys(_OF_ONE_SERVER), "note": note, **_counted(shares(fleet, before, model))})


def snapshot(fleet: Any) -> dict[str, Snapshot]:
    """The counters of all servers now, by the address of their HTTP port."""
    return fleet_shares.read(_servers(fleet))


def shares(fleet: Any, since: Mapping[str, Snapshot], model: str) -> list[dict[str, Any]]:
    """What each server did for a model since an earlier reading; see :meth:`helpers.fleet.Fleet.shares`."""
    servers = _servers(fleet)
    return fleet_shares.rows(servers, since, fleet_shares.read(servers), model)


def _servers(fleet: Any) -> list[Any]:
    return list(getattr(fleet, "servers", None) or [fleet])


def _counted(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    asked = [row for row in rows if row["requests"]]
    total = sum(row["requests"] for row in asked)
    queue = sum(row["queue_us"] * row["requests"] for row in asked)
    return {
        "servers": len(asked),
        "queue_us": queue / total if total else None,
        "largest_share": max((row["share"] for row in asked), default=None),
    }


def expected(rows: Any) -> Rows:
    """What a simulation expects of the same fleets under the same loads, from the measurement of the smallest fleet alone.

    The clients of the simulation do as perf_analyzer's: each sends a request, waits for its answer and sends the next. The time that a
    request takes comes from the throughput at which the smallest fleet is saturated, the time that passes between answer and request
    from its slowest load. More servers are taken to be as fast as the first; where they share its cores they are not.

    Args:
        rows: measured rows of one model and batch size, from :func:`by_concurrency`.

    Raises:
        InputError: there is no such row.
    """
    found = rows_of(rows, (THROUGHPUT, "servers", "concurrency"), "what a simulation expects")
    fewest = min(row["servers"] for row in found)
    small = [row for row in found if row["servers"] == fewest and row.get(THROUGHPUT)]
    if len({(row["model"], row["batch"]) for row in found}) > 1 or not small:
        raise InputError("These rows are of several models or batch sizes.", "Expected one of each.")
    batch, instances = small[0]["batch"], small[0].get("instances") or 1
    service_s = batch * fewest * instances / plateau(small)[0]
    least = min(small, key=lambda row: row["concurrency"])
    # Between answer and next request a client is neither waiting nor being worked on.
    away_s = max(least["concurrency"] * batch / least[THROUGHPUT] - service_s, 0.0)
    made = []
    for row in found:
        parallel = row["servers"] * instances
        seen = simulate_clients(row["concurrency"], service_s, parallel, think_s=away_s, requests=SIMULATED_REQUESTS // 10)
        same = {name: row.get(name) for name in ("model", "batch", "concurrency", "servers", "device", "cpu")}
        figures = {THROUGHPUT: batch * seen.served_per_s, THROUGHPUT_SPREAD: batch * seen.served_half_width_per_s}
        made.append(
            {**same, **figures, "queue_us": 1e6 * seen.mean_s, "queue_spread_us": 1e6 * seen.mean_half_width_s, "source": SIMULATED}
        )
    return Rows.of(made)
