"""Contracts and the fold: what every other room stands on."""
