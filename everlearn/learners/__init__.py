"""Learners, which learn from answers or from inputs alone: one file for each, and the steps that several share."""
