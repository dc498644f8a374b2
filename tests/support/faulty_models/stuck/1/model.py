"""Waits for what never comes."""

import threading


class TritonPythonModel:
    """One instance of the model."""

    def execute(self, requests):
        """Never return."""
        threading.Event().wait()
