"""Comparisons of learners: names, the grid of learners and seeds, engines, summaries."""
