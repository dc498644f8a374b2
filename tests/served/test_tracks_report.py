"""``python -m helpers infer -m ExaTrk`` on a real server, and the times by stage."""

from __future__ import annotations

import subprocess
import sys

import pytest

from helpers import settings
from helpers.errors import InputError
from helpers.metrics import scrape
from helpers.physics.tracks import stage_times
from helpers.server import Server
from tests.support.processes import PATIENCE_S


@pytest.mark.slow
@pytest.mark.parametrize(("model", "protocol"), [("ExaTrk", "grpc"), ("ExaTrk_bls", "http")])
def test_the_command_prints_hits_tracks_and_efficiency(server: Server, model: str, protocol: str):
    url = server.grpc_url if protocol == "grpc" else server.http_url
    command = [sys.executable, "-m", "helpers", "infer", "-m", model, "-u", url, "-p", protocol]
    done = subprocess.run(command, cwd=settings.root(), capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert "3268 hits in, " in done.stdout and " tracks out in " in done.stdout
    assert any(f"efficiency {start}" in done.stdout and " of 145)" in done.stdout for start in ("0.9", "1.0"))
    assert done.stderr == ""


def test_times_need_an_event(server: Server):
    before = scrape(server)
    with pytest.raises(InputError, match="No event passed a stage"):
        stage_times(scrape(server) - before)
