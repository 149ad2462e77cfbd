"""The report: what a comparison found, in words, a table and charts, on one page that needs nothing else.

    record (plain dict, docs/architecture.md)  ->  decide  ->  sentences  ->  charts  ->  one HTML file, or a terminal table

Every sentence and title is computed from the figures of the record. The page loads nothing from anywhere.
"""

from everlearn.measure.report.page import render, write_report
from everlearn.measure.report.terminal import terminal_summary, terminal_table
from everlearn.measure.report.verdict import decide
from everlearn.measure.report.words import sentences, verdict_sentence

__all__ = ["decide", "render", "sentences", "terminal_summary", "terminal_table", "verdict_sentence", "write_report"]
