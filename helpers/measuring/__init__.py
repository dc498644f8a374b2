"""Measuring: perf_analyzer, its rows as pandas tables, and what their numbers allow to say."""
