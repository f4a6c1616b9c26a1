"""Measurements: one file a claim, each ending with one line of JSON."""
