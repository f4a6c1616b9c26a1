"""Rules as users make them: set, removed, listed, and kept as the configuration says.

Owns: the writing of pipeline.alert_rule. Must not know how rules are judged; the database checks them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Unpack

import msgspec

from pipeline.core.alert_definition import Definition, RuleFields, RuleHealth
from pipeline.db.connection import Connection, Database, translated
from pipeline.db.statements import statement
from pipeline.errors import QueryFailed, UsageError


class Conflict(UsageError):
    """Somebody else has changed it meanwhile."""


class AlertRules:
    """The rules of a database. All methods raise PermissionMissing for a role without rights on the tables."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def set(self, name: str, **fields: Unpack[RuleFields]) -> int:
        """Make a rule, or change the one of this name; what is not given is set to its default. Returns its id.

        Raises UsageError for a field that there is not, QueryFailed with the reason for what cannot be meant.
        """
        rule = _definition(name, fields)
        return int(await self._database.fetchval("alerts/set_rule", msgspec.json.encode(rule).decode()))

    async def replace(self, rule: Definition, *, version: str | None = None) -> bool:
        """As `set`; returns whether there was a rule of this name. version: which version has to be there.

        Raises Conflict when another is, or none.
        """
        async with self._locked(rule.name, version) as (connection, there):
            await connection.execute(statement("alerts/set_rule"), msgspec.json.encode(rule).decode())
        return there

    async def drop(self, name: str, *, version: str | None = None) -> bool:
        """As `remove`. version: which version has to be there. Raises Conflict when another is."""
        async with self._locked(name, version) as (connection, _there):
            return await connection.fetchval(statement("alerts/remove_rule"), name) is not None

    @asynccontextmanager
    async def _locked(self, name: str, version: str | None) -> AsyncIterator[tuple[Connection, bool]]:
        async with self._database.transaction() as connection:
            with translated():
                found = await connection.fetchval(statement("alerts/lock_rule_name"), name)
                if version is not None and found != version:
                    raise Conflict(f"somebody has changed the rule {name} meanwhile", hint="Read it again.")
                yield connection, found is not None

    async def edit(self, name: str, **fields: Unpack[RuleFields]) -> str | None:
        """Change what is given of a rule and keep the rest. Returns its origin; None when there is no such rule.

        Raises UsageError for a field that there is not, QueryFailed with the reason for what cannot be meant.
        """
        _definition(name, fields)
        row = await self._database.fetchrow("alerts/edit_rule", name, msgspec.json.encode(fields).decode())
        return None if row is None else str(row["origin"])

    async def refusals(self, rules: Sequence[Definition]) -> dict[str, QueryFailed]:
        """Which of these rules the database would not take, by name, with the reason; nothing is kept of them."""
        refused: dict[str, QueryFailed] = {}
        with suppress(_TriedOnly):
            async with self._database.transaction() as connection:
                for rule in rules:
                    text = msgspec.json.encode(rule).decode()
                    try:
                        with translated():
                            async with connection.transaction():
                                await connection.execute(statement("alerts/set_rule"), text)
                    except QueryFailed as error:
                        refused[rule.name] = error
                raise _TriedOnly
        return refused

    async def remove(self, name: str) -> bool:
        """Delete a rule; what it had firing is resolved. Returns whether there was one."""
        return await self._database.fetchval("alerts/remove_rule", name) is not None

    async def check(self, name: str) -> str | None:
        """What is wrong with a rule now; None when nothing is. Raises QueryFailed when there is no such rule."""
        problem: str | None = await self._database.fetchval("alerts/check_rule", name)
        return problem

    async def list(self) -> Sequence[RuleHealth]:
        """Every rule and how it fares, by name."""
        return [msgspec.convert(dict(row), RuleHealth) for row in await self._database.fetch("alerts/list_rules")]

    async def follow(self, rules: Sequence[Definition]) -> dict[str, str]:
        """Make the rules that came from a configuration be these; all others stay.

        Returns what could not be written, by name, with the reason.
        """
        text = msgspec.json.encode(rules).decode()
        return {row["name"]: row["problem"] for row in await self._database.fetch("alerts/follow_rules", text)}


class _TriedOnly(Exception):
    """Rolls back what was only tried."""


def _definition(name: str, fields: Mapping[str, object]) -> Definition:
    try:
        return msgspec.convert({"name": name, **fields}, Definition)
    except msgspec.ValidationError as error:
        raise UsageError(f"alert rule {name}: {error}", hint="docs/alerts.md lists the fields.") from None
