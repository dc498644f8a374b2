"""The model repository: look at it, copy models to work on, read, change, check and compare their configs."""

from helpers.repository.configs import Comparison, change_config, compare, read_config
from helpers.repository.folders import checkout, faults, locate, problems, tree

__all__ = ["Comparison", "change_config", "checkout", "compare", "faults", "locate", "problems", "read_config", "tree"]
