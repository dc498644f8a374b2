"""The doctor's trial: a real server with ``add_sub``, a request over each protocol, checked against the sum made here."""

from __future__ import annotations

import time

from helpers import preflight
from helpers.errors import CourseError
from helpers.finding import GOOD, MEND, NOTE, Finding

_SUBJECT = "Trial"


def one_request() -> Finding:
    """Launch a server, ask it, stop it."""
    if preflight.embedded_obstacle():
        return Finding(_SUBJECT, NOTE, "not tried: the embedded server cannot run here")
    try:
        import numpy as np

        from helpers.client import Client
        from helpers.launch import launch_server
    except ModuleNotFoundError as error:
        return Finding(
            _SUBJECT,
            MEND,
            f"not tried: {error.name} is not installed for this Python",
            "make setup && .venv/bin/python -m helpers doctor --full",
        )
    began = time.monotonic()
    x, y = np.arange(16, dtype=np.float32), np.ones(16, dtype=np.float32)
    try:
        with launch_server("models", load=["add_sub"], name="doctor") as server:
            ready_s = time.monotonic() - began
            for protocol in ("grpc", "http"):
                with Client(server, protocol) as client:
                    answer = client.infer("add_sub", INPUT0=x, INPUT1=y)
                if not np.array_equal(answer["OUTPUT0"], x + y):
                    return Finding(
                        _SUBJECT,
                        MEND,
                        f"over {protocol} the server said that {x} + {y} = {answer['OUTPUT0']}",
                        "python -m helpers install-server",
                    )
    except CourseError as error:
        return Finding(_SUBJECT, MEND, str(error))
    return Finding(_SUBJECT, GOOD, f"a server with add_sub was READY after {ready_s:.1f} s and added right over gRPC and HTTP")
