"""What others on the machine can reach and read: another Unix user tries for real."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import grpc
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from helpers.client import http
from helpers.client.endpoint import ADMIN_HEADER
from helpers.errors import RequestError
from helpers.server import isolation, lease
from tests.support.other_users import stranger_can
from tests.support.processes import listening, session

# "nobody" on every Linux.
_OTHER_USER = 65534
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="becoming another Unix user needs root")


def test_the_server_listens_on_the_loopback_interface_alone(server):
    assert listening(session(server.pid)) == {("127.0.0.1", port.port) for port in (server.http, server.grpc, server.metrics)}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/repository/index", {}),
        ("/v2/repository/models/add_sub/load", {"parameters": {"config": "{}"}}),
        ("/v2/repository/models/add_sub/unload", {}),
        ("/v2/systemsharedmemory/region/x/register", {"key": "/x", "offset": 0, "byte_size": 8}),
        ("/v2/systemsharedmemory/status", None),
        ("/v2/trace/setting", {"trace_level": ["TIMESTAMPS"]}),
        ("/v2/logging", {"log_verbose_level": 1}),
    ],
)
@pytest.mark.parametrize("headers", [{}, {ADMIN_HEADER: "guess"}, {ADMIN_HEADER: "$COURSE_ADMIN_KEY"}])
def test_http_administration_needs_the_key(server, path, body, headers):
    with pytest.raises(RequestError, match=r"(?i)restricted|forbidden|not allowed"):
        http.ask(server.http, path, body, headers=headers)
    assert server.is_ready()


def test_grpc_administration_needs_the_key(server):
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        for call in (
            client.get_model_repository_index,
            lambda headers=None: client.unload_model("add_sub", headers=headers),
            lambda headers=None: client.load_model("add_sub", headers=headers),
            client.get_system_shared_memory_status,
            client.get_trace_settings,
            client.get_log_settings,
        ):
            with pytest.raises(InferenceServerException) as refused:
                call()
            assert refused.value.status() == str(grpc.StatusCode.UNAVAILABLE)
            assert "protocol is restricted" in refused.value.message()
        index = client.get_model_repository_index(headers=server.admin_headers("grpc"))
        assert "add_sub" in {model.name for model in index.models}
        assert client.get_log_settings(headers=server.admin_headers("grpc")) is not None
    assert server.is_ready()


def test_inference_and_metrics_need_no_key(server):
    assert http.ask(server.http, "/v2/models/add_sub")["name"] == "add_sub"
    assert "nv_inference_request_success" in http.ask(server.metrics, "/metrics")


def test_the_key_is_in_no_command_line(server):
    key = server.admin_headers("http")[ADMIN_HEADER]
    assert len(key) >= 32
    assert isolation.KEY_SEEN not in server.log(lines=0)
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert key.encode() not in entry.read_bytes()
        except OSError:
            continue  # a process that has ended meanwhile


@needs_root
def test_another_user_can_neither_read_nor_stop_nor_take_over(server):
    run_dir = lease.run_root() / str(server._lease.state()["server_id"])
    tries = [
        ["cat", f"/proc/{server.pid}/environ"],
        ["ls", str(lease.run_root())],
        ["cat", str(run_dir / "state.json")],
        ["cat", str(server.log_path)],
        ["kill", "-9", str(server.pid)],
        ["kill", "-9", str(server._lease.state()["supervisor_pid"])],
    ]
    for command in tries:
        answer = subprocess.run(command, user=_OTHER_USER, group=_OTHER_USER, extra_groups=[], capture_output=True, text=True, check=False)
        assert answer.returncode != 0, command
        assert "ermi" in answer.stderr, (command, answer.stderr)  # "Permission denied", "not permitted"
    assert server.is_ready()


@needs_root
def test_another_user_can_neither_take_a_lease_nor_ask_for_the_end(server):
    run_dir = lease.run_root() / str(server._lease.state()["server_id"])
    for name, flags in (("lease", "os.O_RDONLY"), ("stop", "os.O_WRONLY | os.O_CREAT")):
        assert not stranger_can(f"os.open(sys.argv[1], {flags})", run_dir / name)
    assert server.is_ready()


@needs_root
def test_a_folder_that_somebody_else_made_first_is_refused(tmp_path, monkeypatch):
    squatted = tmp_path / "run"
    squatted.mkdir(mode=0o700)
    os.chown(squatted, _OTHER_USER, _OTHER_USER)
    monkeypatch.setenv("COURSE_RUN_DIR", str(squatted))
    with pytest.raises(Exception, match="not private to you"):
        lease.run_root()


def test_a_folder_that_others_can_enter_is_refused(tmp_path, monkeypatch):
    open_to_all = tmp_path / "run"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    monkeypatch.setenv("COURSE_RUN_DIR", str(open_to_all))
    with pytest.raises(Exception, match="not private to you"):
        lease.run_root()
