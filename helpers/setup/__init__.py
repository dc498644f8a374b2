"""Set-up: finds a Python, makes the two environments, looks whether all is well, opens the course. Stands on the ground floor alone."""
