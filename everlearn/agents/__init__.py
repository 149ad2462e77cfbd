"""Agents, which learn from the consequences of their own choices: one file for each, and the rules and models that they share."""
