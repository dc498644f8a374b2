"""Launching: readiness, ports, repositories with faults, starting twice, stopping."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import paths, run_folder
from helpers.errors import CourseError, InputError, RequestError, ServerError, SetupError
from helpers.server import ModelWarning, connect, launch_server
from helpers.server.containers import image_version
from helpers.server.ports import PORTS_PER_SERVER
from helpers.setup.environments import EMBEDDED_TRITON
from tests.support.logs import logged
from tests.support.processes import PATIENCE_S, alive, session, wait_until


def _copy(name: str, repository: Path, **changes: str) -> Path:
    """A copy of add_sub under another name; each change replaces one text in config.pbtxt by another."""
    folder = repository / name
    shutil.copytree(paths.models_dir() / "add_sub", folder)
    config = folder / "config.pbtxt"
    config.write_text(config.read_text().replace('"add_sub"', f'"{name}"'))
    for old, new in changes.items():
        text = config.read_text()
        assert old in text
        config.write_text(text.replace(old, new))
    return folder


def test_every_model_is_ready_and_the_card_says_where(server):
    assert server.is_ready()
    assert server.owned
    assert server.state() == "running"
    states = {model.name: model.state for model in server.models()}
    assert states["add_sub"] == "READY"
    assert server.metadata()["version"] == EMBEDDED_TRITON
    card, page = repr(server), server._repr_html_()
    for text in (server.http_url, server.grpc_url, server.metrics_url, "add_sub", "READY", "embedded"):
        assert text in card
        assert text in page


def test_launching_twice_returns_the_running_one_and_says_so(server, capsys):
    again = launch_server(paths.models_dir(), base_port=server.http.port, name="tests")
    assert again is server
    assert "Already running" in capsys.readouterr().out
    changed = launch_server(paths.models_dir(), base_port=server.http.port, name="tests", cache_size_bytes=1 << 20)
    assert changed is server
    assert "For other options, type: server = server.restart(" in capsys.readouterr().out


def test_models_with_faults_are_named_with_reasons_and_the_others_serve(tmp_path, free_base_port):
    _copy("good", tmp_path)
    _copy("syntax", tmp_path, **{"data_type: TYPE_FP32": "data_type TYPE_FP32"})
    _copy("unknown", tmp_path, **{'"python"': '"fortran"'})
    (tmp_path / "noconfig").mkdir()
    shutil.rmtree(_copy("noversion", tmp_path) / "1")
    (_copy("raises", tmp_path) / "1" / "model.py").write_text("raise ValueError('broken on purpose')")
    (_copy("nofile", tmp_path) / "1" / "model.py").unlink()  # Triton alone would wait for this one for ever
    with pytest.warns(ModelWarning) as caught:
        server = launch_server(tmp_path, base_port=free_base_port())
    with server:
        message = str(caught[0].message)
        assert message.startswith("6 of 7 models could not be loaded")
        assert re.search(r"syntax: config.pbtxt, line 8, column \d+: Expected \":\"", message)
        assert re.search(r"unknown: .*fortran", message)
        assert re.search(r"noconfig: no config.pbtxt", message)
        assert re.search(r"noversion: no version folder", message)
        assert re.search(r"raises: .*broken on purpose", message)
        assert re.search(r"nofile: .*model\.py", message)
        assert "Serving: good." in message
        states = {model.name: model for model in server.models()}
        assert states["good"].state == "READY"
        assert {model.state for name, model in states.items() if name != "good"} == {"UNAVAILABLE"}
        assert not server.is_ready()
        assert server.is_alive()
        assert "broken on purpose" in server._repr_html_()


@pytest.mark.parametrize(("make", "words"), [(False, "no model repository"), (True, "is empty")])
def test_a_missing_or_empty_repository_is_refused_before_anything_starts(tmp_path, make, words):
    path = tmp_path / "repository"
    if make:
        path.mkdir()
    with pytest.raises(SetupError, match=words):
        launch_server(path)


def test_a_server_environment_with_numpy_2_is_refused_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With it models would be READY and answer with empty tensors: the guard looks at what is installed, not at how it got there."""
    venv.create(tmp_path / "server", with_pip=False)
    packages = next((tmp_path / "server" / "lib").glob("python3*/site-packages"))
    (packages / "pytriton" / "tritonserver" / "bin").mkdir(parents=True)
    (packages / "pytriton" / "tritonserver" / "bin" / "tritonserver").touch()
    (packages / "numpy-2.4.6.dist-info").mkdir()
    (packages / "numpy-2.4.6.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 2.4.6\n")
    monkeypatch.setenv("COURSE_SERVER_ENV", str(tmp_path / "server"))
    with pytest.raises(SetupError, match=r"another numpy.*empty tensors.*Type: rm -r \S+ && python -m helpers install-server"):
        launch_server(paths.models_dir(), load=["add_sub"])


def test_a_shell_without_a_search_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_base_port: Callable[[], int]) -> None:
    """Triton starts every model's process by way of bash, and waits for ever when there is none to be found."""
    _copy("one", tmp_path)
    monkeypatch.setenv("PATH", "")
    with launch_server(tmp_path, base_port=free_base_port(), timeout_s=PATIENCE_S) as server:
        assert server.is_ready()


@pytest.mark.slow
def test_a_taken_port_moves_the_server_to_the_next_triple_and_the_card_says_so(tmp_path, free_base_port, capsys):
    """On which interface it is taken does not matter, which test_supervisor sees."""
    base = free_base_port()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", base + 1))
        other.listen()
        _copy("one", tmp_path)
        with launch_server(tmp_path, base_port=base) as server:
            assert server.http.port >= base + PORTS_PER_SERVER
            assert (server.grpc.port, server.metrics.port) == (server.http.port + 1, server.http.port + 2)
            assert f"Port {base}" in server.note
            assert server.note in server._repr_html_()
    assert f"Port {base}" in capsys.readouterr().out


@pytest.mark.slow
def test_servers_started_at_the_same_instant_get_different_ports(free_base_port, work):
    code = (
        "import sys; from helpers import launch_server; sys.stdin.readline()\n"
        f"with launch_server({str(paths.models_dir())!r}, base_port={free_base_port()}, load=['add_sub']) as s:\n"
        "    print('PORT', s.http.port, s.is_alive(), flush=True); sys.stdin.readline()"
    )
    many = [subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for process in many:
            process.stdin.write("go\n")
            process.stdin.flush()
        lines = [next(line for line in process.stdout if line.startswith("PORT")).split() for process in many]
    finally:
        for process in many:
            process.communicate("end\n")
    assert len({line[1] for line in lines}) == len(many)
    assert all(line[2] == "True" for line in lines)


def test_stop_ends_only_its_own_server_and_leaves_no_process(server, tmp_path, free_base_port):
    _copy("one", tmp_path)
    mine = launch_server(tmp_path, base_port=free_base_port())
    processes = session(mine.pid)
    assert len(processes) >= 2  # tritonserver and the stub of the Python model
    mine.stop()
    assert not any(alive(pid) for pid in processes)
    assert mine.state() == "stopped"
    assert "stopped" in repr(mine)
    mine.stop()  # a second time does nothing
    assert server.is_ready()


def test_a_port_that_cannot_be_leaves_no_folder_and_no_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COURSE_RUN_DIR", str(tmp_path / "run"))  # in that of all tests others launch servers meanwhile

    def there() -> set[Path]:
        logs = paths.log_dir()
        return {*run_folder.run_root().iterdir(), *(logs.iterdir() if logs.is_dir() else ())}

    before = there()
    with pytest.raises(InputError, match="base port 80 cannot be used"):
        launch_server("models", base_port=80, name="no such port")
    assert not there() - before


@pytest.mark.slow
def test_restart_keeps_options_and_takes_new_ones(tmp_path, free_base_port):
    _copy("one", tmp_path)
    first = launch_server(tmp_path, base_port=free_base_port())
    for impossible in ({"base_port": 80}, {"runtime": "slurm"}, {"listen": "nowhere"}, {"models": "nowhere"}):
        with pytest.raises(CourseError):
            first.restart(**impossible)
        assert first.state() == "running", f"{impossible} costs nothing"
    with first.restart(cache_size_bytes=1 << 20) as second:
        assert second.pid != first.pid
        assert second.spec.base_port == first.spec.base_port
        assert re.search(r"cache_enabled\s*\|\s*1", logged(second, "cache_enabled"))


@pytest.mark.slow
def test_a_killed_server_is_reported_with_what_to_do(tmp_path, free_base_port):
    _copy("one", tmp_path)
    mine = launch_server(tmp_path, base_port=free_base_port())
    processes = session(mine.pid)
    subprocess.run(["kill", "-9", str(mine.pid)], check=True)
    wait_until(lambda: mine.state() == "died")
    wait_until(lambda: not any(alive(pid) for pid in processes))
    told = r"(?s)signal 9.*The end of its log:\n.*Started Metrics Service.*Type: server = server\.restart\(\)"
    assert re.search(told, repr(mine))
    for question in (mine.models, mine.metadata, lambda: mine.config("one"), lambda: mine.reload("one")):
        with pytest.raises(ServerError, match=told):
            question()
    with launch_server(tmp_path, base_port=mine.spec.base_port) as again:
        assert again.is_ready() and again.pid != mine.pid, "a new one, not the dead one"


def test_a_command_that_cannot_start_shows_the_end_of_the_log(tmp_path, free_base_port):
    _copy("one", tmp_path)
    with pytest.raises(ServerError, match=r"(?s)did not start.*no-such-option.*doctor"):
        launch_server(tmp_path, base_port=free_base_port(), extra_arguments=["--no-such-option"])


@pytest.mark.parametrize("port", [0, 80, 70000])
def test_ports_that_cannot_be_are_refused(port):
    with pytest.raises(InputError, match="cannot be used"):
        launch_server(paths.models_dir(), base_port=port, name=f"port {port}")


def test_an_unknown_runtime_is_refused():
    with pytest.raises(SetupError, match="no runtime 'kubernetes'"):
        launch_server(paths.models_dir(), runtime="kubernetes")


def test_a_work_folder_without_permission_is_one_paragraph(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("a file where a folder should be")
    monkeypatch.setenv("COURSE_WORK", str(blocked / "work"))
    with pytest.raises(SetupError, match="log cannot be written"):
        launch_server(paths.models_dir(), name="blocked")


@pytest.mark.parametrize("prefix", ["", "http://", "grpc"])
def test_connect_finds_the_same_server_and_owns_nothing(server, prefix):
    url = f"grpc://{server.grpc_url}" if prefix == "grpc" else prefix + server.http_url
    remote = connect(url)
    assert (remote.http_url, remote.grpc_url, remote.metrics_url) == (server.http_url, server.grpc_url, server.metrics_url)
    assert not remote.owned
    assert "add_sub" in {model.name for model in remote.models()}
    remote.stop()
    assert server.is_ready()
    with pytest.raises(Exception, match="Only the owner"):
        remote.reload("add_sub")
    with pytest.raises(ServerError, match="Only the owner"):
        remote.restart()


def test_connect_by_the_grpc_port_without_a_scheme(server):
    assert connect(server.grpc_url).http_url == server.http_url


@pytest.mark.slow
def test_a_stop_while_models_load_ends_the_server_in_time(tmp_path, free_base_port):
    (_copy("sleeper", tmp_path) / "1" / "model.py").write_text(f"import time\ntime.sleep({2 * PATIENCE_S})\n")
    start = time.monotonic()
    with pytest.raises(ServerError, match="not ready after 3 s"):
        launch_server(tmp_path, base_port=free_base_port(), timeout_s=3)
    assert time.monotonic() - start < PATIENCE_S, "it did not wait for the model"


def test_connect_to_nothing_says_so(free_base_port):
    with pytest.raises(ServerError, match="No Triton server answers"):
        connect(f"localhost:{free_base_port()}")


def test_questions_about_a_model_that_is_not_there_name_those_that_are(server):
    with pytest.raises(Exception, match=r"'nope' is not loaded.*'add_sub'"):
        server.config("nope")


def test_administration_without_the_key_is_refused_over_http(server):
    from helpers.client import http

    for path in (
        "/v2/repository/index",
        "/v2/repository/models/add_sub/unload",
        "/v2/systemsharedmemory/region/x/register",
        "/v2/logging",
        "/v2/trace/setting",
    ):
        with pytest.raises(RequestError, match=r"403|Forbidden|restricted"):
            http.ask(server.http, path, {})
    assert server.is_ready()


@pytest.mark.parametrize("engine", ["apptainer", "docker", "podman"])
def test_a_dry_run_prints_the_container_command_without_the_key(engine, capsys):
    assert launch_server("models", runtime=engine, dry_run=True) is None
    command = capsys.readouterr().out
    assert command.startswith(f"{engine} run")
    assert f"tritonserver:{image_version()}-py3" in command
    for part in ("--model-repository=/models", "--http-port=9000", "--grpc-port=9001", "--metrics-port=9002", "--http-address=127.0.0.1"):
        assert part in command
    assert "$COURSE_ADMIN_KEY" in command


def test_a_missing_engine_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SetupError, match="apptainer is not on this machine"):
        launch_server("models", runtime="apptainer")
