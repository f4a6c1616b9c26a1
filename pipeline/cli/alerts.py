"""`pgreflex alerts`: what fires, since when, why, and what happened.

Owns: the verbs that look. How it looks is in alert_lines.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import click

from pipeline.cli import alert_lines as lines
from pipeline.cli.alert_flags import RULE, SEVERITY, STATE, ask, limit, over, tell
from pipeline.cli.alert_people import ack, note, resolve, silence, silences, test, unack, unsilence
from pipeline.cli.alert_rules import rules
from pipeline.cli.flags import Verbs
from pipeline.cli.session import Session, pass_session
from pipeline.cli.timing_flags import width
from pipeline.cli.timing_lines import shown
from pipeline.core.span import show_span
from pipeline.db.alert_shapes import AlertRow, ChangeRow, NoteRow, Shown
from pipeline.db.alert_view import AlertViews

SHOWN_INSTANCES = 50


@click.group(cls=Verbs, short_help="What fires, since when and why; rules.")
def alerts() -> None:
    """What fires, since when and why; what happened; and the rules. Read from tables, so no daemon has to run,
    but one has to for alerts to be judged and told.

    Example: pgreflex alerts list
    """


@alerts.command("list", short_help="What fires, pends or was just resolved.")
@STATE
@SEVERITY
@RULE
@limit(200)
@pass_session
def list_(
    session: Session, *, state: Sequence[str] | None, severity: Sequence[str] | None, rule: str | None, limit: int
) -> None:
    """List the alerts that fire or pend, and those that were resolved within 15 minutes, the gravest first.

    Example: pgreflex alerts list --state firing --json
    """

    async def work(views: AlertViews) -> list[AlertRow]:
        if rule is not None:
            await views.known(rule)
        return await views.alerts(states=state, severities=severity, rule=rule, limit=limit + 1)

    found = ask(session, work)
    if session.json:
        session.print_json(found[:limit])
    elif found:
        tell(session, lines.alerts(found[:limit], width(session)))
    else:
        session.hint("Nothing like that at present." if state or severity or rule else "No alert fires or pends.")
    if len(found) > limit:
        session.hint(f"There are more than {limit}; --limit shows more, --rule and --severity fewer.")


@alerts.command(short_help="Everything about one rule or alert.")
@click.argument("rule")
@click.argument("instance", required=False)
@pass_session
def show(session: Session, rule: str, instance: str | None) -> None:
    """Tell everything about a rule or a raised alert: how it is measured, where its instances stand, and what
    happened in 30 days. INSTANCE is the name of one, `label=value`, or a part of its name.

    Example: pgreflex alerts show "slow query" fingerprint=3fb2c01d9e7a4f10
    """
    found = ask(session, lambda views: views.show(rule, instance))
    if session.json:
        session.print_json(found)
    else:
        tell(session, _described(found, width(session)))


def _described(told: Shown, columns: int) -> list[str]:
    out = lines.rule(told.rule, columns) if told.rule else [f"{shown(told.name)}  (raised by SQL)"]
    if len(told.alerts) == 1:
        out += ["", *lines.life(told.alerts[0], columns)]
        if told.told:
            out += ["", *lines.told(told.alerts[0], told.told, columns)]
    elif told.alerts:
        out += ["", *lines.alerts(told.alerts[:SHOWN_INSTANCES], columns)]
        if len(told.alerts) > SHOWN_INSTANCES:
            out.append(
                f"and {len(told.alerts) - SHOWN_INSTANCES:,} more; `pgreflex alerts list --rule` lists them"
            )
    else:
        out += ["", "It neither fires nor pends."]
    if told.notifications:
        out += ["", *lines.notifications(told.notifications, columns)]
    if told.history or told.notes:
        out += ["", *lines.history(told.history, told.notes, columns, of_one=True)]
    return out


@alerts.command(short_help="What happened, the newest first.")
@over("1d")
@RULE
@limit(50)
@pass_session
def history(session: Session, *, over: float, rule: str | None, limit: int) -> None:
    """Tell how alerts went from state to state, and what people did and said of them, the newest first. It is
    kept for 90 days.

    Example: pgreflex alerts history --over 7d --rule "slow query"
    """

    async def work(views: AlertViews) -> tuple[list[ChangeRow], list[NoteRow]]:
        if rule is not None:
            await views.known(rule)
        changes = await views.history(over, rule=rule, limit=limit + 1)
        return changes, await views.notes(over, rule=rule, limit=limit)

    found, notes = ask(session, work)
    if session.json:
        session.print_json({"changes": found[:limit], "notes": notes})
    elif found or notes:
        tell(session, lines.history(found[:limit], notes, width(session)))
    else:
        session.hint(f"Nothing changed in the last {show_span(over)}.")
    if len(found) > limit:
        session.hint(f"There is more; --limit shows more than {limit}.")


@alerts.command(short_help="Who is told, and how each fares.")
@pass_session
def channels(session: Session) -> None:
    """List the channels that daemons were configured with, how many notifications each has not accepted yet, and
    why.

    Example: pgreflex alerts channels
    """
    found = ask(session, lambda views: views.channels())
    if session.json:
        session.print_json(found)
    elif found:
        tell(session, lines.channels(found, width(session)))
    else:
        session.hint("No daemon has run with channels within seven days.")


for verb in (ack, unack, silence, unsilence, silences, resolve, note, rules, test):
    alerts.add_command(verb)
