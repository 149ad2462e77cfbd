"""Studies: one file for each published claim that is run again."""
