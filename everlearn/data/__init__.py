"""Data: sets in memory, where they come from, streams of how they change, and memories for replay."""
