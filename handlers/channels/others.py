"""The channels that need little: the log, NOTIFY, and the services that the library apprise knows.

Owns: their forms.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import structlog

from handlers.channels import NotAccepted
from pipeline.core.alert_message import Notification
from pipeline.errors import ConfigError

MOST_BYTES = 7_900  # of a payload of NOTIFY

log = structlog.get_logger("pgreflex.alert")


class Log:
    """Writes to the log: what fires as a warning (or error, when critical), what is over as information."""

    kind = "log"

    async def send(self, notification: Notification) -> None:
        level = {"info": "info", "critical": "error"}.get(notification.severity, "warning")
        for line in notification.alerts:
            getattr(log, level if line.status == "firing" else "info")(
                f"alert {line.status}",
                alert=line.rule,
                instance=line.instance,
                severity=line.severity,
                message=line.message,
                id=notification.id,
            )
        left = notification.firing + notification.resolved - len(notification.alerts)
        if left:
            getattr(log, level)("further alerts are not listed", count=left, id=notification.id)


class Notify:
    """Sends NOTIFY on a channel of the database; the payload is JSON, with as many alerts as fit."""

    kind = "notify"

    def __init__(self, notify: Callable[[str], Awaitable[None]]) -> None:
        self._notify = notify

    async def send(self, notification: Notification) -> None:
        fitting = notification
        while len(body := msgspec.json.encode(fitting)) > MOST_BYTES:
            alerts, groups = fitting.alerts, fitting.groups
            fitting = msgspec.structs.replace(
                fitting,
                alerts=alerts[: len(alerts) // 2],
                groups=groups if alerts else groups[: len(groups) // 2],
                more_groups=fitting.more_groups + (0 if alerts else len(groups) - len(groups) // 2),
                runbooks=fitting.runbooks if alerts else {},
            )
        await self._notify(body.decode())


class Apprise:
    """Tells the services of these addresses, of which the library apprise knows more than a hundred."""

    kind = "apprise"

    def __init__(self, urls: Sequence[str]) -> None:
        self._apprise = _library().Apprise()
        for number, url in enumerate(urls, 1):
            if not self._apprise.add(url):
                raise ConfigError(
                    f"apprise does not understand address {number} of a channel",
                    hint="Its documentation has the form of each service.",
                )

    async def send(self, notification: Notification) -> None:
        accepted = await self._apprise.async_notify(body=notification.text, title=notification.title)
        if not accepted:
            raise NotAccepted("one of the services did not accept it")


def _library() -> Any:
    try:
        import apprise  # noqa: PLC0415  # an extra that few install
    except ImportError:
        raise ConfigError(
            "channels of the type apprise need a library that is not installed",
            hint="Install it with: pip install 'pgreflex[apprise]'",
        ) from None
    return apprise
