"""Real builds of the course's two images, and compose's two services run from them.

No image can be pulled everywhere, so an image made from this machine stands for NVIDIA's: it has the embedded server laid out as theirs,
and this machine's perf_analyzer. What the builds do on top, and what the services are started with, is that of the files.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from helpers import jets, launch_server, paths
from helpers.client import Client
from helpers.client.endpoint import ADMIN_HEADER
from helpers.errors import SetupError
from helpers.measuring.perf_analyzer import find_perf_analyzer
from helpers.server.containers import image_version
from helpers.setup import environments
from tests.support.container_image import Made, NoContainersError, make, said
from tests.support.processes import PATIENCE_S, wait_until

pytestmark = [pytest.mark.nightly, pytest.mark.container]

ENGINE = "podman"  # Docker's builds can mount nothing, and the base needs this machine's Python
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# Where pip and uv look for packages, when that is not the usual place.
_INDEX = ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """The image that stands for NVIDIA's."""
    try:
        made = make(ENGINE, tmp_path_factory.mktemp("base"))
    except NoContainersError as error:
        pytest.skip(f"{ENGINE} runs no containers on this machine: {error}")
    yield made
    made.remove()


@pytest.fixture(scope="module")
def perf_analyzer() -> str:
    """This machine's program."""
    try:
        return find_perf_analyzer().file
    except SetupError:
        pytest.skip("there is no perf_analyzer on this machine")


def build(base: Made, kind: str, *arguments: str) -> str:
    """Build an image as its file says, on another base; returns its name."""
    network = [f"--volume={path}:{path}:ro" for path in ("/etc/ssl", "/usr/share/ca-certificates", "/etc/pip.conf") if Path(path).exists()]
    network += [f"--env=SSL_CERT_FILE={CERTIFICATES}"] if CERTIFICATES.exists() else []
    network += [f"--env={name}={os.environ[name]}" for name in _INDEX if name in os.environ]
    name = f"localhost/triton-course-tests-{kind}:{os.getpid()}"
    said(
        *(ENGINE, "build", "--no-cache", "--network=host", *base.arguments.split(), *network, *arguments),
        *(f"--build-arg=BASE={base.image}", f"--file={paths.root()}/containers/Containerfile.{kind}", f"--tag={name}"),
        str(paths.root()),
    )
    return name


@pytest.fixture(scope="module")
def server_image(base: Made) -> Iterator[str]:
    """The server's image."""
    name = build(base, "server")
    yield name
    said(ENGINE, "rmi", "--force", name)


@pytest.fixture(scope="module")
def client_image(base: Made, perf_analyzer: str) -> Iterator[str]:
    """The notebooks' image."""
    name = build(base, "client", f"--volume={perf_analyzer}:/usr/bin/perf_analyzer:ro")
    yield name
    said(ENGINE, "rmi", "--force", name)


def labels(image: str) -> dict[str, str]:
    """An image's labels."""
    return json.loads(said(ENGINE, "image", "inspect", "--format", "{{json .Config.Labels}}", image))


def test_without_perf_analyzer_there_is_no_client_image(base: Made) -> None:
    with pytest.raises(RuntimeError, match="client-image"):
        build(base, "client", "--layers=false")  # nothing of it stays behind


def test_the_clients_image_has_the_locks_packages_and_the_course(base: Made, client_image: str) -> None:
    code = (
        "import importlib.metadata as m, json; print(json.dumps({d.name.lower().replace('_', '-'): d.version for d in m.distributions()}))"
    )
    there = json.loads(said(ENGINE, "run", "--rm", "--net=none", *base.arguments.split(), client_image, "python", "-c", code))
    locked = environments.locked("requirements.lock")
    assert there.pop("triton-course")
    there = {name.replace(".", "-"): version for name, version in there.items()}
    assert len(there) > 80
    assert there == {name: locked.get(name) for name in there}
    assert not {"pytest", "ruff", "playwright"} & set(there), "nothing for development"
    assert labels(client_image)["org.opencontainers.image.version"] == image_version()


def test_the_image_for_machines_without_a_gpu_serves(
    base: Made, monkeypatch: pytest.MonkeyPatch, free_base_port: Callable[[], int]
) -> None:
    """Its file in full, but that the server's environment is this machine's, which is there already."""
    image = build(base, "cpu", f"--build-arg=COURSE_SERVER_ENV={paths.server_env()}")
    monkeypatch.setenv("COURSE_ENGINE_ARGUMENTS", base.arguments)
    sample = jets.read("ak4")[:5]
    try:
        with (
            launch_server(
                "models", runtime=ENGINE, image=image, load=["particlenet_AK4"], base_port=free_base_port(), name="cpu"
            ) as server,
            Client(server) as client,
        ):
            scores = jets.Tagger(client, "particlenet_AK4").tag(sample).probabilities
    finally:
        said(ENGINE, "rmi", "--force", image)
    assert np.allclose(scores.sum(axis=1), 1, atol=1e-5)
    assert scores.shape == (5, 8)


@dataclass(frozen=True)
class Services:
    """The two services of ``compose.yaml``, run without compose; the server's network has the loopback interface only.

    Attributes:
        server: name of its container.
        jupyter: name of its container.
    """

    server: str
    jupyter: str

    def run_in(self, container: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in one of them."""
        return subprocess.run([ENGINE, "exec", container, *command], capture_output=True, text=True, check=False, timeout=PATIENCE_S)


def start(service: dict[str, Any], name: str, image: str, base: Made, work: Path, *options: str) -> None:
    """Start a service with all that its description says, but for its image, its network and the folder for work."""
    folder = paths.root() / "containers"
    volumes = [volume.replace("../work:", f"{work}:").replace("../", f"{folder.parent}/") for volume in service["volumes"]]
    environment = {key: "the-key" if key == "COURSE_ADMIN_KEY" else value for key, value in service["environment"].items()}
    said(
        *(ENGINE, "run", "--detach", f"--name={name}", *base.arguments.split(), *options),
        *([f"--shm-size={service['shm_size'].removesuffix('b')}"] if "shm_size" in service else []),
        *(f"--cap-drop={one}" for one in service["cap_drop"]),
        *(f"--security-opt={one}" for one in service["security_opt"]),
        *(f"--volume={one}" for one in volumes),
        *(f"--env={key}={value}" for key, value in environment.items()),
        *(image, *(word.replace("$$", "$") for word in service["command"])),
    )


@pytest.fixture(scope="module")
def services(base: Made, server_image: str, client_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Both, the server being healthy by compose's own question."""
    described = yaml.safe_load((paths.root() / "containers" / "compose.yaml").read_text())["services"]
    running = Services(f"tests-compose-server-{os.getpid()}", f"tests-compose-jupyter-{os.getpid()}")
    work = tmp_path_factory.mktemp("compose")
    try:
        start(described["server"], running.server, server_image, base, work, "--net=none")
        healthy = described["server"]["healthcheck"]["test"][1:]
        wait_until(lambda: running.run_in(running.server, *healthy).returncode == 0)
        start(described["jupyter"], running.jupyter, client_image, base, work, f"--net=container:{running.server}")
        yield running
    finally:
        for name in (running.jupyter, running.server):
            subprocess.run([ENGINE, "rm", "--force", "--time=5", name], capture_output=True, check=False)


def test_a_notebook_of_compose_reaches_the_server(services: Services) -> None:
    code = (
        "import numpy as np; from helpers import Client, connect; x = np.arange(16, dtype=np.float32)\n"
        "with Client(connect('localhost:9000')) as client: print(client.infer('add_sub', INPUT0=x, INPUT1=x + 1)['OUTPUT0'].sum())"
    )
    done = services.run_in(services.jupyter, "python", "-c", code)
    assert done.stdout.strip() == "256.0", done.stderr


def test_jupyterlab_of_compose_hands_out_notebooks_to_those_with_its_token(services: Services) -> None:
    code = (
        "import sys, urllib.request, urllib.error\n"
        "try: print(urllib.request.urlopen('http://127.0.0.1:8888' + sys.argv[1], timeout=10).status)\n"
        "except urllib.error.HTTPError as error: print(error.code)"
    )
    wait_until(lambda: services.run_in(services.jupyter, "python", "-c", code, "/api").stdout.strip() == "200")
    notebook = "/api/contents/notebooks/00_start_here.ipynb"
    assert services.run_in(services.jupyter, "python", "-c", code, notebook).stdout.strip() == "403"
    log = subprocess.run([ENGINE, "logs", services.jupyter], capture_output=True, text=True, check=True)
    token = (log.stdout + log.stderr).split("?token=", 1)[1].split()[0]
    assert services.run_in(services.jupyter, "python", "-c", code, f"{notebook}?content=0&token={token}").stdout.strip() == "200"


def test_the_server_of_compose_keeps_its_models_and_its_key(services: Services) -> None:
    assert "Read-only" in services.run_in(services.server, "touch", "/models/new").stderr
    load = (
        "import urllib.request, urllib.error, sys\n"
        "url, headers = 'http://127.0.0.1:9000/v2/repository/models/add_sub/load', dict(a.split('=') for a in sys.argv[1:])\n"
        "try: print(urllib.request.urlopen(urllib.request.Request(url, b'{}', headers), timeout=30).status)\n"
        "except urllib.error.HTTPError as error: print(error.code)"
    )
    assert services.run_in(services.jupyter, "python", "-c", load).stdout.strip() == "403"
    assert services.run_in(services.jupyter, "python", "-c", load, f"{ADMIN_HEADER}=the-key").stdout.strip() == "200"


def test_the_server_of_compose_ends_when_it_is_told_to(services: Services) -> None:
    """The last test of these services."""
    said(ENGINE, "stop", "--time=30", services.server)
    assert said(ENGINE, "inspect", "--format", "{{.State.ExitCode}}", services.server) == "0"
