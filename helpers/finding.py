"""One thing that the doctor looked at, and what came of it.

``GOOD`` and ``NOTE`` do not stand in the way; ``MEND`` a student can put right, with the line to type; for ``ADMINISTRATOR``
it takes somebody with more rights.
"""

from __future__ import annotations

from dataclasses import dataclass

GOOD, NOTE, MEND, ADMINISTRATOR = "good", "note", "mend", "administrator"


@dataclass(frozen=True)
class Finding:
    """One thing that the doctor looked at.

    Attributes:
        subject: what was looked at.
        state: ``good``, ``note``, ``mend`` or ``administrator``.
        found: what was seen.
        todo: what to type or to ask for.
    """

    subject: str
    state: str
    found: str
    todo: str = ""
