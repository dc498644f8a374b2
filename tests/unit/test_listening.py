"""Where a server shall listen: names that mean this machine alone."""

from __future__ import annotations

import socket

import pytest

from helpers.errors import InputError
from helpers.server.listening import listening


@pytest.mark.parametrize("means", ["127.0.1.1", "127.0.0.1", "127.8.8.8"])
@pytest.mark.parametrize("name", [socket.gethostname(), "gpu-node", "gpu-node.site"])
def test_a_name_that_means_the_loopback_interface_is_refused(name: str, means: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Debian a machine's own name does; others were told to connect there."""
    monkeypatch.setattr(socket, "gethostbyname", lambda _: means)
    with pytest.raises(InputError, match=f"listen='{name}' means {means} on this machine, which other machines cannot reach.*'all'"):
        listening(name)


def test_a_name_of_an_interface_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    outside = next((a for a in _addresses() if not a.startswith("127.")), None)
    if outside is None:
        pytest.skip("this machine has no interface but the loopback one")
    monkeypatch.setattr(socket, "gethostbyname", lambda _: outside)
    place = listening("gpu-node")
    assert (place.address, place.name) == (outside, "gpu-node") and place.token


def _addresses() -> list[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)]


@pytest.mark.parametrize("here", ["", "localhost", "127.0.0.1"])
def test_this_machine_alone(here: str) -> None:
    assert listening(here, private=False).address == "127.0.0.1"
