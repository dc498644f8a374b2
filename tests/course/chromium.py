"""The Chromium of this machine."""

from __future__ import annotations

import shutil

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str | None:
    """Its path; None where there is none."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)
