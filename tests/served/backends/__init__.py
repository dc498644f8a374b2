"""Tests of the embedded backends, against the real server."""
