"""``python -m benchmarks.again``: do equal work and get equal answers? What intervals and verdicts promise, on this machine; ten minutes.

In each of ten fresh runs a new server is measured: the same rows, and four times A against A in turn. Two rows of different runs agree when
the interval of their ratio, with :data:`~helpers.measuring.statistics.BETWEEN_RUNS` in it, holds 1. Run it on a quiet machine.
"""

from __future__ import annotations

import itertools
import math
import os
import tempfile
from typing import Any

import numpy as np

from benchmarks import run
from helpers import launch_server, machine, measure, measure_in_turn, verdict
from helpers.measuring.statistics import BETWEEN_RUNS, FASTER, LEAST_WINDOWS, SLOWER, student
from helpers.measuring.table import THROUGHPUT, THROUGHPUT_SPREAD

# Away from the ports of a course that runs on the same machine.
BASE_PORT = 13300
MODEL = "particlenet_AK4"
RUNS, VERDICTS = 10, 4
LOADS = ({"batch": 1}, {"batch": 8}, {"batch": 8, "concurrency": 4})
# Of forty verdicts on equal work, two may be wrong; of the pairs of rows at least this part agrees.
MOST_WRONG, LEAST_AGREE = 2, 0.93


def fresh_run(number: int) -> tuple[list[Any], list[Any]]:
    """Return the rows of a new server, and the verdicts on equal work there."""
    with launch_server("models", load=[MODEL], base_port=BASE_PORT, name=f"again-{number}") as server:
        rows = [measure(server, MODEL, **load) for load in LOADS]
        pairs = [measure_in_turn(server, MODEL, load, load) for load in itertools.islice(itertools.cycle(LOADS), number, number + VERDICTS)]
    return rows, [verdict(*pair) for pair in pairs]


def between_runs(rows: list[Any]) -> float:
    """Return the relative variance of rows of equal work beyond what their own windows show."""
    own = [(row[THROUGHPUT_SPREAD] / row[THROUGHPUT] / student((row["windows"] or LEAST_WINDOWS) - 1)) ** 2 for row in rows]
    return float(np.var(np.log([row[THROUGHPUT] for row in rows]), ddof=1) - np.mean(own))


def main() -> int:
    """Measure, print, and return 1 when a promise is not kept."""
    load_average = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as work:
        os.environ["COURSE_WORK"] = work
        runs = [fresh_run(number) for number in range(RUNS)]
    wrong = [seen for _, verdicts in runs for seen in verdicts if seen.answer in (FASTER, SLOWER)]
    same = list(zip(*(rows for rows, _ in runs), strict=True))
    agree = [verdict(*pair, least=0).answer not in (FASTER, SLOWER) for rows in same for pair in itertools.combinations(rows, 2)]
    variances = [between_runs(list(rows)) for rows in same]
    beyond = math.sqrt(max(float(np.mean(variances)), 0.0))
    print(f"{machine.description()}; load average before the measurement {load_average:.1f}")
    print(f"A against A: {len(wrong)} of {RUNS * VERDICTS} verdicts are faster or slower (at most {MOST_WRONG})")
    for seen in wrong:
        print(f"  {seen}")
    print(f"Rows of {RUNS} fresh runs: {sum(agree)} of {len(agree)} pairs agree ({np.mean(agree):.0%}, at least {LEAST_AGREE:.0%})")
    print(f"Between runs: {beyond:.1%} beyond their own windows; BETWEEN_RUNS, which verdicts add, is {BETWEEN_RUNS:.0%}")
    return int(len(wrong) > MOST_WRONG or np.mean(agree) < LEAST_AGREE)


if __name__ == "__main__":
    run(main)
