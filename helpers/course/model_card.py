"""A model card: one page that says what a served network is for, what it is, and what was measured, where and when."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from IPython.display import Markdown

from helpers import machine
from helpers.measuring.experiments import Experiments
from helpers.measuring.table import THROUGHPUT, THROUGHPUT_SPREAD, latency_words, with_spread
from helpers.paths import replace, writing
from helpers.repository.configs import instances_of


def write_card(server: Any, model: str, table: Experiments, physics: Sequence[Mapping[str, Any]] = (), **words: object) -> Markdown:
    """Write the card as ``MODEL_CARD.md`` into the model's folder, and return it for the notebook to show.

    ``physics`` are rows of ``precision.cost``; ``words`` are what only the author knows, such as ``purpose="…"`` and ``limits="…"``.
    """
    parts = [f"# Model card: {model}", *(f"**{name.capitalize()}.** {text}" for name, text in words.items())]
    parts.append(_table("what | is", facts(server, model)))
    parts.append(f"## Speed: {table.rows[0]['concurrency']} under way, 95 of 100 within {table.budget_ms} ms")
    speed = ((r["experiment"], r["model"], with_spread(r[THROUGHPUT], r[THROUGHPUT_SPREAD]), latency_words(r, 95)) for r in table.rows)
    parts.append(_table("requests | model | inferences/s | 95th percentile (ms)", speed))
    changes = ((with_spread(r["auc"], r["auc_uncertainty"]), with_spread(r["auc_change"], r["auc_change_half_width"])) for r in physics)
    areas = ((r["model"], r["discriminant"], *change) for r, change in zip(physics, changes, strict=True))
    parts += ["## Physics", _table("model | discriminant | AUC | change of AUC", areas)] if physics else []
    text = "\n\n".join([*parts, f"Measured on {machine.description()}, {date.today()}.\n"])
    with writing(path := server.repository / model / "MODEL_CARD.md"):
        replace(path, text)
    return Markdown(text)  # type: ignore[no-untyped-call]


def facts(server: Any, model: str) -> list[tuple[str, str]]:
    """Return what is true of a served model now: its file, tensors and settings, as the live server reports them."""
    config, about = server.config(model), server.metadata(model)
    file = server.repository / model / max(about["versions"], key=int) / config["default_model_filename"]
    digest = hashlib.sha256(content := file.read_bytes()).hexdigest()[:16]
    tensors = [(role, f"`{t['name']}` {t['datatype']} {t['shape']}") for role in ("input", "output") for t in about[f"{role}s"]]
    own = ", batches by the server" * ("dynamic_batching" in config)
    settings = f"up to {config['max_batch_size']} in a request, {instances_of(config)} instance(s){own}"
    served = f"`{config['backend']}` of Triton {server.metadata()['version']}"
    return [("file", f"`{file.name}`, {len(content):,} bytes, SHA-256 `{digest}…`"), *tensors, ("settings", settings), ("server", served)]


def _table(head: str, rows: Iterable[Sequence[object]]) -> str:
    lines = [head, " | ".join("---" for _ in head.split("|")), *(" | ".join(map(str, row)) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines)
