"""``python -m benchmarks [CASES]``: measure, print, and with ``--keep`` write the results to ``results.csv`` and the report."""

from __future__ import annotations

import argparse
import os

from benchmarks import compare, report, run
from benchmarks.cases import CASES


def main(arguments: list[str] | None = None) -> None:
    """Run cases one after the other, all by default."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(CASES)} (default all, five minutes)")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (default 5)")
    parser.add_argument("--trial", action="store_true", help="does it run? tiny sizes, figures without a meaning")
    parser.add_argument("--keep", action="store_true", help="write what was measured to benchmarks/results.csv and the report")
    options = parser.parse_args(arguments)
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"there is no case {', '.join(sorted(unknown))}: {', '.join(CASES)}")
    if options.keep and options.trial:
        parser.error("a trial's figures have no meaning and are not kept")
    for name in options.cases or CASES:
        busy, found = os.getloadavg()[0], []
        for result in CASES[name](1 if options.trial else options.rounds, options.trial):
            print(report.line(result), flush=True)
            found.append(compare.with_machine(result, busy))
        if options.keep:
            compare.append(found)
            report.write()
    print(compare.with_machine(found[-1], busy).machine)


if __name__ == "__main__":
    run(main)
