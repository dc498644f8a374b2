"""The checkers, one module for each notebook."""
