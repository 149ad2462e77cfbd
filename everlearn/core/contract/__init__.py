"""The checks behind `check_learner` and `check_agent`."""
