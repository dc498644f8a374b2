"""The checkers: `_check_N_M` judges exercise N.M."""
