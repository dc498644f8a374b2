"""Where a server shall listen: names that mean this machine alone."""

from __future__ import annotations

import socket

import pytest

from helpers.errors import InputError
from helpers.server.listening import listening


@pytest.mark.parametrize("name", [socket.gethostname(), "gpu-node", "127.0.0.1 ", "::1"])
def test_what_is_no_address_is_refused(name: str) -> None:
    """A name can mean another thing elsewhere: on Debian a machine's own name means its loopback interface."""
    with pytest.raises(InputError, match=f"listen='{name}' is no address of this machine.*'all'"):
        listening(name)


def test_an_address_of_an_interface_is_taken() -> None:
    outside = next((a for a in _addresses() if not a.startswith("127.")), None)
    if outside is None:
        pytest.skip("this machine has no interface but the loopback one")
    place = listening(outside)
    assert (place.address, place.name) == (outside, outside) and place.token


def _addresses() -> list[str]:
    return [str(entry[4][0]) for entry in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)]


@pytest.mark.parametrize("here", ["", "localhost", "127.0.0.1"])
def test_this_machine_alone(here: str) -> None:
    assert listening(here, private=False).address == "127.0.0.1"
