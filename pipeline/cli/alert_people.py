"""`pgreflex alerts ack`, `silence`, `resolve`, `note`, `test`: what people do with alerts.

Owns: these verbs, and how matchers are written.
"""

from __future__ import annotations

import asyncio
import getpass
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from pipeline.cli import alert_lines as lines
from pipeline.cli.alert_flags import ask, change, over_option, tell
from pipeline.cli.flags import Verb
from pipeline.cli.session import Session, pass_session
from pipeline.cli.timing_flags import width
from pipeline.cli.timing_lines import shown
from pipeline.cli.words import counted, moment_option
from pipeline.db.alert_people import AlertPeople
from pipeline.db.alert_view import AlertViews
from pipeline.db.connection import Database
from pipeline.errors import UsageError

POLL_SECONDS = 0.2
WAIT_SECONDS = 15.0
NOT_TOLD = 3


def _user(_context: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    """Who it is; without a name of the system's, the role of the session."""
    if value is not None:
        return value
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return None


BY = click.option("--by", callback=_user, metavar="NAME", help="Who does it; default: your name in the system.")
NOTE = click.option("--note", default="", metavar="TEXT", help="What is known of it.")


@click.command(cls=Verb, short_help="Somebody is at it: do not tell it again.")
@click.argument("rule")
@click.argument("instance", required=False)
@NOTE
@BY
@pass_session
def ack(session: Session, rule: str, instance: str | None, *, note: str, by: str | None) -> None:
    """Acknowledge what RULE has pending or firing, or one INSTANCE of it. It goes on and is shown; it is not told
    again until it is resolved, and that is told.

    Example: pgreflex alerts ack "slow query" --note "looking"
    """

    async def work(people: AlertPeople, meant: str | None) -> int:
        return await people.ack(rule, meant, note=note, by=by)

    _count(session, "acknowledged", _of(session, rule, instance, work))


@click.command(cls=Verb, short_help="Take an acknowledgement back.")
@click.argument("rule")
@click.argument("instance", required=False)
@BY
@pass_session
def unack(session: Session, rule: str, instance: str | None, *, by: str | None) -> None:
    """Take the acknowledgement of RULE, or of one INSTANCE, back: it is told again.

    Example: pgreflex alerts unack "slow query"
    """

    async def work(people: AlertPeople, meant: str | None) -> int:
        return await people.unack(rule, meant, by=by)

    count = _of(session, rule, instance, work)
    _count(session, "taken back", count)
    if not count:
        session.hint("Nothing of it was acknowledged.")


@click.command(cls=Verb, short_help="End an alert by hand.")
@click.argument("rule")
@click.argument("instance", required=False)
@NOTE
@BY
@pass_session
def resolve(session: Session, rule: str, instance: str | None, *, note: str, by: str | None) -> None:
    """End what RULE has pending or firing, or one INSTANCE of it. What is still bad in the next window begins
    anew.

    Example: pgreflex alerts resolve "lost order" id=42 --note "shipped again"
    """

    async def work(people: AlertPeople, meant: str | None) -> int:
        return await people.resolve(rule, meant, note=note, by=by)

    _count(session, "resolved", _of(session, rule, instance, work))


@click.command(cls=Verb, short_help="Write down what was found out.")
@click.argument("rule")
@click.argument("text")
@click.option("--instance", metavar="INSTANCE", help="Of this instance; default: of the rule.")
@BY
@pass_session
def note(session: Session, rule: str, text: str, *, instance: str | None, by: str | None) -> None:
    """Write TEXT into the history of RULE, also long after its alert has ended.

    Example: pgreflex alerts note "slow query" "an index was missing"
    """

    async def work(people: AlertPeople, meant: str | None) -> int:
        await people.note(rule, text, meant, by=by)
        return 1

    _of(session, rule, instance, work)
    _done(session, "noted", rule)


@click.command(cls=Verb, short_help="Do not tell what matches, for a while.")
@click.argument("matchers", nargs=-1)
@click.option("--for", "seconds", callback=over_option, metavar="TIME", help="For how long: 30m, 2h, 1d.")
@click.option("--until", callback=moment_option, metavar="TIME", help="Until when; UTC if it names no zone.")
@click.option("--reason", required=True, metavar="TEXT", help="Why, for whoever wonders later.")
@click.option("--everything", is_flag=True, help="Match all alerts; then without MATCHERS.")
@BY
@pass_session
def silence(
    session: Session, matchers: Sequence[str], *, seconds: float | None, until: float | None, reason: str,
    everything: bool, by: str | None,
) -> None:  # fmt: skip
    """Tell nothing of the alerts that match all MATCHERS, until a time. They fire all the same, and are shown.
    What still fires at the end is told then. Prints the number of the silence.

    A matcher is a rule, or one of rule=, severity=, instance=, kind= and label.NAME= with a text, in which *
    stands for any characters and a leading ! for not.

    Example: pgreflex alerts silence "slow*" label.region=eu --for 2h --reason "index is built"
    """
    meant = _matchers(matchers)
    if bool(meant) == everything:
        raise click.UsageError("give matchers, or --everything without them", ctx=click.get_current_context())
    if (seconds is None) == (until is None):
        raise click.UsageError("give --for or --until, for a silence has an end", ctx=click.get_current_context())
    if until is not None and until <= time.time():
        told = datetime.fromtimestamp(until, UTC).isoformat(sep=" ", timespec="seconds")
        raise UsageError(f"{told} is over", hint="Give a time that lies ahead; without a zone it is UTC.")

    async def work(db: Database) -> tuple[int, int]:
        id_ = await AlertPeople(db).silence(meant, reason, seconds=seconds, until=until, by=by)
        return id_, await AlertViews(db).matched(meant)

    id_, count = change(session, work)
    if session.json:
        session.print_json({"silence": id_, "matches": count})
        return
    session.print(f"silence  {id_}")
    session.hint(f"It holds back {counted(count, 'alert')} of those that fire now.")


@click.command(cls=Verb, short_help="End a silence now.")
@click.argument("number", type=click.IntRange(1, 2**63 - 1))
@BY
@pass_session
def unsilence(session: Session, number: int, *, by: str | None) -> None:
    """End the silence NUMBER now; what it held back and still fires is told.

    Example: pgreflex alerts unsilence 3
    """
    if not change(session, lambda db: AlertPeople(db).unsilence(number, by=by)):
        raise UsageError(f"there is no silence {number} that holds", hint="`pgreflex alerts silences` lists them.")
    _done(session, "ended", str(number))


@click.command(cls=Verb, short_help="What is not told, until when and why.")
@click.option("--past", is_flag=True, help="Also those that are over.")
@pass_session
def silences(session: Session, *, past: bool) -> None:
    """List the silences that hold, with who made them and why.

    Example: pgreflex alerts silences
    """
    found = ask(session, lambda views: views.silences(past=past))
    if session.json:
        session.print_json(found)
    elif found:
        tell(session, lines.silences(found, width(session)))
    else:
        session.hint("There was no silence." if past else "No silence holds.")


@click.command(cls=Verb, short_help="Send a test notification.")
@click.argument("channel")
@click.option("--no-wait", is_flag=True, help="Do not wait for what becomes of it.")
@BY
@pass_session
def test(session: Session, channel: str, *, no_wait: bool, by: str | None) -> None:
    """Send CHANNEL a test notification through everything that an alert passes, so a daemon with this channel has
    to run. Exit status 3 when it was not accepted within 15 seconds.

    Example: pgreflex alerts test webhook
    """

    async def work(db: Database) -> tuple[str, dict[str, Any]]:
        id_ = await AlertPeople(db).test(channel, by=by)
        views = AlertViews(db)
        end = time.monotonic() + (0.0 if no_wait else WAIT_SECONDS)
        while True:
            told = dict(await views.notification(id_) or {"state": "gone", "attempts": 0, "problem": None})
            if told["state"] != "open" or time.monotonic() >= end:
                return id_, told
            await asyncio.sleep(POLL_SECONDS)

    id_, told = change(session, work)
    if session.json:
        session.print_json({"notification": id_, **told})
    else:
        session.print(f"{told['state']}  {id_}")
        _explain(session, told, no_wait=no_wait)
    if told["state"] != "told" and not no_wait:
        raise SystemExit(NOT_TOLD)


def _explain(session: Session, told: dict[str, Any], *, no_wait: bool) -> None:
    if told["problem"]:
        session.hint(f"{told['problem']} (attempt {told['attempts']})")
    elif told["state"] == "open" and not no_wait:
        session.hint("Nobody has sent it. Does a daemon with this channel run? It will be sent when one does.")


def _matchers(texts: Sequence[str]) -> dict[str, str]:
    """`slow*` and `label.region=eu` as matchers."""
    meant: dict[str, str] = {}
    for text in texts:
        name, sign, value = text.partition("=")
        name, value = (name.strip(), value.strip()) if sign else ("rule", text)
        if name in meant:
            raise UsageError(f"{name} is given twice", hint="Each attribute once; all matchers must hold.")
        meant[name] = value
    return meant


def _of(
    session: Session, rule: str, instance: str | None, work: Callable[[AlertPeople, str | None], Awaitable[int]]
) -> int:
    """Do it to a rule, or to the instance of it that a text means."""

    async def done(db: Database) -> int:
        views = AlertViews(db)
        await views.known(rule)
        return await work(AlertPeople(db), None if instance is None else await views.instance(rule, instance))

    return change(session, done)


def _count(session: Session, what: str, count: int) -> None:
    if session.json:
        session.print_json({what: count})
    else:
        session.print(f"{what}  {counted(count, 'alert')}")


def _done(session: Session, what: str, name: str) -> None:
    if session.json:
        session.print_json({what: name})
    else:
        session.print(f"{what}  {shown(name)}")
