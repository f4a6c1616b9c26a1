"""How an error looks on the command line, and the exit status that goes with it.

Owns: the words around an error, 80 columns, statuses. Knows no verb.

    error[login-failed]: Postgres refused the login: password authentication failed for user "app"
      hint: Check the user, the password and pg_hba.conf.
"""

from __future__ import annotations

import difflib
import textwrap
import traceback

import click

from pipeline.core.mask import mask_text
from pipeline.errors import PgreflexError, UsageError

WIDTH = 80
INTERRUPTED = 130
STATE_NOT_AS_ASKED = 3


def rendered(error: PgreflexError, *, where: str = "") -> str:
    """The error as text, wrapped; its first line begins with `error[code]:`. where: one more line."""
    lines: list[str] = []
    first, *more = mask_text(error.message).splitlines() or [""]
    lines += _wrapped(f"error[{error.code}]: {first}", "  ")
    for line in more:
        lines += _wrapped(f"  {line}", "  ")
    if where:
        lines += _wrapped(f"  {where}", "        ")
    for line in mask_text(error.hint).splitlines():
        lines += _wrapped(f"  hint: {line}", "        ")
    return "\n".join(lines)


def of_click(error: click.ClickException) -> UsageError:
    """A mistake in the arguments in our words, with the nearest verb or option."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command_path if context else "pgreflex"
    hint = f"Try `{command} --help`."
    if isinstance(error, click.NoSuchOption):
        near = difflib.get_close_matches(error.option_name, _options(context), n=1)
        return UsageError(f"`{command}` has no option {error.option_name}", hint=_nearest(near, "{}") or hint)
    verbs = list(context.command.commands) if context and isinstance(context.command, click.Group) else []
    name = getattr(error, "command_name", None)
    if name is not None:
        near = difflib.get_close_matches(name, verbs, n=1, cutoff=0.4)
        return UsageError(f"there is no command {name}", hint=_nearest(near, f"`{command} {{}}`") or hint)
    message = error.format_message().rstrip(".")
    return UsageError(message[:1].lower() + message[1:], hint=hint)


def of_defect(error: BaseException) -> str:
    """A defect of our own: the whole traceback, because it is for the one who mends it."""
    told = mask_text("".join(traceback.format_exception(error)))
    return f"{told}error[defect]: this is a defect of pgreflex, not a mistake of yours\n"


def _options(context: click.Context | None) -> list[str]:
    return [name for param in context.command.params for name in param.opts] if context else []


def _nearest(near: list[str], form: str) -> str:
    return f"Did you mean {form.format(near[0])}?" if near else ""


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
