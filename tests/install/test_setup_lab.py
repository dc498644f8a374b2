"""``make lab`` to its end: JupyterLab on this machine only, with a token, on the first notebook; and the demo."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.physics import tracks
from tests.support import ROOT
from tests.support.course_copy import base_python, link_course, run
from tests.support.processes import PATIENCE_S


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """JupyterLab as make starts it; gives its address and its token."""
    environment = {**os.environ, "COURSE_WORK": str(tmp_path / "work"), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    command = [str(base_python()), "helpers/setup/bootstrap.py", "--dev", "--", "-m", "helpers", "lab", "--no-browser", "--port=8950"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines: list[str] = []
    reader = threading.Thread(target=lambda: lines.extend(process.stdout), daemon=True)
    reader.start()
    try:
        deadline, address = time.monotonic() + PATIENCE_S, None
        while not address:
            assert time.monotonic() < deadline, "".join(lines)
            assert process.poll() is None, "".join(lines)
            address = re.search(r"(http://\S+?)/lab/tree/(\S+)\?token=(\w+)", "".join(lines))
            time.sleep(0.1)
        assert address[2] == "notebooks/00_start_here.ipynb"
        yield address[1], address[3]
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)
        reader.join(PATIENCE_S)
        process.stdout.close()


def ask(address: str, path: str, token: str = "") -> dict:
    headers = {"Authorization": f"token {token}"} if token else {}
    with urllib.request.urlopen(urllib.request.Request(f"{address}{path}", headers=headers), timeout=PATIENCE_S) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_lab_opens_on_the_first_notebook(lab: tuple[str, str], tmp_path: Path) -> None:
    address, token = lab
    assert address.startswith("http://127.0.0.1:")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        ask(address, "/api/contents")
    notebook = ask(address, "/api/contents/notebooks/00_start_here.ipynb", token)
    assert notebook["type"] == "notebook"
    assert notebook["writable"]
    assert (tmp_path / "work" / "notebooks" / "03_run_inference.ipynb").exists()
    # No pop-up that asks about news.
    setting = ask(address, "/lab/api/settings/@jupyterlab/apputils-extension:notification", token)
    assert setting["schema"]["properties"]["fetchNews"]["default"] == "false"


@pytest.mark.slow
@pytest.mark.parametrize(
    "models",
    [
        pytest.param(("add_sub", "particlenet_AK4", "particlenet_AK4_PT", "ExaTrk", *tracks.STAGES), id="a model of each kind"),
        pytest.param((), id="all", marks=pytest.mark.nightly),
    ],
)
def test_demo_leaves_a_page_that_begins_with_what_it_found(tmp_path: Path, models: tuple[str, ...]) -> None:
    course = link_course(tmp_path / "course", *models)
    folders = {"COURSE_ROOT": str(course), "COURSE_WORK": str(tmp_path / "work")}
    done = run([sys.executable, "-m", "tools.site", "--demo"], ROOT, COURSE_QUICK="1", **folders)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "work" / "demo"
    said = done.stdout.splitlines()
    assert said[-1].endswith(f"Open {folder / 'index.html'}")
    page = (folder / "index.html").read_text()
    # It can be sent to somebody: nothing in it comes from elsewhere.
    assert page.count('src="data:image/png;base64,') >= 1 and not re.search(r'(src|href)="(?!data:)', page)
    text = re.sub(r"<style.*?</style>|<[^>]+>", " ", page, flags=re.DOTALL)
    found = re.search(r"(\d+) of (\d+) models were READY after \d+ s", text)
    assert found and found[1] == found[2]
    requests = re.search(r"(\d+) requests were answered over gRPC and HTTP, and the server's own counters agree", text)
    assert requests and int(requests[1]) >= 40 * (int(found[1]) - len(tracks.STAGES)), "and ExaTrk asked its stages"
    assert "p95_ms" in text and "Means per request, in µs." in text
    rates = re.findall(r"particlenet_AK4(?:_PT)? +tags (\d+) ± (\d+) jets/s", text)
    assert len(rates) == 2 and all(int(rate) > 0 for rate, _ in rates)
    # The title has these two words as well; the card is where they stand last.
    assert page.index("models were READY") < page.index("<img") < page.rindex("Triton server")
    assert "import pandas" not in page, "the page is for those who look, not for those who read code"
