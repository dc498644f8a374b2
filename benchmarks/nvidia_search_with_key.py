"""NVIDIA's Model Analyzer with a header on its calls to the server: it has no option for one, and loading needs the owner's key.

Runs in an environment that has it, not in the course's. The headers are in the variable MODEL_ANALYZER_HEADERS, as JSON; the arguments
are its own.
"""

from __future__ import annotations

import json
import os
from typing import Any

import tritonclient.grpc
from model_analyzer.entrypoint import main
from tritonclient.grpc import InferenceServerClientPlugin


class Key(InferenceServerClientPlugin):
    """Adds the headers to each call."""

    def __call__(self, request: Any) -> None:
        """Called before a call is sent."""
        request.headers = {**(request.headers or {}), **json.loads(os.environ["MODEL_ANALYZER_HEADERS"])}


class KeyedClient(tritonclient.grpc.InferenceServerClient):
    """A client that has the key from the start."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.register_plugin(Key())


if __name__ == "__main__":
    tritonclient.grpc.InferenceServerClient = KeyedClient
    main()
