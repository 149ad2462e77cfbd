"""Optimisers and schedules as values, the one gradient step of all learners, resets, and when to fit again."""
