"""``python -m helpers infer``: send one request to a model and print what comes back."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from helpers.cli.tools import access
from helpers.client import Client
from helpers.client.endpoint import parse_address
from helpers.server.connection import at
from helpers.tables import as_text

# Numbers of a tensor that are printed before it is cut short.
_SHOWN = 6


def infer(args: argparse.Namespace) -> int:
    """Send the request, and print inputs and outputs."""
    over_http = args.protocol == "http" or (args.protocol is None and (args.url or "").startswith("http"))
    address = parse_address(args.url or "localhost", 9000 if over_http else 9001)
    url = f"{address.scheme}://{address}" if address.scheme else str(address)
    with Client(at(url, args.protocol, access(args)), args.protocol) as client:
        inputs = _example(client, args.model, args.batch)
        result = client.infer(args.model, inputs)
        print(f"Model {result.model}, version {result.version}, at {client.address} over {'gRPC' if client.protocol == 'grpc' else 'HTTP'}")
        print(as_text([_row("input", *item) for item in inputs.items()] + [_row("output", *item) for item in result.items()]))
    return 0


def _example(client: Client, model: str, batch: int) -> dict[str, np.ndarray]:
    """Made-up inputs; for DeepTau taus of the course, and for the track finder an event, since it refuses hits that lie where none can."""
    if model == "add_sub":
        # Small whole numbers can be checked by eye.
        return {"INPUT0": np.arange(16, dtype=np.float32), "INPUT1": np.ones(16, dtype=np.float32)}
    inputs: dict[str, np.ndarray] = client.example(model, batch)
    if "FEATURES" in inputs:
        from helpers.physics.tracks import load_events  # half a second, which no other model needs

        return {"FEATURES": load_events()[0].features}
    if "input_tau" in inputs:
        from helpers.physics import taus

        return taus.tensors(taus.read().take(range(batch)))
    return inputs


def _row(kind: str, name: str, array: np.ndarray) -> dict[str, Any]:
    items = array.reshape(-1)[:_SHOWN].tolist()
    if array.dtype == object:
        words = [each.decode("utf-8", "replace") for each in items]
    else:
        words = [f"{each:.4g}" if isinstance(each, float) else str(each) for each in items]
    values = ", ".join(words) + (", …" if array.size > _SHOWN else "")
    dtype = "bytes" if array.dtype == object else array.dtype.name
    return {"": kind, "name": name, "dtype": dtype, "shape": str(array.shape), "values": values}
