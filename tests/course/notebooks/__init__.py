"""Tests of the notebooks: format, generation, execution."""
