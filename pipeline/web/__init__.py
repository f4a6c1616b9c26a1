"""The HTTP side: status endpoints, metrics and the live page."""
