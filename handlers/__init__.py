"""The built-in consumers, one a file: what pgreflex does with events."""
