"""The command `pgreflex`: its verbs, its global flags, and the one place where a call ends.

Owns: the exit status of every way a call can end. Knows no more of a verb than its name.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from pipeline import __version__
from pipeline.cli.activity import activity
from pipeline.cli.alerts import alerts
from pipeline.cli.cache import cache
from pipeline.cli.check import check
from pipeline.cli.daemon import health, status
from pipeline.cli.demo import demo
from pipeline.cli.emit import emit
from pipeline.cli.enqueue import enqueue
from pipeline.cli.faults import INTERRUPTED, of_click, of_defect, rendered
from pipeline.cli.flags import CONTEXT, global_flags
from pipeline.cli.jobs import jobs
from pipeline.cli.migrate import migrate
from pipeline.cli.queues import queues
from pipeline.cli.run import run
from pipeline.cli.schedules import schedules
from pipeline.cli.session import Programs, Session
from pipeline.cli.timings import timings
from pipeline.cli.version import version
from pipeline.cli.watch import unwatch, watch, watched
from pipeline.cli.workers import workers
from pipeline.cli.workflows import workflows
from pipeline.errors import DatabaseUnavailable, PgreflexError

VERBS = (
    run, demo, migrate, watch, unwatch, watched, emit, enqueue, jobs, queues, workers, workflows, schedules,
    timings, activity, alerts, cache, check, status, health, version,
)  # fmt: skip
HELP = """Reflexes for Postgres: caches, percentiles, alerts and jobs, driven by events.

Example: pgreflex demo
"""


class Program(click.Group):
    """The group of all verbs; turns every way a call can end into an exit status."""

    def __init__(self, programs: Programs, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._programs = programs

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def main(  # type: ignore[override]
        self, args: Sequence[str] | None = None, prog_name: str | None = "pgreflex", **extra: Any
    ) -> NoReturn:
        session = Session(self._programs)
        extra.pop("standalone_mode", None)
        sys.exit(self._ended(session, args, prog_name or "pgreflex", extra))

    def _ended(self, session: Session, args: Sequence[str] | None, prog_name: str, extra: dict[str, Any]) -> int:
        try:
            status = super().main(args, prog_name, standalone_mode=False, obj=session, **extra)
            sys.stdout.flush()
        except (KeyboardInterrupt, click.Abort):
            return INTERRUPTED
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            return error.exit_code
        except click.ClickException as error:
            return _tell(session, of_click(error))
        except PgreflexError as error:
            return _tell(session, error)
        except BrokenPipeError:
            # whoever read our output has gone; Python would complain once more when it flushes at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except Exception as error:
            click.echo(of_defect(error), err=True, nl=False)
            return 1
        return status if isinstance(status, int) else 0


def build(programs: Programs) -> click.Group:
    """The command with everything that it needs from the composition root."""
    group = Program(
        programs,
        name="pgreflex",
        help=HELP,
        context_settings=CONTEXT,
        params=list(global_flags(hidden=False)),
    )
    click.version_option(__version__, "-V", "--version", message="pgreflex %(version)s")(group)
    for verb in VERBS:
        group.add_command(verb)
    return group


def _tried(session: Session, error: PgreflexError) -> str:
    """Which address was tried, and who named it: the first question when no server answers."""
    if session.loaded is None or not isinstance(error, DatabaseUnavailable):
        return ""
    tried = session.loaded.settings()[0]
    return f"tried: {tried.value} ({tried.source})"


def _tell(session: Session, error: PgreflexError) -> int:
    text = rendered(error, where=_tried(session, error))
    if session.colored(sys.stderr):
        tag, _, rest = text.partition(":")
        text = f"{click.style(tag, fg='red', bold=True)}:{rest}"
    click.echo(text, err=True, color=True)
    return error.exit_status
