"""``python -m helpers infer``: send one request to a model and print what comes back."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from helpers.cli import options
from helpers.client import Client
from helpers.client.client import Result
from helpers.client.endpoint import parse_address
from helpers.errors import InputError
from helpers.server.connection import at
from helpers.tables import as_text

# Numbers of a tensor that are printed before it is cut short.
_SHOWN = 6


def infer(args: argparse.Namespace) -> int:
    """Send the request, print inputs and outputs, check those of add_sub; 1 when they are not what NumPy says, else 0."""
    server = at(_url(args.url, args.protocol), args.protocol, options.access(args))
    with Client(server, args.protocol, timeout_s=args.timeout) as client:
        if args.batch < 1:
            raise InputError(f"--batch {args.batch} was given.", "Expected 1 or more.")
        inputs = _example(client, args.model, args.batch) | dict(_from_file(text) for text in args.input)
        adds = set(inputs) == {"INPUT0", "INPUT1"} and all(array.dtype.kind == "f" for array in inputs.values())
        if adds and not args.input:
            # Small whole numbers can be checked by eye.
            inputs = {"INPUT0": np.arange(16, dtype=np.float32), "INPUT1": np.ones(16, dtype=np.float32)}
        result = client.infer(args.model, inputs)
        print(f"Model {result.model}, version {result.version}, at {client.address} over {'gRPC' if client.protocol == 'grpc' else 'HTTP'}")
        if adds and set(result) == {"OUTPUT0", "OUTPUT1"}:
            return _print_sums(inputs, result)
        print(as_text([_row("input", *item) for item in inputs.items()] + [_row("output", *item) for item in result.items()]))
        return 0


def _example(client: Client, model: str, batch: int) -> dict[str, np.ndarray]:
    """Made-up inputs; for DeepTau taus of the course, and for the track finder an event, since it refuses hits that lie where none can."""
    inputs: dict[str, np.ndarray] = client.example(model, batch)
    # What reads a sample takes long to import, and no other model needs it here.
    if set(inputs) == {"FEATURES"}:
        from helpers.physics.tracks import load_events

        return {"FEATURES": load_events()[0].features}
    if "input_tau" in inputs:
        from helpers.physics import taus

        sample = taus.read()
        return taus.tensors(sample.take(np.arange(batch) % len(sample)))
    return inputs


def _url(url: str | None, protocol: str | None) -> str:
    over_http = protocol == "http" or (protocol is None and (url or "").startswith("http"))
    address = parse_address(url or "localhost", options.HTTP if over_http else options.GRPC)
    return f"{address.scheme}://{address}" if address.scheme else str(address)


def _from_file(text: str) -> tuple[str, np.ndarray]:
    name, equals, file = text.partition("=")
    if not equals or not name or not file:
        raise InputError(f"--input {text} was given.", "Expected NAME=FILE.npy.", "Type for example: --input INPUT0=x.npy")
    try:
        return name, np.load(Path(file).expanduser(), allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"The file {file} cannot be read as an array: {error}.",
            "Expected what np.save writes.",
            f'Type in Python: np.save("{file}", x)',
        ) from error


def _print_sums(inputs: dict[str, np.ndarray], result: Result) -> int:
    x, y, total, difference = inputs["INPUT0"], inputs["INPUT1"], result["OUTPUT0"], result["OUTPUT1"]
    names = ("INPUT0", "INPUT1", "OUTPUT0 (sum)", "OUTPUT1 (difference)")
    lines = zip(*(map(float, column.reshape(-1)) for column in (x, y, total, difference)), strict=True)
    print(as_text([dict(zip(names, line, strict=True)) for line in lines]))
    checks = {"sum": (total, x + y), "difference": (difference, x - y)}
    wrong = [name for name, (got, expected) in checks.items() if not np.array_equal(got, expected, equal_nan=True)]
    if wrong:
        print(f"NOT equal to what NumPy says: {' and '.join(wrong)}. Is this the course's add_sub?")
        return 1
    print("Sum and difference are equal to what NumPy says.")
    return 0


def _row(kind: str, name: str, array: np.ndarray) -> dict[str, Any]:
    flat = array.reshape(-1)
    words = [
        item.decode("utf-8", "replace") if isinstance(item, bytes) else f"{item:.4g}" if array.dtype.kind == "f" else str(item)
        for item in flat[:_SHOWN]
    ]
    values = ", ".join(words) + (", …" if flat.size > _SHOWN else "")
    dtype = "bytes" if array.dtype == object else array.dtype.name
    return {"": kind, "name": name, "dtype": dtype, "shape": str(array.shape), "values": values}
