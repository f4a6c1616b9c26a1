"""Writes the list of settings in docs/configuration.md from the model, so that the two cannot differ.

Owns: how a setting is described. `python -m pipeline.cli.reference` prints what stands below `## Settings`; a
test compares.
"""

from __future__ import annotations

from pipeline.config import Config, field_of, is_secret, keys, shown, value_of
from pipeline.config_sources import variables


def settings() -> str:
    """Every setting with its meaning, its default and its variable, as Markdown."""
    return "\n".join(_entry(key) for key in keys())


def _entry(key: str) -> str:
    default = shown(key, value_of(Config(), key))
    secret = ", secret" if is_secret(key) else ""
    told = f"Default: {default}. Variable: `{variables(key)[0]}`{secret}."
    return f"### `{key}`\n\n{field_of(key).description}\n\n{told}\n"


if __name__ == "__main__":
    print(settings(), end="")
