"""The strategy of a search: which combination to measure next, guided by what the server says about the last one.

No server here: what measures is given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from helpers import settings
from helpers.errors import ModelError
from helpers.tune_candidate import FAILED, OK, OVER_BUDGET, REFUSED, Candidate, Goal, Row
from helpers.tune_space import Axes, beside
from helpers.verdict import SLOWER, verdict


@dataclass
class Search:
    """The cheap part: one combination after the other, from the one that was found, along one axis at a time.

    Args:
        axes: the values of each model, the one that serves now first.
        goal: what is best.
        cores: of the server.
        measure: measures a combination shortly; the row has ``outcome`` and what the guidance needs.

    Attributes:
        rows: what was measured, in order.
        steps: what was done and left out, and why, in sentences.
    """

    axes: Mapping[str, Axes]
    goal: Goal
    cores: int
    measure: Callable[[Candidate], Row]
    rows: dict[Candidate, Row] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)

    def run(self, start: Candidate) -> Candidate:
        """Go from ``start`` to the best that can be found; returns it.

        Raises:
            ModelError: not even the start can be measured.
        """
        if (row := self._try(start))["outcome"] in (REFUSED, FAILED):
            raise ModelError(f"The configuration as it was found cannot be measured: {row['reason']}")
        best = self._models(start)
        best = self._instances(best)
        before, best = best, self._batching(best)
        best = self._accelerators(best)
        if best.batching != before.batching or best.accelerator != before.accelerator:
            best = self._instances(best)
        return best

    def finalists(self, best: Candidate, start: Candidate) -> list[Candidate]:
        """The best and those that its spread does not rule out, at most :data:`helpers.settings.TUNE_FINALISTS`; always the start."""
        ranked = sorted(self.rows, key=lambda each: self.goal.rank(self.rows[each]), reverse=True)
        near = [each for each in ranked if self._near(self.rows[each], self.rows[best])]
        chosen = list(dict.fromkeys([best, *near]))[: settings.TUNE_FINALISTS]
        usable = self.rows[start]["outcome"] in (OK, OVER_BUDGET)
        return list(dict.fromkeys([*chosen, *([start] if usable else [])]))

    def reserve(self, finalists: Sequence[Candidate], start: Candidate) -> list[Candidate]:
        """Who is next when the finals reject all finalists: the best others that were inside the budget and better than the start."""
        least = self.goal.rank(self.rows[start])
        others = [each for each in self.rows if each not in finalists and self.goal.rank(self.rows[each]) > max(least, (1.0,))]
        return sorted(others, key=lambda each: self.goal.rank(self.rows[each]), reverse=True)[: settings.TUNE_FINALISTS]

    def _near(self, row: Row, best: Row) -> bool:
        if row["outcome"] not in (OK, OVER_BUDGET):
            return False
        if not self.goal.within(best):
            return False
        return not self.goal.over(row) and verdict(best, row, self.goal.quantity).answer != SLOWER

    def _try(self, candidate: Candidate) -> Row:
        if candidate not in self.rows:
            self.rows[candidate] = self.measure(candidate)
        return self.rows[candidate]

    def _better(self, one: Candidate, other: Candidate) -> bool:
        return self.goal.rank(self._try(one)) > self.goal.rank(self.rows[other])

    def _best_of(self, best: Candidate, others: Sequence[Candidate]) -> Candidate:
        for other in others:
            if self._better(other, best):
                best = other
        return best

    def _models(self, start: Candidate) -> Candidate:
        """Every model under the same configuration, as far as it has the same parameters."""
        others = []
        for model, axes in self.axes.items():
            threads = start.threads if axes.threads != (None,) and start.threads else axes.threads_for(start.instances, self.cores)
            delay = start.delay_ms if start.delay_ms in axes.delays_ms else axes.delays_ms[0]
            accelerator = start.accelerator if start.accelerator in axes.accelerators else ""
            if model != start.model:
                others.append(Candidate(model, start.instances, threads, delay, accelerator))
        return self._best_of(start, others)

    def _instances(self, best: Candidate) -> Candidate:
        """More instances while requests wait, fewer with more threads each while they do not; one way, and the other if that is no gain."""
        begin = best
        for step in (1, -1) if self._waits(best) else (-1, 1):
            while (following := beside(best, self.axes[best.model], self.cores, step)) and self._worth(best, following, step):
                if not self._better(following, best):
                    break
                best = following
            if best != begin:
                break
        return self._threads(best)

    def _threads(self, best: Candidate) -> Candidate:
        """As many threads as the cores allow, and a step fewer, with which they get in each other's way less."""
        axes, now = self.axes[best.model], best.threads
        if now is None:
            return best
        fitting = axes.threads_for(best.instances, self.cores)
        fewer = max((number for number in axes.threads if number and number < now), default=now)
        others = dict.fromkeys([fitting, fewer] if self._waits(best) else [fitting])
        return self._best_of(best, [replace(best, threads=number) for number in others if number != now])

    def _worth(self, now: Candidate, following: Candidate, step: int) -> bool:
        row = self.rows[now]
        if following in self.rows:
            return True
        if step > 0 and not self._waits(now):
            return self._skip(f"More than {now.instances} instances: hardly any request waits for one ({_percent(row['queue_share'])}).")
        wanted, all_of_it = row.get("wanted_cores"), following.instances * (following.threads or 1)
        if step > 0 and all_of_it > self.cores and wanted and wanted > settings.TUNE_CPU_BUSY * self.cores:
            return self._skip(f"{following.instances} instances: {now} has work for {wanted:.1f} of {self.cores} cores already.")
        if step < 0 and following.threads == now.threads and self._waits(now):
            return self._skip(f"Fewer than {now.instances} instances: requests wait for one as it is ({_percent(row['queue_share'])}).")
        return True

    def _batching(self, best: Candidate) -> Candidate:
        """Off and on; and waits, from the shortest, while they make larger batches and it gets better."""
        axes = self.axes[best.model]
        if len(axes.delays_ms) == 1:
            return best
        if not self._waits(best) and not best.delay_ms:
            self._skip(
                f"Dynamic batching: hardly any request waits ({_percent(self.rows[best]['queue_share'])}), so none can be put together."
            )
            return best
        begin = best
        plain: list[float | None] = [delay for delay in axes.delays_ms if not delay and delay != begin.delay_ms]
        best = self._best_of(best, [replace(best, delay_ms=delay) for delay in plain])
        for delay in sorted(delay for delay in axes.delays_ms if delay):
            at_once = self.rows.get(replace(best, delay_ms=0.0)) or self.rows[best]
            if self._full(best, at_once):
                break
            longer = replace(best, delay_ms=delay)
            if not self._better(longer, best):
                break
            best = longer
        return self._halves(best)

    def _halves(self, best: Candidate) -> Candidate:
        """Batches of half of what an instance has under way, where two requests fit into one: it need not wait for the clients then."""
        halves = replace(best, delay_ms=0.0, halves=True)
        if (
            best.delay_ms is None
            or not self.axes[best.model].halves
            or (self.rows[best].get("reachable_batch") or 0) < 4 * self.goal.traffic.batch
        ):
            return best
        return self._best_of(best, [halves])

    def _full(self, best: Candidate, row: Row) -> bool:
        """Whether the batches are about as large as this traffic can make them, so that nothing is left to wait for."""
        batch, possible = row.get("executed_batch"), row.get("reachable_batch")
        if not batch or not possible or batch < settings.TUNE_FULL * possible:
            return False
        self._skip(f"Waiting for larger batches: they hold {batch:.3g} of {possible} possible without waiting.")
        return True

    def _accelerators(self, best: Candidate) -> Candidate:
        others = [name for name in self.axes[best.model].accelerators if name != best.accelerator]
        return self._best_of(best, [replace(best, accelerator=name) for name in others])

    def _waits(self, candidate: Candidate) -> bool:
        share = self.rows[candidate].get("queue_share")
        return share is None or share > settings.TUNE_WAITING

    def _skip(self, sentence: str) -> bool:
        if sentence not in self.steps:
            self.steps.append(sentence)
        return False


def _percent(share: float | None) -> str:
    return "not known" if share is None else f"{share:.0%} of its time"
