"""The channels of alerts in the configuration: who is told, and how.

Owns: the fields of a channel, which of them each type needs, and where its secrets are read from. Knows nothing of
how a channel sends.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, SecretStr, model_validator

from pipeline.core.alert_match import problem_of
from pipeline.errors import ConfigError

Secret = Annotated[SecretStr, Field(min_length=1)]

NEEDED: Mapping[str, tuple[str, ...]] = {
    "webhook": ("url",),
    "slack": ("url",),
    "email": ("host", "sender", "to"),
    "apprise": ("urls",),
    "notify": ("channel",),
    "command": ("command",),
    "log": (),
}
_MORE: Mapping[str, tuple[str, ...]] = {
    "webhook": ("secret",),
    "email": ("port", "security", "user", "password"),
    "command": ("seconds",),
}
_ALL = ("type", "match", "interval", "repeat")


class Channel(BaseModel):
    """One channel. A secret is the text itself, `env:NAME`, or `file:/path`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    type: Literal["webhook", "slack", "email", "apprise", "notify", "command", "log"]
    match: tuple[dict[str, str], ...] = ()
    interval: float = Field(default=30.0, ge=0, le=86_400)
    repeat: float = Field(default=4 * 3_600.0, ge=60, le=30 * 86_400)
    url: Secret | None = None
    urls: tuple[Secret, ...] = ()
    secret: Secret | None = None
    host: str = ""
    port: int = Field(default=0, ge=0, le=65_535)
    security: Literal["starttls", "tls", "none"] = "starttls"
    user: str | None = None
    password: Secret | None = None
    sender: str = ""
    to: tuple[str, ...] = ()
    channel: str = Field(default="", max_length=63)
    command: tuple[str, ...] = ()
    seconds: PositiveFloat = Field(default=30.0, le=35.0)

    @model_validator(mode="after")
    def _fits(self) -> Channel:
        known = (*_ALL, *NEEDED[self.type], *_MORE.get(self.type, ()))
        foreign = sorted(name for name in self.model_fields_set if name not in known)
        missing = [name for name in NEEDED[self.type] if not getattr(self, name)]
        if missing:
            raise ValueError(f"given {' and '.join(missing)}, which the type {self.type} needs")
        if foreign:
            raise ValueError(f"without {foreign[0]}, which the type {self.type} does not have")
        for matchers in self.match:
            problem = problem_of(matchers)
            if problem:
                raise ValueError(f"told of other alerts: {problem}")
        return self

    def __str__(self) -> str:
        return self.type


def revealed(secret: SecretStr | None, where: str, env: Mapping[str, str] | None = None) -> str:
    """The text of a secret, wherever it is; "" for none. where: the setting, for messages. Raises ConfigError."""
    text = "" if secret is None else secret.get_secret_value()
    kind, colon, name = text.partition(":")
    if not colon or kind not in ("env", "file"):
        return text
    if kind == "env":
        found = (os.environ if env is None else env).get(name, "")
        if not found:
            raise ConfigError(
                f"{where} names the variable {name}, which is not set", hint="Set it for the daemon."
            )
        return found
    try:
        found = Path(name).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"{where} names {name}, which cannot be read: {reason}", hint="") from None
    if not found:
        raise ConfigError(f"{where} names {name}, which is empty", hint="Put the secret into the file.")
    return found
