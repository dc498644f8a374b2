"""Moved to :mod:`helpers.errors`; goes when nothing imports it from here."""

from helpers.errors import quoted, suggestion

__all__ = ["quoted", "suggestion"]
