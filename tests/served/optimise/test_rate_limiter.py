"""The rate limiter: instances that share a resource take turns: the second request waits although an instance is free."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from helpers import repository
from helpers.client import Client
from helpers.metrics import scrape
from helpers.server import launch_server
from tests.served.optimise import counted
from tests.support.processes import wait_until

LIMITER = 'instance_group [ { count: 2 kind: KIND_CPU rate_limiter { resources [ { name: "gpu_memory" count: 1 } ] } } ]'


@pytest.mark.nightly
@pytest.mark.parametrize("limited", [True, False], ids=["one resource", "no limit"])
def test_two_instances_with_one_resource_take_turns(tmp_path: Path, free_base_port: Callable[[], int], limited: bool) -> None:
    shutil.copytree(Path(__file__).parent / "models" / "waiting", tmp_path / "models" / "waiting")
    # Without priorities, so that nothing but the limiter decides.
    repository.change_config(tmp_path / "models" / "waiting", LIMITER, dynamic_batching=None)
    arguments = ["--rate-limit=execution_count", "--rate-limit-resource=gpu_memory:1"] if limited else ["--rate-limit=off"]
    request = {"SECONDS": np.full((1, 1), -1, np.float32)}
    folder = tmp_path / "models" / "waiting"
    (folder / "held").touch()
    with (
        launch_server(tmp_path / "models", base_port=free_base_port(), name=f"limiter-{limited}", extra_arguments=arguments) as server,
        Client(server) as client,
        ThreadPoolExecutor(2) as pool,
    ):

        def begun() -> int:
            return len(list(folder.glob("begun-*")))

        assert server.config("waiting")["instance_group"][0]["rate_limiter"]["resources"][0]["name"] == "gpu_memory"
        answers = [pool.submit(client.infer, "waiting", request) for _ in range(2)]
        try:
            if limited:
                wait_until(lambda: begun() == 1 and scrape(server).value("nv_inference_pending_request_count", model="waiting") == 1)
                time.sleep(0.5)
                assert begun() == 1, "the other instance waits for the resource"
            else:
                wait_until(lambda: begun() == 2)
        finally:
            (folder / "held").unlink()
        for answer in answers:
            answer.result()
        assert begun() == 2 and counted(server, "waiting", at_least=2)["inferences"] == 2
