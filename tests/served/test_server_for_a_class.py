"""One server for a whole class: beyond the loopback interface only when asked for, and then with a token for every call."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from helpers import paths
from helpers.__main__ import main
from helpers.client import Client, http
from helpers.client.endpoint import ADMIN_HEADER
from helpers.errors import AccessError, InputError, ModelError, RequestError
from helpers.server import Server, connect, launch_server, lease
from helpers.server.listening import ADMIN_APIS, CLASS_APIS, TOKEN_BYTES
from tests.support import MODELS_FOR_TESTS
from tests.support.processes import PATIENCE_S, wait_until

# Another address of this machine, which only itself reaches: for a server it is as far away as any.
ELSEWHERE = "127.0.0.2"


@pytest.fixture(scope="module")
def class_server(free_base_port: Callable[[], int]) -> Iterator[Server]:
    with launch_server("models", load=["add_sub"], listen=ELSEWHERE, base_port=free_base_port(), name="class") as running:
        yield running


def _student(server: Server, token: str | None = None) -> Server:
    return connect(f"{ELSEWHERE}:{server.http.port}", token=server.token if token is None else token)


def _adds(server: Server, protocol: str) -> None:
    x = np.arange(16, dtype=np.float32)
    with Client(server, protocol) as client:
        np.testing.assert_array_equal(client.infer("add_sub", INPUT0=x, INPUT1=x)["OUTPUT0"], 2 * x)


def _listening(pid: int) -> dict[int, set[str]]:
    """Port → addresses on which this process listens, by ss."""
    table = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout
    found: dict[int, set[str]] = {}
    for line in table.splitlines():
        if f"pid={pid}," in line:
            address, _, port = line.split()[3].rpartition(":")
            found.setdefault(int(port), set()).add(address.strip("[]").removeprefix("::ffff:"))
    return found


@pytest.mark.skipif(not shutil.which("ss"), reason="no ss (package iproute2)")
def test_nothing_listens_beyond_loopback_unless_asked_for(class_server: Server, models_server: Server) -> None:
    http, grpc, metrics = class_server.http.port, class_server.grpc.port, class_server.metrics.port
    assert _listening(class_server.pid) == {http: {ELSEWHERE}, grpc: {ELSEWHERE}, metrics: {"127.0.0.1"}}
    own = {models_server.http.port, models_server.grpc.port, models_server.metrics.port}
    assert _listening(models_server.pid) == {port: {"127.0.0.1"} for port in own}
    assert "beyond" not in repr(models_server) + models_server._repr_html_()


def test_students_with_the_token(class_server: Server) -> None:
    student = _student(class_server)
    assert (student.owned, student.is_ready(), student.metadata()["name"]) == (False, True, class_server.metadata()["name"])
    for protocol in ("grpc", "http"):
        _adds(student, protocol)
        _adds(class_server, protocol)
    assert [state.name for state in student.models()] == ["add_sub"]
    assert student.config("add_sub")["name"] == "add_sub"
    wait_until(lambda: student.statistics("add_sub")["inference_count"] >= 4)  # counted a moment after the answer
    assert class_server.models()[0].state and class_server.is_ready()


def test_without_the_token_nothing_is_answered(class_server: Server) -> None:
    """Every call of the protocol, health and metadata too, over both ports; nothing of it reaches a model."""
    before = class_server.statistics("add_sub")
    for headers in (
        {},
        {"Authorization": "Bearer guess"},
        {"Authorization": class_server.token},
        {"Authorization": "Bearer $COURSE_TOKEN"},
    ):
        for path in (
            "/v2",
            "/v2/health/live",
            "/v2/health/ready",
            "/v2/models/stats",
            *(f"/v2/models/add_sub{p}" for p in ("", "/ready", "/config", "/stats")),
        ):
            with pytest.raises(RequestError, match=r"restricted.*authorization"):
                http.ask(class_server.http, path, headers=headers)
        for path in ("/v2/models/add_sub/infer", "/v2/models/add_sub/generate", "/v2/models/add_sub/versions/1/infer"):
            with pytest.raises(RequestError, match=r"restricted.*authorization"):
                http.ask(class_server.http, path, {"inputs": []}, headers=headers)
    with triton_grpc.InferenceServerClient(class_server.grpc_url, channel_args=[("grpc.enable_http_proxy", 0)]) as client:
        inputs = [triton_grpc.InferInput(name, [16], "FP32").set_data_from_numpy(np.ones(16, np.float32)) for name in ("INPUT0", "INPUT1")]
        for headers in (None, {"authorization": f"Bearer {class_server.token}"}, {"triton-grpc-protocol-authorization": "Bearer guess"}):
            for call in (
                lambda h: client.is_server_live(headers=h),
                lambda h: client.is_server_ready(headers=h),
                lambda h: client.is_model_ready("add_sub", headers=h),
                lambda h: client.get_server_metadata(headers=h),
                lambda h: client.get_model_metadata("add_sub", headers=h),
                lambda h: client.get_model_config("add_sub", headers=h),
                lambda h: client.get_inference_statistics(headers=h),
                lambda h: client.infer("add_sub", inputs, headers=h),
            ):
                with pytest.raises(
                    InferenceServerException, match="protocol is restricted, expecting header 'triton-grpc-protocol-authorization'"
                ):
                    call(headers)
    assert class_server.statistics("add_sub") == before


def test_a_student_without_the_token_reads_why(class_server: Server) -> None:
    for url in (f"{ELSEWHERE}:{class_server.http.port}", f"grpc://{ELSEWHERE}:{class_server.grpc.port}"):
        with pytest.raises(AccessError, match=r"wants a token, and none was sent.*token="):
            connect(url)
        with pytest.raises(AccessError, match="does not accept the token that was sent"):
            connect(url, token="guess-of-a-student")
    with Client(f"{ELSEWHERE}:{class_server.grpc.port}") as client, pytest.raises(AccessError, match="wants a token"):
        client.infer("add_sub", INPUT0=np.ones(16, np.float32), INPUT1=np.ones(16, np.float32))


def test_students_cannot_stop_reload_or_read_memory(class_server: Server) -> None:
    """They have the token and try by every way there is; the owner can."""
    student = _student(class_server)
    for forbidden in (lambda: student.load("add_sub"), lambda: student.unload("add_sub")):
        with pytest.raises(ModelError, match="Only the owner"):
            forbidden()
    student.stop()
    for path, body in (
        ("/v2/repository/index", {}),
        ("/v2/repository/models/add_sub/load", {}),
        ("/v2/repository/models/add_sub/unload", {}),
        ("/v2/systemsharedmemory/status", None),
        ("/v2/systemsharedmemory/region/x/register", {"key": "/x", "offset": 0, "byte_size": 8}),
        ("/v2/cudasharedmemory/status", None),
        ("/v2/trace/setting", {"trace_level": ["TIMESTAMPS"]}),
        ("/v2/logging", {"log_verbose_level": 1}),
    ):
        for headers in ({}, {ADMIN_HEADER: class_server.token}, {ADMIN_HEADER: f"Bearer {class_server.token}"}):
            with pytest.raises(RequestError, match=f"restricted.*{ADMIN_HEADER}"):
                http.ask(class_server.http, path, body, headers=headers, access=student.access)
    headers = student.access.headers
    with triton_grpc.InferenceServerClient(class_server.grpc_url, channel_args=[("grpc.enable_http_proxy", 0)]) as client:
        for call in (
            lambda: client.unload_model("add_sub", headers=headers),
            lambda: client.load_model("add_sub", headers=headers),
            lambda: client.get_model_repository_index(headers=headers),
            lambda: client.register_system_shared_memory("x", "/x", 8, headers=headers),
            lambda: client.get_trace_settings(headers=headers),
            lambda: client.update_log_settings({"log_verbose_level": 1}, headers=headers),
        ):
            with pytest.raises(InferenceServerException, match=f"protocol is restricted.*{ADMIN_HEADER}"):
                call()
    assert class_server.state() == "running"
    _adds(student, "grpc")
    class_server.reload("add_sub")
    _adds(student, "grpc")


def test_the_card_warns_in_red_and_keeps_the_token(class_server: Server) -> None:
    text, html = repr(class_server), class_server._repr_html_()
    assert f"✖ This server listens beyond this machine, on {ELSEWHERE}. Every call needs the token. Nothing is encrypted" in text
    assert re.search(r'background:#b3261e;color:#fff;font-weight:600">✖ This server listens beyond this machine', html)
    assert f'connect("{ELSEWHERE}:{class_server.http.port}", token="…")' in text
    shown = [text, html, repr(class_server.listening), repr(class_server.access), class_server.log(0), repr(_student(class_server))]
    assert not [one for one in shown if class_server.token in one]
    lines = subprocess.run(["ps", "-eo", "args", "-ww"], capture_output=True, text=True, check=True).stdout
    assert class_server.token not in lines
    assert len(class_server.token) >= TOKEN_BYTES


def test_found_again_and_launched_again_with_the_same_token(class_server: Server, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    again = launch_server("models", load=["add_sub"], listen=ELSEWHERE, base_port=class_server.spec.base_port, name="class")
    assert again is class_server
    # As after a restart of the kernel: nothing is remembered but what the supervisor knows.
    monkeypatch.setattr("helpers.server.server._OWNED", {})
    found = launch_server("models", load=["add_sub"], listen=ELSEWHERE, base_port=class_server.spec.base_port, name="class")
    assert found is not class_server
    assert (found.pid, found.token, found.is_ready()) == (class_server.pid, class_server.token, True)
    assert "another" not in capsys.readouterr().out
    _adds(found, "grpc")
    found._lease.close()
    assert found.spec.token == class_server.token, "so that restart() keeps it"
    assert (lease.run_root().stat().st_mode & 0o077) == 0


def test_what_cannot_be_asked_for() -> None:
    for options, words in (
        ({"listen": "203.0.113.7"}, r"'203\.0\.113\.7' is no address of this machine"),
        ({"listen": "no-such-host.invalid"}, "is no address of this machine"),
    ):
        with pytest.raises(InputError, match=words):
            launch_server("models", dry_run=True, **options)


@pytest.mark.parametrize("runtime", ["embedded", "apptainer", "docker"])
def test_the_command_says_where_it_listens_and_no_secret(capsys: pytest.CaptureFixture[str], runtime: str) -> None:
    launch_server("models", runtime=runtime, listen="all", dry_run=True)
    out = capsys.readouterr().out
    assert "--http-address=0.0.0.0" in out and "--grpc-address=0.0.0.0" in out and "--metrics-address=127.0.0.1" in out
    for option in ("http-restricted-api", "grpc-restricted-protocol"):
        assert f"'--{option}={CLASS_APIS}:authorization=Bearer $COURSE_TOKEN'" in out
        assert f"'--{option}={ADMIN_APIS}:course-admin-key=$COURSE_ADMIN_KEY'" in out
    launch_server("models", runtime=runtime, dry_run=True)
    out = capsys.readouterr().out
    assert "0.0.0.0" not in out and "--http-address=127.0.0.1" in out and "COURSE_TOKEN" not in out


@pytest.mark.slow
def test_serve_in_a_terminal(free_base_port: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "double").symlink_to(MODELS_FOR_TESTS / "double")
    command = [
        sys.executable,
        "-m",
        "helpers",
        "serve",
        "--models",
        str(tmp_path),
        "--base-port",
        str(free_base_port()),
        "--listen",
        ELSEWHERE,
    ]
    serving = subprocess.Popen(command, cwd=paths.root(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        lines = []
        while not lines or not lines[-1].startswith("Stop the server here"):
            lines.append(serving.stdout.readline())
            assert lines[-1], serving.communicate()
        text = "".join(lines)
        assert "listens beyond this machine" in text
        (token,) = re.findall(r"export COURSE_TOKEN=(\S+)", text)
        monkeypatch.setenv("COURSE_TOKEN", token)
        for line in (line.strip() for line in lines if line.strip().startswith("curl")):
            answer = subprocess.run(
                ["bash", "-c", f"{line} --fail -sS --noproxy '*' -o {tmp_path}/answer"], capture_output=True, text=True, check=False
            )
            assert answer.returncode == 0, (line, answer.stderr)
        (infer,) = [line.split() for line in lines if "helpers infer" in line]
        assert main(infer[3:]) == 0
        monkeypatch.delenv("COURSE_TOKEN")
        assert main(infer[3:]) == 1
    finally:
        serving.send_signal(signal.SIGINT)
        serving.communicate(timeout=PATIENCE_S)
    assert serving.returncode == 0


@pytest.fixture
def other_machine() -> Iterator[tuple[str, str]]:
    """A network namespace with one cable to this machine: its name, and this machine's address at the other end of the cable."""
    if os.getuid() != 0 or not shutil.which("ip"):
        pytest.skip("a network namespace needs root and iproute2")
    tag = f"crs{os.getpid() % 100000}"
    here, there = f"10.213.{os.getpid() % 250}.1", f"10.213.{os.getpid() % 250}.2"

    def ip(*words: str) -> bool:
        return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0

    made = ip("netns", "add", tag) and ip("link", "add", f"{tag}a", "type", "veth", "peer", "name", f"{tag}b", "netns", tag)
    made = made and ip("addr", "add", f"{here}/30", "dev", f"{tag}a") and ip("link", "set", f"{tag}a", "up")
    made = made and ip("-n", tag, "addr", "add", f"{there}/30", "dev", f"{tag}b") and ip("-n", tag, "link", "set", f"{tag}b", "up")
    try:
        if not made:
            pytest.skip("this machine lets nobody make a network namespace")
        yield tag, here
    finally:
        ip("netns", "del", tag)
        ip("link", "del", f"{tag}a")


@pytest.mark.slow
def test_from_another_machine(other_machine: tuple[str, str], models_server: Server, free_base_port: Callable[[], int]) -> None:
    namespace, here = other_machine
    script = """
        import sys
        import numpy as np
        from helpers import Client, CourseError, connect, scrape
        url, own, token = sys.argv[1:]
        server = connect(url, token=token)
        x = np.arange(16, dtype=np.float32)
        for protocol in ("grpc", "http"):
            with Client(server, protocol) as client:
                print(protocol, client.infer("add_sub", INPUT0=x, INPUT1=x)["OUTPUT0"][-1])
        for refused in (lambda: scrape(server), lambda: connect(url), lambda: connect(own, token=token)):
            try:
                refused()
                print("not refused")
            except CourseError as error:
                print(type(error).__name__, error)
    """
    with launch_server("models", load=["add_sub"], listen="all", base_port=free_base_port(), name="class-all") as server:
        if shutil.which("ss"):
            assert _listening(server.pid) == {
                server.http.port: {"0.0.0.0"},
                server.grpc.port: {"*"},  # gRPC takes IPv6 along
                server.metrics.port: {"127.0.0.1"},
            }
        assert "on every interface of this machine" in " ".join(repr(server).split())
        _adds(server, "grpc")
        urls = [f"{here}:{server.http.port}", f"{here}:{models_server.http.port}", server.token]
        command = ["ip", "netns", "exec", namespace, sys.executable, "-c", textwrap.dedent(script), *urls]
        done = subprocess.run(command, cwd=paths.root(), capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert done.returncode == 0, done.stderr
        grpc, http, metrics, without, own = done.stdout.splitlines()
        assert (grpc, http) == ("grpc 30.0", "http 30.0")
        assert metrics.startswith("ServerError The metrics page of the server at")
        assert without.startswith("AccessError") and "wants a token" in without
        assert own.startswith("ServerError No Triton server answers"), "a server that was not asked to listen beyond this machine"
        wait_until(lambda: server.statistics("add_sub")["inference_count"] == 3)
