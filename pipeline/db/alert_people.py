"""What people do with alerts: acknowledge, silence, end, note, try a channel.

Owns: the calls. What each does is told at the functions in SQL; who may, the database decides.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pipeline.core.alert_match import problem_of
from pipeline.db.alert_view import meant
from pipeline.db.connection import Database
from pipeline.errors import UsageError


class AlertPeople:
    """database: open. by: who does it; None is the role of the session. instance: None means all of the rule.

    Raises UsageError for what cannot be meant, PermissionMissing for a role without rights.
    """

    def __init__(self, database: Database) -> None:
        self._db = database

    async def ack(self, rule: str, instance: str | None = None, *, note: str = "", by: str | None = None) -> int:
        """Say that somebody is at it: it is not told again until it is resolved. Returns how many."""
        with meant():
            return int(await self._db.fetchval("alert_people/ack", rule, instance, note, by))

    async def unack(self, rule: str, instance: str | None = None, *, by: str | None = None) -> int:
        """Take it back; returns how many were acknowledged."""
        with meant():
            return int(await self._db.fetchval("alert_people/unack", rule, instance, by))

    async def resolve(
        self, rule: str, instance: str | None = None, *, note: str = "", by: str | None = None
    ) -> int:
        """End by hand what pends or fires; what stays bad begins anew. Returns how many."""
        with meant():
            return int(await self._db.fetchval("alert_people/resolve", rule, instance, note, by))

    async def note(self, rule: str, note: str, instance: str | None = None, *, by: str | None = None) -> None:
        """Write down what was found out, also long after it ended."""
        with meant():
            await self._db.execute("alert_people/note", rule, note, instance, by)

    async def silence(
        self, matchers: Mapping[str, str], reason: str, *, seconds: float | None = None,
        until: float | None = None, by: str | None = None,
    ) -> int:  # fmt: skip
        """Tell nothing of what matches, for `seconds` or until a moment in Unix seconds; returns the number."""
        problem = problem_of(matchers)
        if problem is not None:
            raise UsageError(problem, hint="Such as rule=slow*, severity=!critical or label.region=eu.")
        text = msgspec.json.encode(matchers).decode()
        with meant():
            return int(await self._db.fetchval("alert_people/silence", text, reason, seconds, until, by))

    async def unsilence(self, id_: int, *, by: str | None = None) -> bool:
        """End a silence now; whether it still held."""
        return bool(await self._db.fetchval("alert_people/unsilence", id_, by))

    async def test(self, channel: str, *, by: str | None = None) -> str:
        """Tell a channel something, through everything that an alert passes. Returns the notification's id."""
        with meant():
            return str(await self._db.fetchval("alert_people/test", channel, by))
