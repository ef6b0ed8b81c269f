"""Runs as tables, plots, crops and one HTML page."""
