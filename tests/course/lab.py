"""JupyterLab as students start it, and a notebook in it, driven through the page's own application object."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from helpers.terminal import MARK
from tests.support.processes import wait_until

# Seconds against hanging: for JupyterLab to answer or a notebook to be open with an idle kernel, and for the cells of a notebook.
START_S = 300
RUN_S = 600
# Between two looks at the page: one at each of its frames, Playwright's default, keeps a core busy that what is tested needs.
POLLING_MS = 200
# Seconds against hanging until a JupyterLab's servers have gone after it: half a minute on a quiet machine.
GONE_S = 300

# Quiet settings that have nothing to do with the course: no automatic saving in the middle of a test; the time of each cell.
SETTINGS = {"docmanager-extension/plugin": {"autosave": False}, "notebook-extension/tracker": {"recordTiming": True}}
# The notebook that is open, as JavaScript.
_OPEN = "window.jupyterapp.shell.currentWidget"
# Whether the code cells from one index to before another have run and the kernel is idle, or a cell failed that was not meant to.
_DONE_JS = f"""([first, end]) => {{
  if ({_OPEN}.sessionContext.session.kernel.status !== 'idle') return false;
  const all = {_OPEN}.content.model.sharedModel.cells.map(cell => cell.toJSON());
  const cells = all.slice(first, end).filter(cell => cell.cell_type === 'code');
  const meant = cell => (cell.metadata.tags ?? []).includes('raises-exception');
  if (cells.some(cell => !meant(cell) && cell.outputs.some(output => output.output_type === 'error'))) return true;
  const waiting = [...{_OPEN}.node.querySelectorAll('.jp-InputPrompt')].some(prompt => prompt.innerText.includes('*'));
  return cells.every(cell => cell.execution_count) && !waiting;
}}"""


class Lab:
    """The process behind ``make lab``, with settings, data and work folders of its own.

    Args:
        folder: a temporary folder for all that it writes.
        quick: short measurements; how good they are is asserted where the solutions run.
    """

    def __init__(self, folder: Path, *, quick: bool = True) -> None:
        self.folder = folder
        self.quick = quick
        self.work = folder / "work"
        self.token = secrets.token_hex(16)
        for name, content in SETTINGS.items():
            path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content))
        options = ["--no-browser", "--port=0", "--LabApp.expose_app_in_browser=True"]
        with (folder / "lab.log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "helpers", "lab", *options],
                cwd=folder,
                env=self._environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.url = self._wait_for_url()
        (self._windows,) = (folder / "workspaces").iterdir()
        self._first_windows = self._windows.read_text()

    def forget_windows(self) -> None:
        """Forget which windows and bars are open, so that the next page is that of a student's first day."""
        self._windows.write_text(self._first_windows)

    def _environment(self) -> dict[str, str]:
        """The user's environment, without anything that would let this JupyterLab meet another one."""
        kept = {name: value for name, value in os.environ.items() if name != "SSH_CONNECTION"}
        own = {
            "JUPYTER_CONFIG_DIR": "config",
            "JUPYTER_DATA_DIR": "data",
            "JUPYTER_RUNTIME_DIR": "runtime",
            "JUPYTERLAB_SETTINGS_DIR": "settings",
            "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
            "IPYTHONDIR": "ipython",
            "COURSE_WORK": "work",
        }
        own = {name: str(self.folder / value) for name, value in own.items()}
        course = {"COURSE_QUICK": "1" if self.quick else "0", "COURSE_PRIVATE": "yes"}
        return {**kept, **own, **course, "JUPYTER_TOKEN": self.token}

    def _wait_for_url(self) -> str:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.folder / "lab.log").read_text()
            for state in (self.folder / "runtime").glob("jpserver-*.json"):
                try:
                    url = str(json.loads(state.read_text())["url"])
                    with urllib.request.urlopen(f"{url}api/status?token={self.token}", timeout=5):
                        return url
                except (ValueError, KeyError, urllib.error.URLError, OSError):
                    pass
            time.sleep(0.1)
        raise AssertionError(f"JupyterLab did not answer in {START_S} s:\n{(self.folder / 'lab.log').read_text()}")

    def kill(self) -> None:
        """Kill the JupyterLab process alone, as the out-of-memory killer would: it cannot clean up."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End JupyterLab and its kernels."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()


class Notebook:
    """A notebook open in the page; a page that shows JupyterLab already opens it beside what is there.

    Args:
        page: a Playwright page.
        lab: where it is.
        path: relative to the work folder.
    """

    def __init__(self, page: Any, lab: Lab, path: str) -> None:
        self.page = page
        self.lab = lab
        self.path = path
        page.set_default_timeout(RUN_S * 1000)
        if page.url.startswith(lab.url):
            page.evaluate("async path => { await window.jupyterapp.commands.execute('docmanager:open', {path}); }", path)
        else:
            lab.forget_windows()
            page.goto(f"{lab.url}lab/tree/{path}?token={lab.token}")
        self.wait_until_idle()

    def close(self) -> None:
        """Shut the kernel down and close the notebook without saving, as a student who is done with it."""
        self.page.evaluate(f"async () => {{ const open = {_OPEN}; await open.sessionContext.shutdown(); open.dispose(); }}")

    def wait_until_idle(self) -> None:
        """Wait until the kernel has nothing to do."""
        self.page.wait_for_function(
            """path => {
              const widget = window.jupyterapp?.shell?.currentWidget;
              return widget?.context?.path === path && widget.context.isReady && widget.sessionContext?.session?.kernel?.status === 'idle';
            }""",
            arg=self.path,
            timeout=START_S * 1000,
            polling=POLLING_MS,
        )

    def reload(self) -> None:
        """Reload the page, as F5 does."""
        self.command("docmanager:save")
        self.page.reload()
        self.wait_until_idle()

    def command(self, name: str) -> Any:
        """Run a command of JupyterLab and wait for its result."""
        return self.page.evaluate("name => window.jupyterapp.commands.execute(name)", name)

    def run_up_to(self, index: int) -> None:
        """Run all cells above and this one."""
        self._run_many("notebook:run-all-above", index + 1, (0, index + 1))

    def run_from(self, index: int) -> None:
        """Run this cell and all below."""
        self._run_many("notebook:run-all-below", index, (index, len(self.cells())))

    def _run_many(self, command: str, active: int, span: tuple[int, int]) -> None:
        """Run a command with a cell selected, and wait until the cells from one index to before another are done."""
        self.page.evaluate(
            f"""([active, command]) => {{
              {_OPEN}.content.activeCellIndex = active;
              window.jupyterapp.commands.execute(command);
            }}""",
            [active, command],
        )
        self.page.wait_for_function(_DONE_JS, arg=list(span), timeout=1000 * RUN_S, polling=POLLING_MS)

    def content(self) -> NotebookNode:
        """The notebook as its file would have it, with outputs."""
        # As text, as it would be saved: Playwright turns what is not there into null.
        return nbformat.reads(self.page.evaluate(f"() => JSON.stringify({_OPEN}.context.model.toJSON())"), as_version=4)

    def cells(self) -> list[dict[str, Any]]:
        """The cells as the notebook file would have them, with outputs."""
        return self.page.evaluate("() => window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells.map(c => c.toJSON())")

    def find(self, words: str) -> int:
        """Index of the first code cell that has these words."""
        for index, cell in enumerate(self.cells()):
            if cell["cell_type"] == "code" and words in source_of(cell):
                return index
        raise AssertionError(f"no code cell has {words!r}")

    def starters(self, exercise: str = "") -> list[int]:
        """Indices of the cells in which an exercise is answered, or any."""
        return [
            index
            for index, cell in enumerate(self.cells())
            if "starter" in cell["metadata"].get("tags", []) and exercise in ("", cell["metadata"]["exercise"])
        ]

    def write(self, index: int, source: str) -> None:
        """Replace the text of a cell."""
        self.page.evaluate(
            "([i, text]) => window.jupyterapp.shell.currentWidget.content.widgets[i].model.sharedModel.setSource(text)", [index, source]
        )

    def add(self, source: str) -> int:
        """Add a code cell at the end."""
        return self.page.evaluate(
            """text => {
              const model = window.jupyterapp.shell.currentWidget.content.model.sharedModel;
              model.insertCell(model.cells.length, {cell_type: 'code', source: text});
              return model.cells.length - 1;
            }""",
            source,
        )

    def begin(self, index: int) -> None:
        """Start a cell and do not wait for it."""
        self.page.evaluate(
            "i => { const c = window.jupyterapp.shell.currentWidget.content; c.activeCellIndex = i;"
            " window.jupyterapp.commands.execute('notebook:run-cell'); }",
            index,
        )

    def run(self, index: int) -> str:
        """Run one cell and return what it shows, as plain text."""
        # A kernel may answer what follows an error at once, such as an interrupt, without running it.
        wait_until(lambda: self._ran(index))
        return shown(self.cells()[index])

    def _ran(self, index: int) -> bool:
        return self.page.evaluate(
            """async i => {
              const content = window.jupyterapp.shell.currentWidget.content;
              content.activeCellIndex = i;
              await window.jupyterapp.commands.execute('notebook:run-cell');
              return Boolean(content.widgets[i].model.executionCount);
            }""",
            index,
        )

    def run_well(self, source: str) -> None:
        """Run Python in a new cell at the end; an error there is an error of the test."""
        index = self.add(source)
        said = self.run(index)
        assert not [output for output in self.cells()[index]["outputs"] if output["output_type"] == "error"], said

    def restart_kernel(self) -> None:
        """Restart the kernel and say yes to the question."""
        self.page.evaluate("() => { window.jupyterapp.commands.execute('kernelmenu:restart'); }")
        self.page.locator(".jp-Dialog .jp-mod-accept, .jp-Dialog .jp-mod-warn").last.click()
        self.page.locator(".jp-Dialog").wait_for(state="detached")
        self.wait_until_idle()


def launch(notebook: Notebook) -> int:
    """Run the imports and the launch cell; the pid of the server, as its card says."""
    notebook.run(notebook.find("from helpers import Client"))
    text = notebook.run(notebook.find("launch_server("))
    pid = re.search(r"pid\s+(\d+)", text)
    assert pid, text
    return int(pid[1])


def source_of(cell: dict[str, Any]) -> str:
    """The text of a cell."""
    return "".join(cell["source"])


def shown(cell: dict[str, Any]) -> str:
    """All that a cell shows, as plain text; without the line that says how far a long step is."""
    parts = []
    for output in (output for output in cell["outputs"] if not output.get("metadata", {}).get(MARK)):
        text = output.get("text") or output.get("data", {}).get("text/plain") or output.get("evalue", "")
        parts.append("".join(text))
    return "\n".join(parts)


def processes_of(work: Path) -> list[str]:
    """Command lines of the servers, stubs and supervisors of a work folder, by their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            mine = f"COURSE_WORK={work}".encode() in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if mine and ("tritonserver" in command or "triton_python_backend_stub" in command or "supervisor" in command):
            found.append(f"{entry.name}: {command[:120]}")
    return found
