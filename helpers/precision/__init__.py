"""Fewer bits: variants of a model in lower precision, served beside it, and what they cost in physics."""

from helpers.precision.variants import cost, make

__all__ = ["cost", "make"]
