"""Rows of measurements: the columns and their units, pandas tables that show what most people want to see, and what others measured.

A Row is a pandas Series, Rows are a DataFrame, and a file of them has JSON lines, which ``pandas.read_json(path, lines=True)`` takes, too.
What others measured is in ``notebooks/data``, never without its source; ``make test-gpu`` on a machine with a GPU adds to ``work/gpu``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from helpers.errors import InputError, quoted
from helpers.paths import read_lines, root, work_dir
from helpers.tables import as_html, as_text, cell, without_empty

THROUGHPUT, THROUGHPUT_SPREAD = "throughput_infer_per_s", "throughput_spread_infer_per_s"
# The latency that is looked at, and the ends of its 95 % interval; None for one that is not known.
LATENCY, LATENCY_ENDS = "latency_p95_us", ("latency_low_us", "latency_high_us")
# The parts of a request's latency, in the order in which they pass. Their sum is its mean.
PARTS = ("client_send_us", "network_us", "queue_us", "compute_input_us", "compute_infer_us", "compute_output_us", "client_recv_us")
# Every column of a measured row, in order. The throughput's spread is the half width of a 95 % interval. Intervals hold while the row was
# measured, and do not know what the machine does a minute later. `shapes` and `inputs_digest` say what was sent; see `Run.sent`.
COLUMNS = (
    *("model", "url", "protocol", "batch", "concurrency", "request_rate_per_s", THROUGHPUT, THROUGHPUT_SPREAD),
    *("latency_avg_us", "latency_p50_us", "latency_p90_us", LATENCY, "latency_p99_us", *LATENCY_ENDS),
    *PARTS,
    *("requests", "windows", "stable", "note", "inputs", "shapes", "inputs_digest", "source", "device", "cpu"),
    *("server_version", "perf_analyzer_version", "time", "command", "instances", "config"),
)
MEASURED = "measured"
_WHOLE = frozenset(("batch", "concurrency", "requests", "windows", "instances", "servers", "threads", "rounds"))
# Columns that a short table shows where rows differ in them.
_VARIED = ("experiment", "model", "variant", "device", "inputs", "servers", "instances", "concurrency", "request_rate_per_s")
# What makers write around the name of a processor makes a heading too long.
_AROUND = re.compile(r"\((?:R|TM)\)|\s*@ [\d.]+ ?GHz|\s+(?:CPU|(?:\d+-Core )?Processor)\b")


class Row(pd.Series):  # type: ignore[misc]  # pandas tells no types
    """One measured row; shows itself as a table of one."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Row:
        """Return values by column as a row; what is missing stays None."""
        return cls(dict(values), dtype=object)

    def __repr__(self) -> str:
        return repr(Rows.of([self]))

    def _repr_html_(self) -> str:
        return Rows.of([self])._repr_html_()


class Rows(pd.DataFrame):  # type: ignore[misc]  # pandas tells no types
    """Measured rows, which show what most people want to see. What pandas makes of them, as ``query``, shows all columns."""

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]], caption: str = "", **attributes: Any) -> Rows:
        """Return rows, by column, as a table with a sentence above it; the attributes are kept in ``.attrs``."""
        listed = [dict(row) for row in rows]
        made = cls(listed, columns=list(dict.fromkeys([*COLUMNS, *(name for row in listed for name in row)])))
        numbers = [name for name in made.columns if name.endswith(("_us", "_per_s"))]
        made[numbers] = made[numbers].astype(float)
        made.attrs.update(attributes, caption=caption)
        return made

    def _short(self) -> list[dict[str, Any]]:
        rows = rows_of(self) if len(self) else []
        varied = [name for name in _VARIED if len({str(row.get(name)) for row in rows}) > 1]
        short = []
        for row in rows:
            rate = with_spread(row[THROUGHPUT], row.get(THROUGHPUT_SPREAD))
            seen = {"inferences/s": rate, "p50 (ms)": latency_words(row, 50), "p95 (ms)": latency_words(row)}
            stable = "" if row.get("stable") is None else "yes" if row["stable"] else "no"
            short.append({**{name: row.get(name) for name in ("model", *varied, "batch")}, **seen, "stable": stable})
        return without_empty(short)

    def __repr__(self) -> str:
        return "\n".join(filter(None, [self.attrs["caption"], as_text(self._short())]))

    def _repr_html_(self) -> str:
        return as_html(self._short(), caption=self.attrs["caption"])


def with_spread(value: float | None, half: float | None) -> str:
    """Return a number and its half width as text, with the digits that the half width allows."""
    if value is None or not half:
        return cell(value)
    digits = _digits(half)
    return f"{value:.{digits}f} ± {half:.{digits}f}"


def latency_words(row: Any, percentile: int = 95) -> str:
    """Return a latency percentile in ms, the 95th with its interval: ``18.2 (16.9–not known)``."""
    value = row.get(f"latency_p{percentile}_us")
    ends = [row.get(end) for end in LATENCY_ENDS] if percentile == 95 else []
    known = [end for end in ends if end is not None]
    if value is None or not known:
        return cell(value and value / 1000)
    digits = _digits(max(abs(end - value) for end in known) / 1000 or 1.0)
    low, high = ("not known" if end is None else f"{end / 1000:.{digits}f}" for end in ends)
    return f"{value / 1000:.{digits}f} ({low}–{high})"


def _digits(half: float) -> int:
    """How many digits behind the point a half width allows."""
    return max(0, 1 - math.floor(math.log10(half)))


def plain(row: Mapping[str, Any] | pd.Series) -> dict[str, Any]:
    """Return a row as a dictionary of Python's own values, with None where a value is missing."""
    return {str(name): _plain(str(name), value) for name, value in row.items()}


def _plain(name: str, value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return "" if name == "note" else None
    return int(value) if name in _WHOLE and isinstance(value, float) and value.is_integer() else value


def rows_of(rows: Any, needs: Sequence[str] = (), what: str = "this figure") -> list[dict[str, Any]]:
    """Return the rows of a table, of one measurement, of a list of both, or of something with ``.rows``, as dictionaries.

    An InputError says ``what`` they are for, where there is no row, something else, or no value in a column that it needs.
    """
    listed = [plain(row) for row in _flat(rows, what)]
    if not listed:
        raise InputError("There is not one row to draw or to compare.", f"Expected at least one measured row for {what}.")
    if missing := [name for name in needs if all(row.get(name) is None for row in listed)]:
        raise InputError(f"No row has a value for {quoted(missing)}, and {what} needs it.")
    return listed


def _flat(rows: Any, what: str) -> list[Any]:
    rows = getattr(rows, "rows", rows)
    if isinstance(rows, pd.DataFrame):
        return [row for _, row in rows.astype(object).iterrows()]
    if isinstance(rows, (Mapping, pd.Series)):
        return [rows]
    if isinstance(rows, str) or not isinstance(rows, Iterable):
        expected = f"Expected measured rows for {what}: what measure(...) or sweep(...) returned, or recorded(...)."
        raise InputError(f"A row is something of type {type(rows).__name__}.", expected)
    return [row for each in rows for row in _flat(each, what)]


def is_recorded(row: Any) -> bool:
    """True if a row was measured by others, or on another machine."""
    return str(row.get("source") or MEASURED) != MEASURED


def hardware(row: Any) -> str:
    """Return the device of a row, with the processor's name where it is a CPU."""
    device, cpu = row.get("device") or "", _AROUND.sub("", row.get("cpu") or "").strip()
    return f"CPU: {cpu}" if cpu and device in ("", "CPU") else device or "device not known"


def recorded(device: str = "", model: str = "", variant: str = "") -> Rows:
    """Return figures by others, and by this course, as rows that say in ``source`` who measured them and in ``device`` on what.

    ``device`` is a part of its name, such as ``"P100"``, ``"T4"``, ``"A100"`` or ``"CPU"``. The ``variant``, such as ``"ONNX"``, tells
    apart what the model's name does not. All by default.
    """
    data = root() / "notebooks" / "data"
    empty = dict.fromkeys((*COLUMNS, "variant"))
    groups = json.loads((data / "recorded.json").read_text(encoding="utf-8"))
    everything = [empty | group["common"] | point for group in groups for point in group["points"]]
    files = {path.name: path for folder in (data, work_dir() / "gpu") for path in sorted(folder.glob("recorded_*.jsonl"))}
    everything += [empty | row | {"variant": ""} for path in files.values() for row in read_lines(path)]
    of_device = [row for row in everything if device.casefold() in row["device"].casefold()]
    rows = [row for row in of_device if model in ("", row["model"]) and variant in ("", row["variant"])]
    if not rows:
        there = quoted(sorted({f"{row['model']} on {row['device']}" for row in everything}))
        raise InputError(f"There is no recorded figure for {quoted(filter(None, (device, model, variant)))}.", f"There are: {there}.")
    # Who measured, and on what.
    words = dict.fromkeys(f"{row['source'][0].upper()}{row['source'][1:]}; {hardware(row)}." for row in rows)
    return Rows.of(rows, " ".join(words))
