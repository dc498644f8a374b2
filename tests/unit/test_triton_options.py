"""Each option in the commands that we build and ship is one that the tritonserver for which it is meant knows."""

from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from helpers import launch_server, paths
from helpers.server import embedded as embedded_runtime
from helpers.server import in_container
from helpers.server.command import LaunchSpec
from helpers.server.containers import CHANGED_OPTIONS, ENGINES, image_version
from helpers.server.listening import Listening
from helpers.setup import environments

# The release for which this list was looked up; NVIDIA calls its server 2.74.0. Whoever changes VERSION looks it up again.
RELEASE = "26.10"
# triton-inference-server/server, src/command_line_parser.cc, the newest version that we could read (commit 5fd6bc48, 24.12 or later).
# No release's notes up to 26.10 name one that was taken away.
PARSER = """
allow-cpu-metrics allow-gpu-metrics allow-grpc allow-http allow-metrics allow-sagemaker allow-vertex-ai backend-config backend-directory
buffer-manager-thread-count cache-config cache-directory cuda-memory-pool-byte-size cuda-virtual-address-size disable-auto-complete-config
enable-peer-access exit-on-error exit-timeout-secs grpc-address grpc-header-forward-pattern grpc-http2-max-ping-strikes
grpc-http2-max-pings-without-data grpc-http2-min-recv-ping-interval-without-data grpc-infer-allocation-pool-size
grpc-infer-response-compression-level grpc-infer-thread-count grpc-keepalive-permit-without-calls grpc-keepalive-time grpc-keepalive-timeout
grpc-max-connection-age grpc-max-connection-age-grace grpc-max-response-pool-size grpc-port grpc-restricted-protocol grpc-root-cert
grpc-server-cert grpc-server-key grpc-use-ssl grpc-use-ssl-mutual help host-policy http-address http-header-forward-pattern http-port
http-restricted-api http-thread-count id load-model log-error log-file log-format log-info log-verbose log-warning metrics-address
metrics-config metrics-interval-ms metrics-port min-supported-compute-capability model-config-name model-control-mode model-load-gpu-limit
model-load-retry-count model-load-thread-count model-namespacing model-repository model-store pinned-memory-pool-byte-size rate-limit
rate-limit-resource repoagent-directory repository-poll-secs reuse-grpc-port reuse-http-port sagemaker-port sagemaker-safe-port-range
sagemaker-thread-count strict-readiness trace-config vertex-ai-default-model vertex-ai-port vertex-ai-thread-count
"""
# Of later releases: server pull request 8739 (26.04), and SECURITY.md and the notes of 26.10.
LATER = {"allow-client-shm", "http-max-input-size"}
KNOWN = {*PARSER.split(), *LATER}
# Still taken, with a warning, and so not for us.
DEPRECATED = {
    "strict-model-config", "response-cache-byte-size", "trace-file", "trace-level", "trace-rate", "trace-count", "trace-log-frequency",
}  # fmt: skip
# All that makes a command longer.
FULL = {"base_port": 9000, "cache_size_bytes": 1 << 24, "load": ["add_sub"], "gpu": True}


def options(words: list[str]) -> set[str]:
    """Names of the options behind the program."""
    return {word[2:].partition("=")[0] for word in words[words.index("tritonserver") + 1 :] if word.startswith("--")}


def test_the_list_is_of_the_images_release() -> None:
    assert image_version() == RELEASE
    assert not KNOWN & DEPRECATED


@pytest.fixture(scope="module")
def embedded() -> set[str]:
    """Options that the embedded server itself prints."""
    command = embedded_runtime.dry_command(LaunchSpec(repository=paths.models_dir()))
    program = next(Path(word) for word in command.words if word.endswith("/tritonserver"))
    said = subprocess.run([program, "--help"], capture_output=True, text=True, check=False, env=command.environment)
    return set(re.findall(r"^\s*--([a-z0-9-]+)", said.stdout + said.stderr, re.MULTILINE))


def test_what_the_embedded_server_knows_the_newer_one_knows_too(embedded: set[str]) -> None:
    """So the list that was read and the one that is printed bear each other out."""
    assert len(embedded) > 80
    assert embedded - KNOWN == DEPRECATED
    assert KNOWN - embedded == {*LATER, "grpc-infer-thread-count", "grpc-max-response-pool-size"}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_dry_run_for_an_image_has_no_option_that_the_release_does_not_know(engine: str, capsys: pytest.CaptureFixture[str]) -> None:
    launch_server("models", runtime=engine, dry_run=True, **FULL)  # type: ignore[arg-type]
    words = shlex.split(capsys.readouterr().out.partition("\n# ")[0].replace("\\\n", " "))
    assert options(words) <= KNOWN, options(words) - KNOWN
    assert {word.partition("=")[0].removeprefix("--") for word in CHANGED_OPTIONS} <= options(words)


def test_every_option_that_we_can_build_is_known_to_both(embedded: set[str]) -> None:
    """With the response cache, secrets, and ports that the supervisor keeps."""
    place = Listening(token="t" * 32)
    for spec in (LaunchSpec(), LaunchSpec(ports=("9000", "9001", "9002"))):
        spec = dataclasses.replace(spec, cache_size_bytes=1 << 24, place=place)
        built = options(["tritonserver", *spec.triton_arguments("/models")])
        assert {"cache-config", "http-restricted-api"} <= built
        assert built <= KNOWN & embedded


def test_the_embedded_server_is_not_told_what_it_does_not_know(embedded: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    launch_server("models", dry_run=True)
    words = shlex.split(capsys.readouterr().out.replace("\\\n", " "))
    words[next(index for index, word in enumerate(words) if word.endswith("/tritonserver"))] = "tritonserver"
    assert options(words) <= embedded
    for option in CHANGED_OPTIONS:
        assert option.partition("=")[0].removeprefix("--") not in options(words)
        assert option.partition("=")[0] in in_container.SINCE, "an older image would not start with it"


def test_files_for_clusters_and_compose_use_known_options() -> None:
    for name in ("compose.yaml", "server.def", "kubernetes/server.yaml", "kubernetes/supersonic-values.yaml"):
        text = (paths.root() / "containers" / name).read_text()
        found = set(re.findall(r"(?<![\w-])--([a-z][a-z0-9-]+)=", text[text.index("tritonserver") :]))
        assert "model-repository" in found
        assert found <= KNOWN, f"{name}: {found - KNOWN}"


@pytest.mark.parametrize(
    ("version", "kept"),
    [
        ("2.74.0", True),
        ("2.68.0", True),
        ("3.1.0", True),
        ("2.67.0", False),
        (environments.EMBEDDED_TRITON, False),
        ("", True),
        ("new", True),
    ],
)
def test_an_older_image_starts_without_newer_options(version: str, kept: bool) -> None:
    command = ["tritonserver", "--id=a", *CHANGED_OPTIONS, "--load-model=*"]
    wanted = command if kept else ["tritonserver", "--id=a", "--load-model=*"]
    assert in_container.known(command, version) == wanted
