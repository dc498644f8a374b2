"""The model repository: look at it, copy models to work on, read, change, check and compare their configs.

Typical use::

    from helpers import repository
    print(repository.tree("models"))
    repository.checkout("particlenet_PT")                                  # a copy in work/models, yours to edit
    repository.change_config("particlenet_PT", max_batch_size=64)
"""

from helpers.repository.configs import Comparison, change_config, compare, read_config
from helpers.repository.folders import Problem, checkout, faults, locate, problems, tree

__all__ = [
    "Comparison",
    "Problem",
    "change_config",
    "checkout",
    "compare",
    "faults",
    "locate",
    "problems",
    "read_config",
    "tree",
]
