"""A webhook: the notification as JSON, signed.

Owns: the form of the request. The header Pgreflex-Id is the notification's id, the same on every attempt. With a
secret there is Pgreflex-Signature: `sha256=` and the hexadecimal HMAC-SHA256 of the body under it.
"""

from __future__ import annotations

import hashlib
import hmac

import msgspec

from handlers.channels import posted
from pipeline.core.alert_message import Notification
from pipeline.core.outgoing import Post


class Webhook:
    """Posts to `url`; a status of 2xx is acceptance."""

    kind = "webhook"

    def __init__(self, url: str, post: Post, *, secret: str | None = None) -> None:
        self._url = url
        self._post = post
        self._secret = secret

    async def send(self, notification: Notification) -> None:
        body = msgspec.json.encode(notification)
        headers = {"Content-Type": "application/json", "Pgreflex-Id": notification.id}
        if self._secret is not None:
            headers["Pgreflex-Signature"] = signature(self._secret, body)
        await posted(self._post, self._url, body, headers, who="the webhook")


def signature(secret: str, body: bytes) -> str:
    """What Pgreflex-Signature must be; compare it in constant time."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
