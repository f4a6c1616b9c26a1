"""The global flags, which every verb takes before or after its name.

Owns: their spelling and which setting each overrides. Knows no verb.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pipeline.cli.session import Session

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 80}


class Verb(click.Command):
    """A command that also takes the global flags; its help leaves them to `pgreflex --help`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"context_settings": CONTEXT, **kwargs})
        own = {name for param in self.params for name in param.opts}
        self.params += [flag for flag in global_flags(hidden=True) if not own & set(flag.opts)]


class Verbs(click.Group):
    """Verbs below a common name; each takes the global flags, and so does the name."""

    command_class = Verb

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"context_settings": CONTEXT, **kwargs})
        self.params += global_flags(hidden=True)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of their definition."""
        return list(self.commands)


def global_flags(*, hidden: bool) -> list[click.Option]:
    """Fresh options; each writes into the session of its call."""

    def option(*names: str, keep: Callable[[Session, Any], None], **kwargs: Any) -> click.Option:
        def callback(context: click.Context, _param: click.Parameter, value: Any) -> None:
            if value:
                keep(context.ensure_object(Session), value)

        return click.Option(list(names), callback=callback, expose_value=False, hidden=hidden, **kwargs)

    return [
        option(
            "-c",
            "--config",
            metavar="FILE",
            keep=lambda session, value: setattr(session, "file", Path(value)),
            help="Configuration file instead of ./pgreflex.toml.",
        ),
        option(
            "-d",
            "--dsn",
            metavar="URL",
            keep=lambda session, value: session.set("dsn", value, "--dsn"),
            help="Address of the database.",
        ),
        option(
            "--json",
            is_flag=True,
            keep=lambda session, value: setattr(session, "json", value),
            help="Print data as JSON.",
        ),
        option(
            "-q",
            "--quiet",
            is_flag=True,
            keep=lambda session, _value: session.set("log.level", "error", "--quiet"),
            help="Log errors only.",
        ),
        option(
            "-v",
            "--verbose",
            is_flag=True,
            keep=lambda session, _value: session.set("log.level", "debug", "--verbose"),
            help="Log more.",
        ),
        option(
            "--color",
            type=click.Choice(["auto", "always", "never"]),
            keep=lambda session, value: setattr(session, "color", value),
            help="Whether to use colours; NO_COLOR is honoured.",
        ),
    ]
