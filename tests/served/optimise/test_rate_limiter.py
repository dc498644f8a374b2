"""The rate limiter: instances that share a resource take turns, which shows in the time that requests wait."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from helpers import repository
from helpers.client import Client
from helpers.launch import launch_server
from tests.served.optimise import counted

SECONDS = 0.6
LIMITER = 'instance_group [ { count: 2 kind: KIND_CPU rate_limiter { resources [ { name: "gpu_memory" count: 1 } ] } } ]'


@pytest.mark.slow
@pytest.mark.parametrize("limited", [True, False], ids=["one resource", "no limit"])
def test_two_instances_with_one_resource_take_turns(tmp_path: Path, free_base_port: Callable[[], int], limited: bool) -> None:
    shutil.copytree(Path(__file__).parent / "models" / "waiting", tmp_path / "models" / "waiting")
    # Without priorities, so that nothing but the limiter decides.
    repository.change_config(tmp_path / "models" / "waiting", LIMITER, dynamic_batching=None)
    arguments = ["--rate-limit=execution_count", "--rate-limit-resource=gpu_memory:1"] if limited else ["--rate-limit=off"]
    request = {"SECONDS": np.full((1, 1), SECONDS, np.float32)}
    with (
        launch_server(tmp_path / "models", base_port=free_base_port(), name=f"limiter-{limited}", extra_arguments=arguments) as server,
        Client(server) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        assert server.config("waiting")["instance_group"][0]["rate_limiter"]["resources"][0]["name"] == "gpu_memory"
        list(pool.map(lambda _: client.infer("waiting", request), range(2)))
        waited_s = counted(server, "waiting", at_least=2)["queue_ns"] / 1e9
    # The second request waited for the first one's resource, although an instance was free.
    assert (waited_s > 0.5 * SECONDS) is limited, waited_s
