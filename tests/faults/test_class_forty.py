"""Forty people on one node launch a server in the same moment, as forty Unix users where the tests run as root."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from helpers.server.ports import PORT_TRIPLES, PORTS_PER_SERVER
from tests.support import other_users

PEOPLE = 40
# Models for each of the forty, such as "add_sub": a Python process each, minutes on two cores. Without, servers are empty, which is
# enough for ports.
LOAD = os.environ.get("COURSE_FORTY_LOAD", "").split()


@pytest.mark.nightly
@pytest.mark.slow
def test_forty_servers_at_once_have_forty_disjoint_triples(
    free_base_port: Callable[[], int], record_property: Callable[[str, object], None]
) -> None:
    base = free_base_port()
    command = [sys.executable, "-m", "tests.support.forty_people", f"--people={PEOPLE}", f"--base-port={base}"]
    command += ["--as-users"] if other_users.can_run_as_users() else []
    command += ["--load", *LOAD] if LOAD else []
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=other_users.python_path(), timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(done.stdout.splitlines()[-1])
    figures = {name: record[name] for name in ("wall_s", "stop_s", "memory_mb")}
    print(f"\n{PEOPLE} servers at once, {' '.join(LOAD) or 'no model'}: {figures}")
    for name, value in figures.items():
        record_property(name, value)
    rows = record["rows"]
    assert len(rows) == PEOPLE
    # Each is READY, and what answers on a person's port is that person's server.
    assert all(row["ready"] and row["mine"] for row in rows)
    ports = [port for row in rows for port in row["ports"]]
    assert len(set(ports)) == PORTS_PER_SERVER * PEOPLE
    for first, second, third in (row["ports"] for row in rows):
        assert (second, third) == (first + 1, first + 2)
        assert (first - base) % PORTS_PER_SERVER == 0
        assert first < base + PORTS_PER_SERVER * PORT_TRIPLES
    # The system agrees, and nothing is open beyond the loopback interface.
    assert {int(port) for port in record["listening"]} == set(ports)
    assert {address for addresses in record["listening"].values() for address in addresses} <= {"127.0.0.1", "[::ffff:127.0.0.1]", "[::1]"}
    assert record["left"] == []
