"""Cells in a real kernel without a notebook around it."""

from __future__ import annotations

import time
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient

from tests.support.processes import PATIENCE_S


def run(client: BlockingKernelClient, code: str) -> str:
    """Run a cell and return what it showed, as text; errors included.

    A kernel may answer what follows an error at once, such as an interrupt, without running it: that is sent again.
    """
    shown: list[str] = []

    def keep(message: dict[str, Any]) -> None:
        content = message["content"]
        # What is displayed, such as how far a long step is, is a line of its own.
        display = f"{content['data']['text/plain']}\n" if "data" in content else ""
        shown.append(content.get("text") or display or "\n".join(content.get("traceback", [])))

    while client.execute_interactive(code, output_hook=keep, timeout=PATIENCE_S, allow_stdin=False)["content"]["status"] == "aborted":
        time.sleep(0.2)
    return "".join(shown)
