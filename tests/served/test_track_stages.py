"""The times of the track finder by stage."""

from __future__ import annotations

import pytest

from helpers.errors import InputError
from helpers.metrics import scrape
from helpers.physics.tracks import stage_times
from helpers.server import Server


def test_times_need_an_event(server: Server):
    before = scrape(server)
    with pytest.raises(InputError, match="No event passed a stage"):
        stage_times(scrape(server) - before)
