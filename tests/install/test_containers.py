"""The files that make and start images: one release everywhere, what models and notebooks need in them, nothing open to the network."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers import paths
from helpers.server import containers
from helpers.server.command import LaunchSpec
from helpers.server.containers import image_version
from helpers.setup import environments

FOLDER = paths.root() / "containers"
VERSION = image_version()
CONTAINERFILES = sorted(FOLDER.glob("Containerfile.*"))
DEFINITIONS = sorted(FOLDER.glob("*.def"))
# NVIDIA's images and the course's own, by what their tag must be.
TAGS = {
    "nvcr.io/nvidia/tritonserver": {f"{VERSION}-py3", f"{VERSION}-py3-sdk"},
    "triton-course/tritonserver": {VERSION},
    # By what it holds: the embedded server, whose release no wheel follows.
    "triton-course/tritonserver-cpu": {environments.EMBEDDED_TRITON},
    "triton-course/client": {VERSION},
}
# What stands for the release where a command or a build reads it from VERSION.
PLACES = ("$(cat containers/VERSION)", "${VERSION}", "…")


def _texts() -> dict[str, str]:
    pages = ["README.md", "INSTRUCTORS.md", "CONTRIBUTING.md"]
    files = [path for path in FOLDER.rglob("*") if path.is_file()] + [paths.root() / page for page in pages]
    for folder in ("docs", "notebooks/source", "helpers"):
        files += [path for path in (paths.root() / folder).rglob("*.*") if path.suffix in (".md", ".py")]
    return {str(path.relative_to(paths.root())): path.read_text(encoding="utf-8") for path in files}


def _references(text: str) -> list[tuple[str, str]]:
    """Every image with a tag in a text: name and tag, with the release in the place of what is read from VERSION."""
    for place in PLACES:
        text = text.replace(place, VERSION)
    return re.findall(r"(?<![\w/.])((?:nvcr\.io/nvidia|triton-course)/[\w-]+):([\w.-]+\w)", text)


def _instructions(path: Path) -> list[tuple[str, str]]:
    """Instructions of a Containerfile and their arguments, continued lines joined."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]


def _sections(path: Path) -> dict[str, str]:
    """Header (under an empty name) and sections of an Apptainer definition."""
    parts = re.split(r"^%(\w+).*\n", path.read_text(), flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def _compose(name: str = "compose.yaml") -> dict[str, Any]:
    return yaml.safe_load((FOLDER / name).read_text())["services"]


def test_every_image_is_of_the_one_release() -> None:
    found = {file: _references(text) for file, text in _texts().items()}
    for file, references in found.items():
        for name, tag in references:
            assert tag in TAGS[name], f"{file}: {name}:{tag}, and containers/VERSION says {VERSION}"
    assert {name for references in found.values() for name, _ in references} == set(TAGS)
    assert ("nvcr.io/nvidia/tritonserver", f"{VERSION}-py3") == _references(containers.nvidia())[0]
    assert _references("FROM nvcr.io/nvidia/tritonserver:24.09-py3\n") == [("nvcr.io/nvidia/tritonserver", "24.09-py3")], "the check itself"


@pytest.mark.parametrize("path", CONTAINERFILES, ids=lambda path: path.name)
def test_a_containerfile_takes_its_base_and_release_as_arguments(path: Path) -> None:
    instructions = _instructions(path)
    defaults = dict(value.split("=", 1) for name, value in instructions if name == "ARG" and "=" in value)
    assert [value for name, value in instructions if name == "FROM"] == ["${BASE}"]
    assert defaults.get("VERSION", VERSION) == VERSION
    base = {"Containerfile.server": "-py3", "Containerfile.client": "-py3-sdk"}
    if path.name in base:
        assert defaults["BASE"] == "nvcr.io/nvidia/tritonserver:${VERSION}" + base[path.name]
    for name, value in instructions:
        if name == "COPY":
            for source in value.split()[:-1]:
                assert (paths.root() / source).exists(), f"{path.name} copies {source}, which is not there"


@pytest.mark.parametrize("path", DEFINITIONS, ids=lambda path: path.name)
def test_a_definition_has_what_apptainer_wants(path: Path, tmp_path: Path) -> None:
    sections = _sections(path)
    assert {"files", "post", "environment", "runscript", "test", "labels", "help"} == set(sections) - {""}
    header = dict(line.split(": ", 1) for line in sections[""].splitlines() if line and not line.startswith("#"))
    suffix = "-sdk" if path.name == "client.def" else ""
    assert header == {"Bootstrap": "docker", "From": f"nvcr.io/nvidia/tritonserver:{VERSION}-py3{suffix}"}
    assert f"org.opencontainers.image.version {VERSION}\n" in sections["labels"]
    copied = [line.split() for line in sections["files"].splitlines() if line.strip()]
    for source, target in copied:
        assert (paths.root() / source).exists() and target.startswith("/opt/course/"), source
    for name in ("post", "environment", "runscript", "test"):
        subprocess.run(["sh", "-n"], input=sections[name], text=True, check=True)
    # What %post runs is copied in before: the same script as in the Containerfile.
    (script,) = re.findall(r"sh (\S+)", sections["post"])
    assert any(f"/opt/course/{script}".startswith(target) for _, target in copied)
    twin = path.with_name(f"Containerfile.{path.stem}")
    assert ("RUN", f"sh {script}") in _instructions(twin)


def test_both_kinds_of_image_set_the_same_variables() -> None:
    for path in DEFINITIONS:
        twin = " ".join(value for name, value in _instructions(path.with_name(f"Containerfile.{path.stem}")) if name == "ENV")
        exported = re.findall(r"export (\w+)=", _sections(path)["environment"])
        # Under Apptainer the folder for work is the caller's; its runscript says which.
        assert sorted(exported) == sorted(set(re.findall(r"(\w+)=", twin)) - {"COURSE_WORK"}), path.name


@pytest.mark.parametrize(
    ("path", "words", "said"),
    [
        ("client.def", ["echo", "a b"], "a b"),
        ("client.def", ["sh", "-c", 'echo "$COURSE_WORK"'], "/elsewhere/work"),
    ],
)
def test_a_runscript_runs_what_it_is_given(path: str, words: list[str], said: str) -> None:
    script = "cd /; PWD=/elsewhere\n" + _sections(FOLDER / path)["runscript"]
    environment = {"PATH": "/usr/bin:/bin"}
    done = subprocess.run(["sh", "-c", script, "runscript", *words], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == said


def test_the_servers_image_has_what_models_import_and_no_more() -> None:
    """Third-party packages of all Python models, at the lock's versions; the native backends bring torch and onnxruntime."""
    imported = set()
    for path in paths.models_dir().glob("*/*/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            beside = {file.stem for file in path.parent.glob("*.py")}
            imported |= {name.split(".")[0] for name in names} - beside
    imported -= {"triton_python_backend_utils", *sys.stdlib_module_names}
    script = (FOLDER / "server-image.sh").read_text()
    (listed,) = re.findall(r'^PACKAGES="(.*)"$', script, re.MULTILINE)
    assert set(listed.split()) == imported
    assert imported <= set(environments.locked("containers/server-requirements.lock"))
    assert not imported & {"torch", "onnxruntime"}
    assert "--constraint server-requirements.lock $PACKAGES" in script


def test_the_check_of_numpy_fails_with_numpy_2() -> None:
    """The very line of the script and of the definition, under the notebooks' Python, which has NumPy 2."""
    (line,) = re.findall(r"^python3 -c '(import numpy.*)'$", (FOLDER / "server-image.sh").read_text(), re.MULTILINE)
    assert line in _sections(FOLDER / "server.def")["test"]
    assert subprocess.run([sys.executable, "-c", line], capture_output=True, check=False).returncode == 1
    for version, code in (("1.26.4", 0), ("2.0.0", 1)):
        replaced = f"import sys, types; sys.modules['numpy'] = types.SimpleNamespace(__version__={version!r}); {line}"
        assert subprocess.run([sys.executable, "-c", replaced], capture_output=True, check=False).returncode == code


def test_the_clients_image_has_perf_analyzer_and_the_courses_packages() -> None:
    script = (FOLDER / "client-image.sh").read_text()
    assert re.search(r"^command -v perf_analyzer$", script, re.MULTILINE), "the build ends where there is none"
    assert "--constraint requirements.lock --editable ." in script
    requires = re.findall(r'requires-python = "(.*)"', (paths.root() / "pyproject.toml").read_text())
    assert re.findall(r"--python '(.*)'", script) == requires
    copied = {word for name, value in _instructions(FOLDER / "Containerfile.client") if name == "COPY" for word in value.split()[:-1]}
    assert copied == {line.split()[0] for line in _sections(FOLDER / "client.def")["files"].splitlines() if line.strip()}
    assert {"pyproject.toml", "requirements.lock", "helpers", "models", "notebooks", "containers"} <= copied
    # What pyproject's build reads must be there.
    assert {"README.md", "LICENSE"} <= copied


def test_definitions_make_the_files_that_helpers_look_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_IMAGES", "work/images")
    (made,) = re.findall(r"apptainer build (\S+_\S+ containers/VERSION\)\.sif)", (FOLDER / "server.def").read_text())
    assert containers.sif_files()[0] == Path(made.replace("$(cat containers/VERSION)", VERSION)).resolve()
    assert containers.own() in {f"{name}:{tag}" for name, tag in _references((FOLDER / "Containerfile.server").read_text())}


def test_compose_starts_the_server_as_launch_server_does() -> None:
    server = _compose()["server"]
    serving = LaunchSpec(server_id="compose", ports=("9000", "9001", "9002"))
    program = ["python3", "/course/helpers/server/in_container.py", "tritonserver"]
    assert server["command"] == [*program, *(word.replace("$", "$$") for word in serving.triton_arguments("/models"))], (
        "$$: compose leaves it alone"
    )
    assert "stdin_open" not in server  # no lifeline: compose itself ends what it has started
    assert server["volumes"] == ["../models:/models:ro", "../helpers:/course/helpers:ro"]
    assert re.match(r"\$\{COURSE_ADMIN_KEY:\?.+\}$", server["environment"]["COURSE_ADMIN_KEY"]), "compose refuses to start without one"


def test_compose_opens_nothing_but_jupyterlab_to_this_machine_with_its_token() -> None:
    services = _compose()
    assert set(services) == {"server", "jupyter"}
    published = [port for service in services.values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:8888:8888"]
    jupyter = services["jupyter"]
    assert jupyter["network_mode"] == "service:server" and jupyter["depends_on"] == {"server": {"condition": "service_healthy"}}
    for service in services.values():
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges"]
        assert not service.get("privileged")
    assert "token" not in str(jupyter["command"] + list(jupyter["environment"])).lower(), "JupyterLab makes its own"
    assert jupyter["volumes"] == ["../work:/work"]
    for name, service in services.items():
        dockerfile = paths.root() / service["build"]["dockerfile"]
        assert (FOLDER / service["build"]["context"]).resolve() == paths.root()
        assert f"-t {service['image'].split(':')[0]}:" in dockerfile.read_text(), name


def test_compose_with_gpus_adds_them_to_the_server_alone() -> None:
    assert set(_compose("compose.gpu.yaml")) == {"server"}
    (device,) = _compose("compose.gpu.yaml")["server"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}


def test_builds_are_sent_no_environments_and_no_results() -> None:
    ignored = set((paths.root() / ".dockerignore").read_text().split("\n"))
    assert {".git", ".venv", ".server", "work"} <= ignored


def test_the_readme_names_every_file_and_says_what_was_not_run() -> None:
    readme = (FOLDER / "README.md").read_text()
    for path in FOLDER.iterdir():
        assert f"`{path.name}{'/' if path.is_dir() else ''}`" in readme or path.name == "README.md", path.name
    for word in re.findall(r"`((?:containers|kubernetes)/[\w./-]+)`", readme):
        assert (paths.root() / word).exists() or (FOLDER / word).exists(), word
    assert "not run here" in readme.lower()
    code = "".join(path.read_text() for path in (paths.root() / "helpers").rglob("*.py"))
    for name in set(re.findall(r"COURSE_[A-Z_]+", readme)) - {"COURSE_USER"}:
        assert re.search(rf"\b{name}\b", code), name


def test_pages_say_which_release_the_images_are_of_and_which_server_is_embedded() -> None:
    """The two are not the same, so each page that names one by its number agrees with the one place that decides."""
    pages = {name: (paths.root() / name).read_text() for name in ("README.md", "docs/safety.md", "containers/README.md")}
    for name, text in pages.items():
        assert VERSION in text and environments.EMBEDDED_TRITON in text, name
    (server,) = re.findall(rf"^\| {VERSION} \| (2\.\d+\.\d+) \|", pages["containers/README.md"], re.MULTILINE)
    assert server in pages["docs/safety.md"]
