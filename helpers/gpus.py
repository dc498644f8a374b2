"""Moved to :mod:`helpers.machine`; goes when nothing imports it from here."""

from helpers.machine import Gpu
from helpers.machine import gpus as here

__all__ = ["Gpu", "here"]
