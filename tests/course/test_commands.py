"""Every command that README, INSTRUCTORS, containers/README and docs tell people to type is run as it stands, or stands below with why not.

All that ask a server share the one that ``python -m helpers serve`` launches. Where the ports that a page names are another program's, its
card says which it took instead, and the commands are typed with these, as a reader would.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers.course import scoreboard
from tests.support import ROOT
from tests.support.course_copy import link_course
from tests.support.measured_rows import row

_DOCS = ("docs/commands.md", "docs/installing.md", "docs/what_happens.md", "docs/quality.md")
PAGES = ("README.md", "INSTRUCTORS.md", "containers/README.md", *_DOCS)
# How a command begins where it stands among words.
_BEGINS = r"(?:make|python|pip|conda|curl|git|docker|podman|apptainer|sudo|export|mkdir|mv|rm|ssh|COURSE_\w+=\S+) \S"
# Seconds against hanging.
_LIMIT_S = 600

pytestmark = [pytest.mark.slow]


def typed() -> dict[str, str]:
    """Each command, with the first page that has it: whole lines in blocks of code, and those among words."""
    found: dict[str, str] = {}
    for page in PAGES:
        language: str | None = None
        for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
            if line.startswith("```"):
                language = line[3:].strip() if language is None else None
                continue
            if language is None:
                commands = [word for word in re.findall(r"`([^`]+)`", line) if re.match(_BEGINS, word)]
            else:
                commands = [re.split(r"\s{2,}#", line)[0].strip()] if language in ("", "sh", "bash") else []
            for command in filter(None, commands):
                found.setdefault(command, page)
    return found


@dataclass(frozen=True)
class Instead:
    """Why a command is not run as it stands, and what is run in its place.

    Attributes:
        pattern: that the whole command matches.
        reason: why not.
        command: what is run, ``{}`` being the command itself; empty for nothing.
    """

    pattern: str
    reason: str
    command: str = ""


NOT_AS_IT_STANDS = (
    Instead(r"(COURSE_QUICK=1 )?make (lab|setup).*", "may make the environments, which tests/install does in a copy", "{} --dry-run"),
    Instead(r"make demo", "tests/install/test_setup_lab.py runs the demo, once", "{} --dry-run"),
    Instead(r"make (test|test-all|test-gpu|lint|bench|notebooks|solutions)( .*)?", "takes long, or is these tests", "{} --dry-run"),
    Instead(r"make -C training .*", "makes an environment of its own", "{} --dry-run"),
    Instead(r"python -m tests\.course\.picture", "would write the picture of the README again"),
    Instead(r"python -m benchmarks\.record", "measures for minutes, and would write the recorded rows again"),
    Instead(r"python -m helpers (lab|install-server)|pip install -e \.", "tests/install does it in a copy, with an environment to be made"),
    Instead(r"rm -r .*|mv .*", "takes the environments away, and tests/install makes them again in a copy"),
    Instead(r"conda .*", "there is no conda here"),
    Instead(r"sudo .*", "changes the machine"),
    Instead(r"ssh .*", "needs two machines"),
    Instead(r"git .*", "needs the network"),
    Instead(r".*docker://.*|docker (pull|save|load).*", "needs the network, to fetch an image of many GB"),
    Instead(r"(docker|apptainer|podman) build .*", "needs NVIDIA's image, or builds for minutes: tests/install/test_container_build.py"),
    Instead(r"docker compose.*", "needs compose, and images: tests/install starts what its file says with podman"),
    Instead(r".*\b(podman|docker|apptainer) .*….*|export .*…", "the reader has to fill something in"),
    Instead(r"python -m helpers serve --listen all", "would let other machines in: tests/served/test_server_for_a_class.py"),
    Instead(r"mkdir -m 1777 /class/.*", "the class's folder is a folder of this test's", "mkdir -p class && {}"),
    Instead(r"python -m helpers sweep .* -b 1 16 .*", "each point takes seconds", "{} -b 1 -c 1"),
    Instead(
        r"python -m helpers scoreboard /class/.*", "the same", "mkdir -p class/scoreboard && cp work/scoreboard.json class/scoreboard && {}"
    ),
)

# What a command says when it has done what it should, and how it may end beside 0.
SAYS = {
    "python -m helpers doctor": r"Python",
    "curl localhost:9002/metrics": r"nv_inference_request_success\{",
    "python -m helpers infer -m add_sub": r"output +OUTPUT0",
    "python -m helpers infer -m deeptau_nosplit": r"main_output/Softmax .*\(10, 4\)",
    "python -m helpers metrics": r"add_sub",
    "python -m helpers perf_analyzer": r"Request concurrency: 1",
    "python -m helpers tune": r"particlenet_AK4",
    "python -m helpers sweep": r"Figure: ",
    "python -m helpers quantize": r"particlenet_AK4_fp16",
    "python -m helpers scoreboard": r"Ada",
    "python -m helpers serve --runtime apptainer": r"apptainer run .*tritonserver",
    "python -m helpers serve --runtime docker": r"docker run .*tritonserver",
    "make reset": r"03_run_inference",
    "make doctor": r"Python",
    "python -m tools.site": r"Open work/site/index\.html",
    "make": r"make lab ",
}
# A doctor's finding about this machine; measurements that did not settle; no configuration inside the budget.
ENDS = {"doctor": (0, 1, 2), "perf_analyzer": (0, 2), "tune": (0, 3)}
# Words of commands that take long; of the two sweeps one runs each day, and variants and pages are made in other tests, too.
NIGHTLY = {"tune", "particlenet_PT", "quantize", "tools.site"}
# What the others ask. That all models are served, the demonstration and the server of the whole run see as well.
MODELS_BY_DAY = ("add_sub", "deeptau_nosplit", "particlenet_AK4")


def _instead(command: str) -> Instead | None:
    return next((each for each in NOT_AS_IT_STANDS if re.fullmatch(each.pattern, command)), None)


COMMANDS = typed()
SERVE = ("python -m helpers serve", "python -m helpers serve --servers 2")


def test_commands_are_found() -> None:
    assert len(COMMANDS) > 40 and set(SERVE) <= set(COMMANDS)
    for each in NOT_AS_IT_STANDS:
        assert any(re.fullmatch(each.pattern, command) for command in COMMANDS), f"no page has it any more: {each.pattern}"


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The course's folder with an empty ``work/``, and what a reader has by then: notebooks, a result of the challenge."""
    at_night = any(item.path == request.path and item.get_closest_marker("nightly") for item in request.session.items)
    folder = link_course(tmp_path_factory.mktemp("typed") / "course", *(() if at_night else MODELS_BY_DAY))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_WORK", str(folder / "work"))
        scoreboard.enter(row((200, 5, 9000, 300)), row((300, 5, 9000, 300)), "Ada")
    done = _type("python -m helpers hand-out", folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def _environment(course: Path) -> dict[str, str]:
    """As in a terminal in that folder, whose ``python`` is the course's."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COURSE_", "MAKE"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**kept, "PATH": path, "COURSE_ROOT": str(course), "COURSE_QUICK": "1", "PWD": str(course)}


def _type(command: str, course: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", command], cwd=course, env=_environment(course), capture_output=True, text=True, timeout=_LIMIT_S, check=False
    )


class Serving:
    """``python -m helpers serve``, until Ctrl-C.

    Args:
        command: as it was typed.
        course: the folder.
    """

    def __init__(self, command: str, course: Path) -> None:
        self.process = subprocess.Popen(
            ["sh", "-c", f"exec {command}"],
            cwd=course,
            env=_environment(course),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = ""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line
            if line.startswith("Stop the server"):
                return
        raise AssertionError(self.said)

    def ports(self) -> list[str]:
        """HTTP, gRPC and metrics, from the card."""
        found = [re.search(pattern, self.said) for pattern in (r"\S+:(\d+)/v2/health", r"infer .* -u \S+:(\d+)", r"metrics -u \S+:(\d+)")]
        assert all(found), self.said
        return [match[1] for match in found if match]

    def interrupt(self) -> None:
        """Ctrl-C, and its end."""
        self.process.send_signal(signal.SIGINT)
        rest, _ = self.process.communicate(timeout=_LIMIT_S)
        assert self.process.returncode == 0 and rest.endswith("Stopped.\n"), self.said + rest


@pytest.fixture(scope="module")
def served(course: Path) -> Iterator[Serving]:
    """The first terminal: a server that runs until Ctrl-C."""
    serving = Serving(SERVE[0], course)
    yield serving
    serving.interrupt()


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, id=command, marks=[pytest.mark.nightly] if NIGHTLY & set(command.split()) else [])
        for command in COMMANDS
        if command not in SERVE
    ],
)
def test_it_does_what_it_says(command: str, course: Path, request: pytest.FixtureRequest) -> None:
    instead = _instead(command)
    if instead is not None and not instead.command:
        pytest.skip(f"{COMMANDS[command]}: {instead.reason}")
    text = instead.command.format(command).replace(" /class/", " class/") if instead else command
    if "localhost:900" in text:
        if text.startswith("curl ") and shutil.which("curl") is None:
            pytest.skip("there is no curl here")
        for named, taken in zip(("9000", "9001", "9002"), request.getfixturevalue("served").ports(), strict=True):
            text = text.replace(f"localhost:{named}", f"localhost:{taken}")
    done = _type(text, course)
    said = done.stdout + done.stderr
    ends = next((ends for word, ends in ENDS.items() if word in command.split()), (0,))
    assert done.returncode in ends and "Traceback" not in said, f"{COMMANDS[command]}: {text}\n{said}"
    words = next((words for begin, words in SAYS.items() if command.startswith(begin) and (not instead or "helpers" in begin)), "")
    assert re.search(words, said, re.DOTALL), said


@pytest.mark.nightly  # with all models; each day tests/served/test_fleet.py launches small fleets
def test_two_servers_behind_one_address(course: Path, served: Serving) -> None:
    serving = Serving(SERVE[1], course)
    try:
        http, *_ = serving.ports()
        assert http not in served.ports()
        assert _type(f"curl -s -o /dev/null -w %{{http_code}} localhost:{http}/v2/health/ready", course).stdout == "200"
    finally:
        serving.interrupt()
