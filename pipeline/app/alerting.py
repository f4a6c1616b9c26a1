"""Channels from the configuration: who is told of alerts.

Owns: which channels there are, and with which secrets each is made. Knows nothing of how one sends.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from handlers.channels import Channel
from handlers.channels.command import Command
from handlers.channels.email import Email, Server
from handlers.channels.others import Apprise, Log, Notify
from handlers.channels.slack import Slack
from handlers.channels.webhook import Webhook
from handlers.notify import Target
from pipeline.config import Config
from pipeline.config_channels import Channel as Settings
from pipeline.config_channels import revealed
from pipeline.core.alert_flush import Pace
from pipeline.core.alert_round import Route
from pipeline.core.outgoing import Post
from pipeline.errors import ConfigError

PORTS: Mapping[str, int] = {"starttls": 587, "tls": 465, "none": 25}

Tell = Callable[[str, str], Awaitable[None]]
"""NOTIFY: the channel and the payload."""


def targets(config: Config, post: Post, tell: Tell) -> list[Target]:
    """Always the log, the webhook of the two old settings, and all of alerts.channels. Raises ConfigError."""
    settings = {"log": Settings(type="log"), **config.alerts.channels}
    if config.alerts.webhook_url is not None:
        if "webhook" in settings:
            raise ConfigError(
                "alerts.webhook_url and alerts.channels.webhook both set the channel webhook",
                hint="Leave one of them out, or give the other channel another name.",
            )
        settings["webhook"] = Settings(
            type="webhook", url=config.alerts.webhook_url, secret=config.alerts.webhook_secret
        )
    return [
        Target(
            Route(name, one.match),
            channel_of(name, one, post, tell),
            Pace(interval=one.interval, repeat=one.repeat),
        )
        for name, one in settings.items()
    ]


def channel_of(name: str, settings: Settings, post: Post, tell: Tell) -> Channel:
    """One channel. Raises ConfigError for a secret that cannot be read, and a library that is missing."""
    where = f"alerts.channels.{name}"
    match settings.type:
        case "webhook":
            secret = revealed(settings.secret, f"{where}.secret") or None
            return Webhook(revealed(settings.url, f"{where}.url"), post, secret=secret)
        case "slack":
            return Slack(revealed(settings.url, f"{where}.url"), post)
        case "email":
            server = Server(
                settings.host,
                settings.port or PORTS[settings.security],
                settings.security,
                settings.user,
                revealed(settings.password, f"{where}.password") or None,
            )
            return Email(server, sender=settings.sender, to=settings.to)
        case "apprise":
            return Apprise([revealed(url, f"{where}.urls") for url in settings.urls])
        case "notify":
            return Notify(partial(tell, settings.channel))
        case "command":
            return Command(settings.command, seconds=settings.seconds)
        case "log":
            return Log()
