"""Moved to :mod:`helpers.paths`; goes when nothing imports it from here."""

from helpers.paths import find, make_folder, read_text, replace, shown, writing

__all__ = ["find", "make_folder", "read_text", "replace", "shown", "writing"]
