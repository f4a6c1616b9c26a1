"""A Slack-compatible incoming webhook, as Slack, Mattermost, Rocket.Chat and Discord (/slack) have it.

Owns: the form of the message. The address is the credential, so it is in no error.
"""

from __future__ import annotations

import msgspec

from handlers.channels import posted
from pipeline.core.alert_message import Notification
from pipeline.core.outgoing import Post

_COLOURS = {"critical": "#c62828", "warning": "#ef8f00", "info": "#3b6ea8"}
_RESOLVED = "#2e7d32"


class Slack:
    """Posts to the incoming webhook at `url`."""

    kind = "slack"

    def __init__(self, url: str, post: Post) -> None:
        self._url = url
        self._post = post

    async def send(self, notification: Notification) -> None:
        body = msgspec.json.encode(message(notification))
        headers = {"Content-Type": "application/json", "Pgreflex-Id": notification.id}
        await posted(self._post, self._url, body, headers, who="the chat")


def message(notification: Notification) -> dict[str, object]:
    """What is posted. Text of others is escaped, or `<!channel>` in it would call everybody."""
    firing = notification.status == "firing"
    colour = _COLOURS.get(notification.severity, _COLOURS["warning"]) if firing else _RESOLVED
    title = _escaped(notification.title)
    return {
        "text": title,
        "attachments": [
            {"color": colour, "text": _escaped(notification.text), "fallback": title, "mrkdwn_in": []}
        ],
    }


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
