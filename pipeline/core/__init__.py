"""Decisions, and nothing else: no clock, no I/O, no event loop, no driver."""
