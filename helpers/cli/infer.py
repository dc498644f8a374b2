"""``python -m helpers infer``: send one request to a model and print what comes back."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from helpers import settings, track_report
from helpers.cli import access_options
from helpers.client import Client
from helpers.client.address import Address, parse_address
from helpers.client.answers import Result
from helpers.errors import InputError
from helpers.physics.jets import is_tagger
from helpers.remote import at
from helpers.tables import as_text

# Numbers of a tensor that are printed before it is cut short.
_SHOWN = 6


def infer_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the arguments."""
    parser.add_argument("-m", "--model", required=True, help="name of the model, such as add_sub")
    parser.add_argument(
        "-u", "--url", help=f"address, by default localhost:{settings.BASE_PORT + 1} for grpc, localhost:{settings.BASE_PORT} for http"
    )
    parser.add_argument("-p", "--protocol", choices=("grpc", "http"), help="grpc (the default), or http")
    parser.add_argument(
        "-i", "--input", action="append", default=[], metavar="NAME=FILE.npy", help="an input from a NumPy file; made-up ones by default"
    )
    parser.add_argument("-b", "--batch", type=int, default=1, help="entries in the batch of made-up inputs (default 1)")
    parser.add_argument("-c", "--classes", type=int, default=0, metavar="K", help="print the K best classes with their labels")
    parser.add_argument(
        "-t", "--timeout", type=float, default=settings.REQUEST_TIMEOUT_S, metavar="S", help="seconds to wait for the answer"
    )
    access_options.add_arguments(parser)


def infer(args: argparse.Namespace) -> int:
    """Send the request, print inputs and outputs, check them where it is known what they should be.

    Returns:
        0, or 1 when the answer is not what NumPy says.

    Raises:
        CourseError: the request came to no answer.
    """
    server = at(_url(args.url, args.protocol), args.protocol, access_options.access(args))
    with Client(server, args.protocol, timeout_s=args.timeout) as client:
        if args.batch < 1:
            raise InputError(f"--batch {args.batch} was given.", "Expected 1 or more.")
        if args.model in track_report.MODELS and not args.input:
            # Made-up hits lie on no tracks: an event of the course does.
            print(track_report.report(client, args.model))
            return 0
        if not args.input and is_tagger(client.metadata(args.model)):
            # A network says nothing about made-up jets: real ones of the course have a truth to compare with.
            from helpers import jet_report  # awkward and uproot take a second to import

            print(jet_report.report(client, args.model, **{name: n for name, n in _asked(args).items() if n}))
            return 0
        inputs = client.example(args.model, args.batch) | dict(_from_file(text) for text in args.input)
        if _adds(inputs) and not args.input:
            # Small whole numbers can be checked by eye.
            inputs = {"INPUT0": np.arange(16, dtype=np.float32), "INPUT1": np.ones(16, dtype=np.float32)}
        result = client.infer(args.model, inputs, classes=args.classes)
        print(f"Model {result.model}, version {result.version}, at {client.address} over {'gRPC' if client.protocol == 'grpc' else 'HTTP'}")
        return _print_sums(inputs, result) if _adds(inputs) and _adds_out(result) else _print_tensors(inputs, result)


def _asked(args: argparse.Namespace) -> dict[str, int]:
    return {"n_jets": args.batch if args.batch > 1 else 0, "classes": args.classes}


def _url(url: str | None, protocol: str | None) -> str:
    port = settings.BASE_PORT if protocol == "http" or (protocol is None and url and url.startswith("http")) else settings.BASE_PORT + 1
    address: Address = parse_address(url or "localhost", port)
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


def _adds(inputs: dict[str, np.ndarray]) -> bool:
    return set(inputs) == {"INPUT0", "INPUT1"} and all(array.dtype.kind == "f" for array in inputs.values())


def _adds_out(result: Result) -> bool:
    return set(result) == {"OUTPUT0", "OUTPUT1"} and all(isinstance(value, np.ndarray) for value in result.values())


def _print_sums(inputs: dict[str, np.ndarray], result: Result) -> int:
    columns = [inputs["INPUT0"], inputs["INPUT1"], result["OUTPUT0"], result["OUTPUT1"]]
    names = ("INPUT0", "INPUT1", "OUTPUT0 (sum)", "OUTPUT1 (difference)")
    print(
        as_text(
            [
                dict(zip(names, map(float, numbers), strict=True))
                for numbers in zip(*(column.reshape(-1) for column in columns), strict=True)
            ]
        )
    )
    wrong = [
        text
        for text, got, expected in (("sum", columns[2], columns[0] + columns[1]), ("difference", columns[3], columns[0] - columns[1]))
        if got.shape != expected.shape or not np.array_equal(got, expected, equal_nan=True)
    ]
    if wrong:
        print(f"NOT equal to what NumPy says: {' and '.join(wrong)}. Is this the course's add_sub?")
        return 1
    print("Sum and difference are equal to what NumPy says.")
    return 0


def _print_tensors(inputs: dict[str, np.ndarray], result: Result) -> int:
    rows = [_row("input", name, array) for name, array in inputs.items()]
    rows += [_row("output", name, value) for name, value in result.items() if isinstance(value, np.ndarray)]
    print(as_text(rows))
    for name, value in result.items():
        if not isinstance(value, np.ndarray):
            _print_classes(name, value)
    return 0


def _row(kind: str, name: str, array: np.ndarray) -> dict[str, Any]:
    flat = array.reshape(-1)
    shown = [
        item.decode("utf-8", "replace") if isinstance(item, bytes) else f"{item:.4g}" if array.dtype.kind == "f" else str(item)
        for item in flat[:_SHOWN]
    ]
    dtype = "bytes" if array.dtype == object else array.dtype.name
    return {
        "": kind,
        "name": name,
        "dtype": dtype,
        "shape": str(array.shape),
        "values": ", ".join(shown) + (", …" if flat.size > _SHOWN else ""),
    }


def _print_classes(name: str, value: list[Any]) -> None:
    entries = value if value and isinstance(value[0], list) else [value]
    rows = [
        {"entry": number, "rank": rank, "class": entry.label or str(entry.index), "index": entry.index, "score": entry.score}
        for number, ranked in enumerate(entries)
        for rank, entry in enumerate(ranked, 1)
    ]
    print(f"\nOutput {name}, best classes:")
    print(as_text(rows))
