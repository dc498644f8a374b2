"""The cheat sheet as a page to print: ``python -m tools.cheat_sheet`` after a change of its text."""

from __future__ import annotations

import mistune

from helpers import paths

PAGE = paths.root() / "docs" / "cheat_sheet.html"
# One side of A4 in two columns; what a heading begins stays together.
_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Triton on one page</title><style>
@page {{ size: A4; margin: 9mm }}
body {{ font: 8pt/1.22 system-ui, sans-serif; color: #000; background: #fff; max-width: 192mm; margin: auto;
columns: 2; column-gap: 6mm }}
h1 {{ font-size: 15pt; margin: 0 }} h2 {{ font-size: 10.5pt; margin: .7em 0 .2em; border-bottom: 1px solid #000; break-after: avoid }}
p, ol, pre, table {{ margin: .25em 0 }} ol {{ padding-left: 1.5em }} a {{ color: inherit }}
table {{ border-collapse: collapse; width: 100%; break-inside: avoid }} td, th {{ padding: .1em .5em .1em 0; text-align: left;
vertical-align: top; border-bottom: 1px solid #bbb }} code, pre {{ font: 7.1pt/1.22 monospace; overflow-wrap: anywhere }}
h2 code {{ font-size: 10pt }} pre {{ white-space: pre-wrap; background: #f3f3f3; padding: .4em; break-inside: avoid; font-size: 6.8pt }}
</style></head><body>
{text}</body></html>
"""


def page() -> str:
    """Return the text of ``docs/cheat_sheet.md`` as a page of HTML."""
    text = paths.read_text(PAGE.with_suffix(".md"))
    return _PAGE.format(text=mistune.create_markdown(plugins=["table"])(text))


if __name__ == "__main__":
    paths.replace(PAGE, page())
