"""`pgreflex alerts rules`: what is judged, how it fares, and changing it.

Owns: the verbs. What a rule may be is said by the database when it is written.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Unpack

import click
from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from pipeline.cli import alert_lines as lines
from pipeline.cli.alert_flags import ask, change, choices, tell
from pipeline.cli.flags import Verbs
from pipeline.cli.session import Session, pass_session
from pipeline.cli.timing_flags import labels_option, width
from pipeline.cli.timing_lines import shown
from pipeline.cli.words import counted
from pipeline.config_sections import AlertRule
from pipeline.core.alert_definition import Definition, RuleFields
from pipeline.db.alert_rules import AlertRules
from pipeline.db.alert_shapes import RuleRow
from pipeline.db.alert_view import AlertViews, near
from pipeline.db.connection import Database
from pipeline.errors import ConfigError, UsageError

HEALTH = ("ok", "error", "new", "off")


@click.group(cls=Verbs, short_help="What is judged, and how it fares.")
def rules() -> None:
    """Look at the rules and change them. A change counts from the next window.

    Example: pgreflex alerts rules list
    """


@rules.command("list", short_help="All rules and how they fare.")
@click.option("--health", callback=choices(*HEALTH), metavar="HEALTH", help="Only these: ok, error, new, off.")
@pass_session
def list_(session: Session, *, health: list[str] | None) -> None:
    """List the rules with their health and when they were judged last.

    Example: pgreflex alerts rules list --health error
    """
    found = [one for one in ask(session, lambda views: views.rules()) if not health or one.health in health]
    if session.json:
        session.print_json(found)
    elif found:
        tell(session, lines.rules(found, width(session)))
    else:
        session.hint("No rule is like that." if health else "There is no rule.")


def fields(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options for the columns of a rule; what is not given is not among the arguments."""
    options = [
        click.option("--metric", metavar="NAME", help="What is looked at: latency.p95, jobs.queue_age, ..."),
        click.option("--series", metavar="SERIES", help="For latency: a series, or with % a pattern."),
        click.option("--source", "sources", multiple=True, metavar="NAME", help="Only series of this source."),
        click.option("--label", "labels", multiple=True, callback=labels_option, metavar="KEY=VALUE",
                     help="Only instances with this label."),
        click.option("--query", metavar="SQL", help="A SELECT; each row is a bad instance."),
        click.option("--over", metavar="TIME", help="The window: '30 s', '1 minute'."),
        click.option("--comparison", type=click.Choice([">", ">=", "<", "<="]), help="When a value is bad."),
        click.option("--threshold", type=float, metavar="N", help="What the value is compared with."),
        click.option("--clear-threshold", type=float, metavar="N", help="While it fires, good only beyond this."),
        click.option("--need", type=int, metavar="N", help="Bad windows until it fires."),
        click.option("--keep-firing", type=int, metavar="N", help="Good windows until it is resolved."),
        click.option("--hold-max", type=int, metavar="N", help="Windows without data that a streak survives."),
        click.option("--min-samples", type=int, metavar="N", help="Fewer events are no data."),
        click.option("--max-instances", type=int, metavar="N", help="Instances that may pend or fire."),
        click.option("--severity", type=click.Choice(["info", "warning", "critical"]), help="How grave it is."),
        click.option("--message", metavar="TEXT", help="With {instance}, {value}, {label.NAME}, ..."),
        click.option("--runbook", metavar="URL", help="A link that tells what to do."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def _given(values: dict[str, Any]) -> RuleFields:
    given = {name: value for name, value in values.items() if value not in (None, ())}
    if "sources" in given:
        given["sources"] = list(given["sources"])
    return given  # type: ignore[return-value]


@rules.command(short_help="Make a rule.")
@click.argument("name")
@fields
@pass_session
def add(session: Session, /, name: str, **values: Any) -> None:
    """Make the rule NAME. It is judged from now on; a mistake is refused with the reason.

    Example: pgreflex alerts rules add "slow cart" --metric latency.p95 --series cart --threshold 50
    """

    async def work(db: Database) -> None:
        if await AlertViews(db).rule(name) is not None:
            raise UsageError(f"there is a rule {name} already", hint="`pgreflex alerts rules edit` changes it.")
        await AlertRules(db).set(name, **_given(values))

    change(session, work)
    _done(session, "added", name)


@rules.command(short_help="Change what is given of a rule.")
@click.argument("name")
@fields
@pass_session
def edit(session: Session, /, name: str, **values: Any) -> None:
    """Change what is given of the rule NAME and keep the rest.

    Example: pgreflex alerts rules edit "slow query" --threshold 250 --clear-threshold 200
    """
    given = _given(values)
    if not given:
        raise click.UsageError("nothing is given to change", ctx=click.get_current_context())
    _edit(session, name, "changed", **given)


@rules.command(short_help="Judge a rule again.")
@click.argument("name")
@pass_session
def enable(session: Session, name: str) -> None:
    """Judge the rule NAME again, from now on.

    Example: pgreflex alerts rules enable "slow query"
    """
    _edit(session, name, "enabled", enabled=True)


@rules.command(short_help="Judge a rule no more.")
@click.argument("name")
@pass_session
def disable(session: Session, name: str) -> None:
    """Judge the rule NAME no more; what it has firing is resolved.

    Example: pgreflex alerts rules disable "regression"
    """
    _edit(session, name, "disabled", enabled=False)


@rules.command(short_help="Delete a rule.")
@click.argument("name")
@pass_session
def remove(session: Session, name: str) -> None:
    """Delete the rule NAME; what it has firing is resolved. A built-in one does not come back by itself.

    Example: pgreflex alerts rules remove "slow cart"
    """

    async def work(db: Database) -> None:
        one = await _rule(db, name)
        if one.origin == "file":
            session.hint(FILE_HINT)
        await AlertRules(db).remove(name)

    change(session, work)
    _done(session, "removed", name)


@rules.command(short_help="What is wrong with rules.")
@click.argument("file", metavar="[NAME|FILE]", required=False)
@pass_session
def check(session: Session, file: str | None) -> None:
    """Look at all rules, at the rule NAME, or at those that a configuration FILE (with [[alerts.rules]]) would
    make; nothing is changed. Exit status 3 when something is wrong.

    Example: pgreflex alerts rules check pgreflex.toml
    """
    wrong = _check_file(session, Path(file)) if file and file.endswith(".toml") else _check(session, file)
    if session.json:
        session.print_json(wrong)
    for name, problem in wrong.items():
        if not session.json:
            session.print(f"{shown(name)}: {shown(problem)}")
    if not wrong:
        session.hint("Nothing is wrong.")
        return
    raise SystemExit(3)


def _check(session: Session, name: str | None) -> dict[str, str]:
    async def work(db: Database) -> dict[str, str]:
        found = [await _rule(db, name)] if name else await AlertViews(db).rules()
        problems = {one.name: await AlertRules(db).check(one.name) for one in found if one.enabled or name}
        return {one: problem for one, problem in problems.items() if problem is not None}

    return change(session, work)


def _check_file(session: Session, file: Path) -> dict[str, str]:
    found = [Definition(**rule.model_dump()) for rule in _read(file)]

    async def work(db: Database) -> dict[str, str]:
        refused = await AlertRules(db).refusals(found)
        return {
            name: f"{error.message}{f'; {error.hint}' if error.hint else ''}" for name, error in refused.items()
        }

    wrong = change(session, work)
    session.hint(f"{counted(len(found), 'rule')} in {file}.")
    return wrong


def _read(file: Path) -> list[AlertRule]:
    """The rules of a configuration file. Raises ConfigError."""
    try:
        told = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the file cannot be read: {error}", hint="Name a file that is there.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"this is not TOML: {error} (in {file})") from None
    section = told.get("alerts", {})
    try:
        return TypeAdapter(list[AlertRule]).validate_python(
            section.get("rules", []) if isinstance(section, dict) else []
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise ConfigError(f"{_refused(first)} (in {file})", hint="docs/alerts.md lists the fields.") from None


def _refused(error: ErrorDetails) -> str:
    """What is wrong in a file, in our words."""
    where = [f"rule {part + 1}" if isinstance(part, int) else part for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        return f"{where[0]}: there is no field {where[-1]}"
    return ": ".join([*where, error["msg"]])


FILE_HINT = (
    "It comes from a daemon's configuration, which writes it again when the daemon starts; change it there, too."
)


def _edit(session: Session, name: str, done: str, **given: Unpack[RuleFields]) -> None:
    async def work(db: Database) -> str | None:
        await _rule(db, name)
        return await AlertRules(db).edit(name, **given)

    if change(session, work) == "file":
        session.hint(FILE_HINT)
    _done(session, done, name)


async def _rule(db: Database, name: str) -> RuleRow:
    """The rule. Raises UsageError, with what is near, when there is none."""
    views = AlertViews(db)
    one = await views.rule(name)
    if one is None:
        names = [rule.name for rule in await views.rules()]
        raise UsageError(f"there is no alert rule {name[:100]}", hint=near(name, names))
    return one


def _done(session: Session, what: str, name: str) -> None:
    if session.json:
        session.print_json({what: name})
    else:
        session.print(f"{what}  {shown(name)}")
