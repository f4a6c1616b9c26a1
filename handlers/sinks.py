"""Where alerts are told: the log, and a webhook.

Owns: the form in which a notice is sent. Must not know when, how often, or which notices; and speaks no HTTP
itself: the webhook is handed a function that does.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeAlias

import msgspec
import structlog

from pipeline.core.alert_notice import Notice

Post: TypeAlias = Callable[[str, bytes, Mapping[str, str]], Awaitable[int]]
"""Sends a body by POST and returns the HTTP status; raises when there is none."""

log = structlog.get_logger("pgreflex.alert")


class NotAccepted(Exception):
    """A sink did not take a notice; the text says why, without secrets."""


class Sink(Protocol):
    """Someone who is told. `name` is unique among the sinks and stays the same over restarts."""

    @property
    def name(self) -> str: ...

    async def send(self, notice: Notice) -> None:
        """Tell it; return once it is accepted. Any exception means: not accepted, try again later."""


class LogSink:
    """Writes alerts to the log: firing as a warning (or error, when critical), resolved as information."""

    name = "log"

    async def send(self, notice: Notice) -> None:
        level = "info"
        if notice.change == "firing":
            level = {"info": "info", "critical": "error"}.get(notice.severity, "warning")
        getattr(log, level)(
            f"alert {notice.change}",
            alert=notice.rule,
            instance=notice.instance,
            severity=notice.severity,
            message=notice.message,
            id=notice.id,
        )


class WebhookSink:
    """Posts a notice as JSON; a status of 2xx is acceptance.

    The header Pgreflex-Id is the notice's id, the same on every attempt. With a secret there is
    Pgreflex-Signature, `sha256=` and the hexadecimal HMAC-SHA256 of the body under it.
    """

    def __init__(self, url: str, post: Post, *, secret: str | None = None, name: str = "webhook") -> None:
        self.name = name
        self._url = url
        self._post = post
        self._secret = secret

    async def send(self, notice: Notice) -> None:
        body = msgspec.json.encode(notice)
        headers = {"Content-Type": "application/json", "Pgreflex-Id": notice.id}
        if self._secret is not None:
            headers["Pgreflex-Signature"] = signature(self._secret, body)
        status = await self._post(self._url, body, headers)
        if not 200 <= status < 300:
            raise NotAccepted(f"the webhook answered {status}")


def signature(secret: str, body: bytes) -> str:
    """What Pgreflex-Signature must be; compare it in constant time."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
