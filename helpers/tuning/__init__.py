"""The search for the configuration that serves a given traffic best within a latency budget."""
