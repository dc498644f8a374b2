"""The commands of ``python -m helpers``, one module each: ``add_arguments(parser)`` and ``run(args)``, which returns the exit status.

A :class:`~helpers.errors.CourseError` means: print its text and exit with 1.
"""
