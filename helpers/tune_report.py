"""What a search found, and how sure that is."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helpers.course.judge import box
from helpers.errors import CourseError, InputError, RequestError
from helpers.plot_rows import latency_column
from helpers.tables import as_html, as_text
from helpers.tune_candidate import OK, OVER_BUDGET, OVER_MEMORY, Candidate, Goal, Row
from helpers.tune_finals import rank_of
from helpers.tune_standing import Standing
from helpers.verdict import CANNOT_TELL, FASTER, Verdict, verdict


@dataclass(frozen=True)
class Tuned:
    """The result of a search.

    Attributes:
        rows: everything that was tried, in order, one row for each measurement.
        best: the winner as one row, means of its measurements; None when nothing meets the budget.
        closest: the same for the combination that comes closest to the budget, where nothing meets it; else None.
        config_path: the winner's ``config.pbtxt``; None when there is none.
        against_found: verdict on the winner, seen from the configuration that was found; None when that could not be measured.
        against_next: verdict on the winner, seen from the runner-up; None when there is none.
        text: what was done and how sure the result is, in sentences.
        path: the file with the rows of this search and of others.
        seconds: how long it took, without what an earlier call had measured.
        before: how many rows an earlier call had measured.
    """

    rows: list[Row] = field(repr=False)
    best: Row | None
    closest: Row | None
    config_path: Path | None
    against_found: Verdict | None
    against_next: Verdict | None
    text: tuple[str, ...]
    path: Path
    seconds: float
    before: int = 0

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return "\n".join([*self.text, "", as_text(self._table())])

    def _repr_html_(self) -> str:
        colour = "#2e9e44" if self.best else "#c96f14"
        sentences = "".join(f"<p style='margin:0.2em 0'>{html.escape(sentence)}</p>" for sentence in self.text)
        winner = (self.best or self.closest or {}).get("candidate")
        return box(sentences, colour) + as_html(
            self._table(), caption=f"{len(self.rows)} measurements.", bold=lambda row: row["what"] == winner
        )

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self._repr_html_()}

    def _table(self) -> list[dict[str, Any]]:
        return [
            {
                "what": row["candidate"] + (" (as found)" if row["as_found"] else ""),
                "stage": row["stage"] + (f" {row['round'] + 1}" if row["stage"] == "final" else ""),
                "infer/s": row["throughput_infer_per_s"],
                "±": row["throughput_spread_infer_per_s"],
                f"p{row['percentile']} (ms)": _ms(row.get(latency_column(row["percentile"]))),
                "queue (ms)": _ms(row["queue_us"]),
                "batch run": row.get("executed_batch"),
                "CPU cores": row.get("cpu_cores"),
                "memory (MB)": row.get("memory_mb") and round(row["memory_mb"]),
                "outcome": row["outcome"],
            }
            for row in self.rows
        ]


def standings(finals: Mapping[Candidate, Sequence[Row]], goal: Goal) -> list[Standing]:
    """The finalists that were measured, the best first."""
    measured = {each: [row for row in rows if row["outcome"] in (OK, OVER_BUDGET)] for each, rows in finals.items()}
    measured = {each: rows for each, rows in measured.items() if rows}
    ranked = sorted(measured, key=lambda each: rank_of(measured[each], goal), reverse=True)
    return [Standing(each, tuple(measured[each]), goal) for each in ranked]


def compared(first: Standing | None, second: Standing | None) -> Verdict | None:
    """The verdict on the second, seen from the first."""
    if first is None or second is None or first.candidate == second.candidate:
        return None
    return verdict(*(_named(each) for each in (first, second)), first.goal.quantity)


def _named(standing: Standing) -> list[Row]:
    """The rows as a verdict names them: by the combination instead of the short name of a configuration."""
    return [{**row, "variant": str(standing.candidate), "config": None, "instances": None, "model": None} for row in standing.rows]


def sentences(best: Standing, found: Verdict | None, following: Verdict | None, is_found: bool) -> list[str]:
    """How good the winner is and how sure that is."""
    said = [f"Best: {best.candidate}: {best.words()}."]
    if best.candidate.halves:
        said.append(
            "Half batches hold half of the requests that an instance has under way (preferred_batch_size): while it works on one half, the "
            "other one waits, complete."
        )
    if best.goal.budget_ms is not None:
        inside = best.within()
        sure = "for certain" if inside else "on average, but its spread reaches over the budget: cannot tell"
        said.append(f"It meets the budget of {best.goal.budget_ms:g} ms {sure}.")
    if is_found:
        said.append("That is the configuration as it was found: nothing that was tried is better.")
    elif found is not None:
        hint = {CANNOT_TELL: " There is no proof yet that a change is worth it.", FASTER: ""}
        said.append(f"Seen from the configuration as found: {found}{hint.get(found.answer, ' So nothing is won by it.')}")
    if following is not None:
        said.append(f"Seen from the runner-up: {following}")
    return said


def nothing_meets(closest: Standing | None, goal: Goal) -> list[str]:
    """What there is to say when no combination meets the budget."""
    budget = f"meets the budget of p{goal.percentile} ≤ {goal.budget_ms:g} ms with" if goal.budget_ms else "keeps up with"
    said = [f"Nothing that was tried {budget} {goal.traffic}."]
    if closest is not None:
        said.append(f"The closest is {closest.candidate}: {closest.words()}.")
        if closest.within() is None:
            said.append("Its spread reaches over the budget, so more time may show that it meets it: cannot tell.")
    return [*said, "Send less at a time (a smaller batch, fewer requests under way), allow more time, or find a faster network or machine."]


def rejected(standings: Sequence[Standing]) -> list[str]:
    """A sentence on the finalists whose whole latency interval lies above the budget; none when there is no such one."""
    names = [f"{each.candidate} ({each.latency_words()})" for each in standings if each.within() is False]
    budget = f"{standings[0].goal.budget_ms:g} ms" if names else ""
    return (
        [f"Rejected in the finals, because their latency is over the budget of {budget} for certain: {'; '.join(names)}."] if names else []
    )


def nobody_left(rows: Sequence[Row]) -> CourseError:
    """The error when no combination could be a winner."""
    memory = [row["memory_mb"] for row in rows if row["outcome"] == OVER_MEMORY]
    if memory:
        return InputError(
            f"Nothing that was tried stays within the memory limit: the least was {min(memory):.0f} MB.",
            "That is the server with the model's instances.",
            "Ask for a larger max_memory_mb.",
        )
    return RequestError("No finalist could be measured a second time.", "", "Look at server.log(), and try again.")


def out_of_the_race(rows: Sequence[Row]) -> list[str]:
    """A sentence on what counted for nothing, and why; none when everything did."""
    bad = [row for row in rows if row["outcome"] != OK]
    names = list(dict.fromkeys(f"{row['candidate']} ({row['outcome']}: {row['reason']})" for row in bad))
    return [f"Out of the race: {'; '.join(names)}."] if names else []


def _ms(value_us: float | None) -> float | None:
    return None if value_us is None else value_us / 1000
