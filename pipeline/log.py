"""The log: one line an event, to stderr, without secrets.

Owns: how a line looks, what it leaves out, and how often it may come again. Knows nothing of who logs.

On a terminal lines are aligned text, elsewhere logfmt; json where it is asked for. The standard library's
loggers (asyncio, aiohttp) come out the same way.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Literal

import msgspec
import structlog
from structlog.typing import EventDict, Processor

from pipeline.core.mask import mask_text, mask_value

REPEAT_SECONDS = 60.0  # an identical warning comes at most this often
REMEMBERED = 1_000  # distinct warnings that are being counted

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def setup(
    level: Literal["debug", "info", "warning", "error"] = "info",
    form: Literal["auto", "text", "json"] = "auto",
    *,
    color: bool | None = None,
) -> None:
    """Set up the log of this process. color: None colours only a terminal."""
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _add_logger,
            Repeats(),
            structlog.processors.TimeStamper(
                fmt="%H:%M:%S" if _is_text(form) else "iso", utc=not _is_text(form), key="ts"
            ),
            structlog.processors.format_exc_info,
            mask,
            *_renderer(form, terminal if color is None else color),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=Stderr,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers = [handler for handler in root.handlers if not isinstance(handler, Bridge)]
    root.addHandler(Bridge())
    root.setLevel(max(_LEVELS[level], logging.WARNING if level == "info" else 0))


def as_guest() -> None:
    """In somebody else's process: log through the standard library, below the logger `pgreflex`.

    What structlog does unasked would print to that process's stdout. Where it is set up already, by us or by the
    application, it is left as it is.
    """
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            Repeats(),
            structlog.processors.format_exc_info,
            mask,
            _as_sentence,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


class Stderr:
    """Writes finished lines to whatever stderr is at that moment."""

    def __init__(self, name: str = "pgreflex") -> None:
        self.name = name

    def msg(self, line: str) -> None:
        try:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
        except (OSError, ValueError):  # a log that cannot be written must not end the work that it tells of
            pass

    log = debug = info = warn = warning = err = error = critical = fatal = exception = failure = msg


class Bridge(logging.Handler):
    """Hands records of the standard library's loggers to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        logger = structlog.get_logger(record.name)
        logger.log(record.levelno, record.getMessage(), exc_info=record.exc_info or None)


class Repeats:
    """Lets an identical warning through once in REPEAT_SECONDS; the next tells how many were not."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[tuple[str, ...], tuple[float, int]] = {}

    def __call__(self, _logger: Any, method: str, event: EventDict) -> EventDict:
        if method not in {"warning", "error", "critical", "exception"}:
            return event
        key = (method, *sorted(f"{name}={value!r}" for name, value in event.items()))
        now = self._clock()
        began, unsaid = self._seen.pop(key, (None, 0))
        if began is not None and now - began < REPEAT_SECONDS:
            self._seen[key] = (began, unsaid + 1)
            raise structlog.DropEvent
        self._seen[key] = (now, 0)
        while len(self._seen) > REMEMBERED:
            del self._seen[next(iter(self._seen))]
        if unsaid:
            event["repeated"] = unsaid
        return event


def mask(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Hide every secret of an event, by its name and by its looks."""
    text = event.get("event")
    masked = {name: mask_value(name, value) for name, value in event.items() if name != "event"}
    return {"event": mask_text(str(text)), **masked}


def _add_logger(logger: Any, _method: str, event: EventDict) -> EventDict:
    event["logger"] = getattr(logger, "name", "pgreflex")
    return event


def _is_text(form: str) -> bool:
    return form == "text" or (form == "auto" and sys.stderr.isatty())


def _renderer(form: str, color: bool) -> list[Processor]:
    if _is_text(form):
        return [structlog.dev.ConsoleRenderer(colors=color, pad_event_to=36, sort_keys=False)]
    if form == "json":
        return [structlog.processors.EventRenamer("msg"), _as_json]
    order = ["ts", "level", "logger", "msg"]
    return [
        structlog.processors.EventRenamer("msg"),
        structlog.processors.LogfmtRenderer(key_order=order, drop_missing=True, bool_as_flag=False),
    ]


def _as_json(_logger: Any, _method: str, event: MutableMapping[str, Any] | Mapping[str, Any]) -> str:
    ordered = {name: event.get(name) for name in ("ts", "level", "logger", "msg")} | dict(event)
    return msgspec.json.encode(ordered, enc_hook=repr).decode()


def _as_sentence(_logger: Any, _method: str, event: EventDict) -> str:
    """`leading the feed: term=1 seq=0`; the level and the logger's name are the standard library's to add."""
    text, trace = event.pop("event"), event.pop("exception", None)
    rest = structlog.processors.LogfmtRenderer(bool_as_flag=False)(_logger, _method, event)
    return "\n".join(filter(None, (f"{text}: {rest}" if rest else str(text), trace)))
