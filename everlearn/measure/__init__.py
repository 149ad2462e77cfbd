"""Measures: metrics, monitors, detectors of drift, plasticity, cost, off-policy estimates, and the report."""
