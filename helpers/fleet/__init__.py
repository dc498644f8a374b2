"""Several servers behind one address: Envoy shares the requests out."""

from helpers.fleet.fleet import Fleet, launch_fleet

__all__ = ["Fleet", "launch_fleet"]
