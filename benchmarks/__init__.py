"""How fast the embedded server is, compared with the same network in one process and no server: ``make bench``."""
