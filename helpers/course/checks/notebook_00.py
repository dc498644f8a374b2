"""Checkers of notebook 00, Start here."""

from __future__ import annotations

from typing import Any

from helpers.course import judge
from helpers.course.judge import Outcome, checker, correct, not_yet

# Masses that people mix up with the Z boson's, in GeV, rounded: what they are.
_OTHERS = {80: "the W boson", 125: "the Higgs boson", 126: "the Higgs boson", 172: "the top quark", 173: "the top quark"}
_OTHERS |= {3: "the J/psi", 9: "the Upsilon"}


@checker("0.1")
def z_mass(z_mass: Any) -> Outcome:
    """The Z boson's mass in GeV."""
    value = judge.must_be_number("z_mass", z_mass, "a number")
    if value == 91:
        return correct("91 GeV; measured precisely, 91.19 GeV. Now you know how a check looks. The next ones ask your server.")
    if round(value) in _OTHERS:
        return not_yet(f"{judge.plain(value)} GeV is {_OTHERS[round(value)]}.")
    if 91_000 <= value <= 91_300:
        return not_yet(f"{judge.plain(value)} is right in MeV; we asked for GeV.")
    if 91 < value < 91.5:
        return not_yet(f"{judge.plain(value)} is close enough for physics, but we asked for a whole number.")
    return not_yet(f"The value seen is {judge.plain(value)}. The Z boson is {'lighter' if value > 91 else 'heavier'}.")


@checker("0.2")
def three_requests(server: Any, before: Any) -> Outcome:
    """The server answered exactly three requests since ``before``."""
    seen = judge.rise(server, before, "add_sub")
    if seen == 3:
        return correct("The server's own counter rose by 3. It was really you, and it was really three.")
    if seen == 0:
        return not_yet("The server has answered no request since `before`. Send three in the cell above, below its first line.")
    return not_yet(f"The counter rose by {judge.plain(seen)}, not by 3. Run the whole cell again, so that `before` is read again, too.")
