"""The cheat sheet: the page to print is that of the text, and it is one page of A4."""

from __future__ import annotations

import re
from typing import Any

import pytest

from helpers import paths
from tools import cheat_sheet


def test_the_page_is_that_of_the_text() -> None:
    assert cheat_sheet.page() == paths.read_text(cheat_sheet.PAGE), "type: python -m tools.cheat_sheet"


@pytest.mark.browser
def test_it_prints_on_one_page_of_a4(browser: Any) -> None:
    page = browser.new_page()
    page.goto((paths.root() / "docs" / "cheat_sheet.html").as_uri())
    printed = page.pdf(prefer_css_page_size=True)
    wider = page.evaluate("() => [...document.querySelectorAll('pre, table')].filter(box => box.scrollWidth > box.clientWidth + 1).length")
    page.close()
    assert re.findall(rb"/Count (\d+)", printed) == [b"1"]
    assert wider == 0, "text beyond the edge of a column"
