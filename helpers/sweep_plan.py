"""What a sweep measures, point by point, checked before anything runs."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from helpers import perf_facts, settings
from helpers.client.client import Connection
from helpers.errors import InputError, ModelError
from helpers.machine import is_loopback
from helpers.perf_command import check_batch, run_for
from helpers.repository.syntax import as_dict, parse
from helpers.wording import quoted

# What makes a point the same as one that was measured before, besides its machine. Not the port: a server launched again is as good.
_SAME = ("model", "protocol", "batch", "concurrency", "percentile", "inputs", "config", "device", "server_version", "perf_analyzer_version")
# Values of a model's configuration that a sweep goes through: what to load, and None for the one that is loaded.
Config = dict[str, Any] | None


@dataclass(frozen=True)
class Setup:
    """A model under one configuration.

    Attributes:
        model: its name.
        label: what the files add to its name; empty for the configuration that is loaded.
        config: what to load; None for the configuration that is loaded.
        shapes: of its inputs, as in the command.
    """

    model: str
    label: str = ""
    config: Config = field(default=None, hash=False)
    shapes: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Point:
    """One measurement of a sweep."""

    setup: Setup
    batch: int
    concurrency: int

    @property
    def weight(self) -> float:
        """How long it takes, in arbitrary units: large batches have long windows."""
        return 1 + self.batch / 40

    def __str__(self) -> str:
        label = f" ({self.setup.label.strip('_')})" if self.setup.label else ""
        return f"{self.setup.model}{label}, batch {self.batch}, concurrency {self.concurrency}"


def plan(
    server: Any,
    models: str | Sequence[str],
    batches: Iterable[int] | None,
    concurrencies: Iterable[int],
    instances: Iterable[int] = (),
    configs: Mapping[str, str | dict[str, Any]] | None = None,
    protocol: str | None = None,
    lengths: int | Mapping[str, int] | None = None,
    input_data: str | Path = "random",
) -> list[Point]:
    """All points, in the order in which they are measured.

    Raises:
        InputError: a batch is above a model's ``max_batch_size``, a shape is unknown, or a number is none.
        ModelError: a model is not loaded, or the configurations of a server that is not ours are to be changed.
        RequestError: the server does not answer.
    """
    names = list(dict.fromkeys([models] if isinstance(models, str) else models))
    loads = _numbers("concurrencies", concurrencies)
    counts = _numbers("instances", instances) if instances else []
    if not names or not loads:
        raise InputError("There is nothing to measure.", "Expected at least one model, one batch size and one concurrency.")
    if (counts or configs) and not getattr(server, "admin_headers", lambda _: {})("http"):
        raise ModelError(
            "Only the owner of a server can sweep over instances or configurations, because models are loaded anew for it.",
            "You are connected to it, but you did not launch it.",
            'Type: server = launch_server("models")',
        )
    points = []
    for model in names:
        sizes = _batches(server, model, batches, protocol)
        # Asks for the shapes as well: better now than after half of the sweep.
        run = run_for(server, model, protocol=protocol, batch=sizes[0], lengths=lengths, input_data=input_data)
        for setup in _setups(server, model, counts, configs or {}):
            points += [Point(replace(setup, shapes=shapes_in(str(run))), batch, load) for load in loads for batch in sizes]
    return points


def _batches(server: Any, model: str, batches: Iterable[int] | None, protocol: str | None) -> list[int]:
    connection = Connection(server, protocol, settings.QUERY_TIMEOUT_S, settings.RETRIES)
    try:
        signature = connection.signature(model)
    finally:
        connection.close()
    if batches is None:
        return [batch for batch in settings.SWEEP_BATCHES if batch <= max(1, signature.max_batch_size)]
    sizes = _numbers("batches", batches)
    too_large = [batch for batch in sizes if batch > max(1, signature.max_batch_size)]
    if len(too_large) > 1:
        limit = f"max_batch_size is {signature.max_batch_size}" if signature.batched else "it takes no batches (max_batch_size is 0)"
        raise InputError(
            f"The batch sizes {quoted(too_large).replace(chr(39), '')} are too large for {model!r}: {limit}.",
            "Nothing was measured.",
            "Leave them out.",
        )
    for batch in too_large or sizes:
        check_batch(signature, batch)
    return sizes


def _numbers(what: str, values: Iterable[int]) -> list[int]:
    numbers = list(dict.fromkeys(values))
    if wrong := [value for value in numbers if not isinstance(value, int) or isinstance(value, bool) or value < 1]:
        raise InputError(f"{what} has {wrong[0]!r}.", "Expected whole numbers, 1 or more.", f"Type for example: {what}=(1, 4)")
    if not numbers:
        raise InputError(f"{what} is empty.", "Expected at least one number.")
    return numbers


def _setups(server: Any, model: str, counts: Sequence[int], configs: Mapping[str, str | dict[str, Any]]) -> list[Setup]:
    base = server.config(model) if counts or configs else None
    named: list[tuple[str, Config]] = [(f"_{name}", _as_config(text, name)) for name, text in configs.items()] or [("", None)]
    if not counts:
        return [Setup(model, label, config) for label, config in named]
    return [
        Setup(model, f"{label}_instances{count}", with_instances(config or base or {}, count))
        for label, config in named
        for count in counts
    ]


def _as_config(given: str | dict[str, Any], name: str) -> dict[str, Any]:
    return dict(given) if isinstance(given, dict) else as_dict(parse(given, f"the configuration {name!r}"))


def with_instances(config: dict[str, Any], count: int) -> dict[str, Any]:
    """The configuration with so many instances, on the same kind of device as before."""
    kinds = [group["kind"] for group in config.get("instance_group", []) if group.get("kind")]
    return {**config, "instance_group": [{**({"kind": kinds[0]} if kinds else {}), "count": count}]}


def shapes_in(command: str) -> frozenset[str]:
    """The shapes that a command names, such as ``pf_mask:1,50``."""
    words = shlex.split(command)
    return frozenset(value for word, value in itertools.pairwise(words) if word == "--shape")


def measured_before(point: Point, rows: Iterable[Mapping[str, Any]], about: Mapping[str, Any]) -> dict[str, Any] | None:
    """The latest row of this very point: same load, inputs, shapes, configuration, machine and versions, and of the same files.

    Args:
        point: what would be measured.
        rows: what was measured.
        about: the other columns that would be in its row, with ``changed``: when the model's files or the inputs changed last, in seconds
            since 1970.
    """
    own = {**about, "model": point.setup.model, "batch": point.batch, "concurrency": point.concurrency}
    same = [row for row in rows if all(row.get(name) == own.get(name) for name in _SAME)]
    same = [row for row in same if shapes_in(row.get("command") or "") == point.setup.shapes and machine_of(row) == machine_of(own)]
    same = [row for row in same if datetime.fromisoformat(row["time"]).timestamp() >= own.get("changed", 0.0)]
    return dict(same[-1]) if same else None


def machine_of(row: Mapping[str, Any]) -> str:
    """The machine of a row: its processor where that is known, else the host of its server; of a tunnel's end, its port as well."""
    url = str(row.get("url") or "")
    host = urlsplit(f"//{url}").hostname or ""
    return str(row.get("cpu") or (url if is_loopback(host) else host))


def last_change(server: Any, model: str, input_data: str | Path) -> float:
    """When the model's files or the file of inputs changed last, in seconds since 1970; 0 where no file is at hand."""
    repository = getattr(server, "repository", None)
    files = [*(repository / model).glob("[0-9]*/*")] if repository is not None else []
    files += [Path(input_data).expanduser()] if str(input_data) not in ("random", "zero") else []
    # The time of a row has whole seconds.
    return max((float(int(path.stat().st_mtime)) for path in files if path.is_file()), default=0.0)


def about(server: Any, model: str, protocol: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the rows of a model will say of server, machine and configuration, and the configuration itself."""
    connection = Connection(server, protocol, settings.QUERY_TIMEOUT_S, settings.RETRIES)
    try:
        known = perf_facts.facts(connection, model)
        return {**known, "protocol": connection.protocol, "url": str(connection.address)}, perf_facts.reported_config(connection, model)
    finally:
        connection.close()
