"""Is this machine ready for the course, and if not, what to type.

Works before anything is installed (standard library only) and prints nothing that must not be shown to others, so that a
student can paste the report into a chat.

Typical use::

    from helpers import doctor
    doctor.report()                                     # a table in a notebook, text in a terminal
    doctor.report(full=True)                            # launches a server and sends a request, too
"""

from __future__ import annotations

import datetime
import getpass
import html as escaping
import re
from dataclasses import dataclass, field
from pathlib import Path

import helpers
from helpers import examinations
from helpers.finding import ADMINISTRATOR, GOOD, MEND, NOTE, Finding

# Words beside the symbols, so that the state can be read without colour.
_MARKS = {GOOD: "✔ good", NOTE: "· note", MEND: "✖ mend", ADMINISTRATOR: "✖ administrator"}
_COLOURS = {GOOD: "#2e8540", NOTE: "#767676", MEND: "#d4351c", ADMINISTRATOR: "#d4351c"}


@dataclass(frozen=True)
class Report:
    """What the doctor found.

    Attributes:
        findings: one for each thing looked at.
    """

    findings: tuple[Finding, ...] = field(repr=False)

    @property
    def status(self) -> int:
        """0 ready, 1 you can mend it, 2 ask the administrator of this machine."""
        states = {finding.state for finding in self.findings}
        return 2 if ADMINISTRATOR in states else 1 if MEND in states else 0

    @property
    def verdict(self) -> str:
        """The report in one sentence."""
        wrong = [finding.subject for finding in self.findings if finding.state in (MEND, ADMINISTRATOR)]
        return (
            "Ready.",
            f"Not ready yet, and you can mend it: {', '.join(wrong)}. Type what stands there, then ask the doctor again.",
            f"Not ready: show this report to the administrator of this machine ({', '.join(wrong)}).",
        )[self.status]

    def __repr__(self) -> str:
        lines = [f"Triton course {helpers.__version__}, doctor's report of {datetime.date.today()}"]
        width = max(len(finding.subject) for finding in self.findings)
        for finding in self.findings:
            lines.append(f"{_MARKS[finding.state]:<15} {finding.subject:<{width}}  {finding.found}")
            if finding.todo:
                lines.append(f"{'':<15} {'':<{width}}  -> {finding.todo}")
        return hide("\n".join([*lines, self.verdict]))

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><td style="border-left:5px solid {_COLOURS[finding.state]};text-align:left;white-space:nowrap">'
            f"<b>{_MARKS[finding.state]}</b></td>"
            f'<td style="text-align:left">{escaping.escape(finding.subject)}</td>'
            f'<td style="text-align:left">{escaping.escape(hide(finding.found))}'
            + (f"<br><code>{escaping.escape(hide(finding.todo))}</code>" if finding.todo else "")
            + "</td></tr>"
            for finding in self.findings
        )
        return f"<table>{rows}</table><p><b>{escaping.escape(hide(self.verdict))}</b></p>"


def report(full: bool = False) -> Report:
    """Look at this machine.

    Args:
        full: launch a server with ``add_sub`` and send it a request over both protocols, too (some ten seconds).
    """
    return Report(tuple(examinations.all_of_them(full)))


def hide(text: str) -> str:
    """The text without what others must not read: home folder and user name, keys, passwords in addresses."""
    text = re.sub(r"(?i)\b([\w-]*(?:token|key|secret|passw\w*|credential\w*)[\w-]*)(\s*[=:]\s*)\S+", r"\1\2(hidden)", text)
    text = re.sub(r"(\w+://)[^\s/@]+@", r"\1(hidden)@", text)
    home = str(Path.home())
    if home != "/":
        text = re.sub(rf"(?<![\w.~-]){re.escape(home)}(?=$|[/\s:'\",;)])", "~", text)
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        return text
    return re.sub(rf"(?<=/){re.escape(user)}(?=$|[/\s:'\",;)])", "(user)", text)
