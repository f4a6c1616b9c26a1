"""Where alerts are told: one kind of channel a file.

Owns: what a channel is. Must not know when, how often or of what a channel is told. A channel speaks no HTTP
itself: it is handed a function that does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from pipeline.core.alert_message import Notification
from pipeline.core.outgoing import NoAnswer, Post


class NotAccepted(Exception):
    """A channel did not take a notification; the text says why, without secrets.

    permanent: trying again cannot help. retry_after: seconds before which it should not be tried again.
    """

    def __init__(self, reason: str, *, permanent: bool = False, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.permanent = permanent
        self.retry_after = retry_after


class Channel(Protocol):
    """Someone who is told."""

    @property
    def kind(self) -> str: ...

    async def send(self, notification: Notification) -> None:
        """Tell; return once it is accepted. Raises NotAccepted; any other exception means: try again later."""


async def posted(post: Post, url: str, body: bytes, headers: Mapping[str, str], *, who: str) -> None:
    """POST and take 2xx for acceptance. Raises NotAccepted.

    408, 425, 429 and 5xx may be otherwise later; every other status, redirects too, will not.
    """
    try:
        answer = await post(url, body, headers)
    except NoAnswer as error:
        raise NotAccepted(f"{who}: {error}", permanent=error.permanent) from None
    if 200 <= answer.status < 300:
        return
    passing = answer.status >= 500 or answer.status in (408, 425, 429)
    raise NotAccepted(
        f"{who} answered {answer.status}",
        permanent=not passing,
        retry_after=answer.retry_after if passing else None,
    )
