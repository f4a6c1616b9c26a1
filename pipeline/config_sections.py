"""The sections of the configuration: one class for each table of the file.

Owns: the settings of each section with their defaults and meanings, and how a variable spells a list. Knows
nothing of where values come from; pipeline/config.py does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    PositiveInt,
    SecretStr,
    StringConstraints,
)

from pipeline.config_channels import Channel, Secret
from pipeline.core.alert_definition import MESSAGE
from pipeline.core.seal import key_of

Token = Annotated[SecretStr, Field(min_length=16)]  # a shorter one can be guessed over the network
Queue = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
DEFAULT_CONCURRENCY = 10


def _key(value: SecretStr) -> SecretStr:
    key_of(value.get_secret_value())
    return value


Key = Annotated[SecretStr, AfterValidator(_key)]


def _queues(value: Any) -> Any:
    """`mail:10,*:5` as variables and flags spell it; a name without a number takes the default."""
    if not isinstance(value, str):
        return value
    parsed: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in value.split(","))):
        name, _, concurrency = part.rpartition(":") if ":" in part else (part, "", str(DEFAULT_CONCURRENCY))
        parsed[name.strip()] = concurrency
    return parsed


def names(value: Any) -> Any:
    """`shop.tasks,shop.mail` as variables spell it."""
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


def _texts(value: Any) -> Any:
    """Keys apart by commas, spaces or lines, as variables and files hold them."""
    return value.replace(",", " ").split() if isinstance(value, str) else value


def _lines(value: Any) -> Any:
    """Values apart by line breaks, as variables hold them."""
    return [line.strip() for line in value.splitlines() if line.strip()] if isinstance(value, str) else value


class Section(BaseModel):
    """One table of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Http(Section):
    host: str = Field(
        default="127.0.0.1", min_length=1, description="Address that the status page and the API listen on."
    )
    port: int = Field(default=8787, ge=0, le=65535, description="Their port; 0 takes any free one.")
    viewer_token: Token | None = Field(
        default=None,
        description="Token that may read, of 16 characters at least. Needed off loopback addresses.",
    )
    admin_token: Token | None = Field(
        default=None, description="Token that may also change state, of 16 characters at least."
    )


class Jobs(Section):
    queues: Annotated[dict[Queue, PositiveInt], BeforeValidator(_queues), Field(min_length=1)] = Field(
        default={"default": DEFAULT_CONCURRENCY},
        description="Queues that this process works on, and how many jobs of each at a time; `*` means all "
        "others. In a variable: `mail:10,*:5`.",
    )
    total: PositiveInt | None = Field(
        default=None,
        description="How many jobs this process runs at once over all queues, which then share the places by "
        "their weights. Unset: as many as the queues together.",
    )
    drain_seconds: float = Field(
        default=20.0,
        ge=0,
        le=86400,
        description="How long running work may take to finish when the process is told to stop.",
    )
    encryption_keys: Annotated[tuple[Key, ...], BeforeValidator(_texts)] = Field(
        default=(),
        description="Keys for the arguments of tasks with `encrypt=True`, each 32 bytes in base64 or "
        "hexadecimal. The first one encrypts, all of them decrypt. In a variable or a file: separated by "
        "commas or lines.",
    )
    export_dir: Path | None = Field(
        default=None,
        description="Directory on this machine that the task `pgreflex.export` writes to. Unset: nothing is "
        "exported.",
    )
    export_queries: bool = Field(
        default=False,
        description="Export jobs may bring any query, not only the name of a declared one. Then everybody who "
        "may enqueue can read whatever the role of `dsn` may read.",
    )


class Cache(Section):
    max_bytes: ByteSize = Field(
        default=ByteSize(64 * 1024 * 1024),
        gt=0,
        description="Memory for cached values; `64MiB` is understood.",
    )
    max_entries: PositiveInt = Field(default=100_000, description="How many values are kept at most.")
    max_staleness_seconds: float = Field(
        default=1.0,
        gt=0,
        le=3600,
        description="A cached read reflects all that was committed earlier than this.",
    )
    shared: bool = Field(
        default=False,
        description="Cached values are shared between all processes through a table of the database. Single reads "
        "and functions may say otherwise.",
    )
    self_check: bool = Field(
        default=True,
        description="Each process reads a sample of its cache's hits again, at most one a second, "
        "to see that they were right.",
    )


class Timings(Section):
    slow_ms: float = Field(
        default=1000.0,
        gt=0,
        description="Timings above this many milliseconds count as slow, the critical threshold.",
    )
    plans_per_minute: int = Field(
        default=10,
        ge=0,
        le=600,
        description="How many plans of slow queries each process asks for at most. 0: none.",
    )
    analyze_plans: bool = Field(
        default=False,
        description="Slow queries that surely do nothing but read tables are run again to measure their plan.",
    )


class AlertRule(Section):
    """One rule, with the fields of pipeline/core/alert_definition.py; the database says what is wrong with it."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    metric: str | None = None
    series: str | None = None
    sources: list[str] | None = None
    labels: dict[str, str] = {}
    query: str | None = None
    over: str = "1 minute"
    comparison: Literal[">", ">=", "<", "<="] = ">"
    threshold: float | None = None
    clear_threshold: float | None = None
    need: PositiveInt = 3
    keep_firing: PositiveInt = 2
    hold_max: PositiveInt = 3
    min_samples: PositiveInt = 1
    max_instances: PositiveInt = 500
    severity: Literal["info", "warning", "critical"] = "warning"
    message: str = MESSAGE
    runbook: str | None = None
    enabled: bool = True

    def __str__(self) -> str:
        return self.name


ChannelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]


def _tables(value: Any) -> Any:
    """A JSON object as variables hold it."""
    return json.loads(value) if isinstance(value, str) else value


def _rules(value: Any) -> Any:
    """A JSON array as variables hold it; no two rules of one name."""
    rules = json.loads(value) if isinstance(value, str) else value
    if isinstance(rules, list | tuple):
        names = [rule.get("name") for rule in rules if isinstance(rule, dict)]
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            raise ValueError(f"rules with names of their own; {double} is there twice")
    return rules


class Alerts(Section):
    rules: Annotated[tuple[AlertRule, ...], BeforeValidator(_rules)] = Field(
        default=(),
        description="Rules, each a table `[[alerts.rules]]` with the fields that [alerts.md](alerts.md) lists. "
        "The daemon writes them to the database when it starts, and deletes those of an earlier file. In a "
        "variable: a JSON array.",
    )
    webhook_url: Secret | None = Field(
        default=None,
        description="Where alerts are posted: short for a channel `webhook` in `alerts.channels`. "
        "Often holds a credential.",
    )
    webhook_secret: Secret | None = Field(default=None, description="Key that signs each post (HMAC-SHA256).")
    channels: Annotated[dict[ChannelName, Channel], BeforeValidator(_tables)] = Field(
        default={},
        description="Who is told, each a table `[alerts.channels.NAME]` with the fields that "
        "[alerts.md](alerts.md#channels) lists. The channel `log` is always there. In a variable: a JSON object.",
    )


class Purge(Section):
    url: Secret | None = Field(
        default=None,
        description="Where a CDN, or another cache in front, is told what has changed. Unset: nobody is told.",
    )
    headers: Annotated[tuple[Secret, ...], BeforeValidator(_lines)] = Field(
        default=(),
        description="Headers to send along, each as `Name: value`, for instance with a credential. In a variable: "
        "separated by line breaks.",
    )
    tags_header: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9-]+$",
        description="Header that takes the tags, apart by spaces, as `Surrogate-Key`. Unset: the body is "
        '`{"tags": [...]}`.',
    )


class Log(Section):
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least that is logged."
    )
    format: Literal["auto", "text", "json"] = Field(
        default="auto", description="`auto`: aligned text on a terminal, logfmt elsewhere."
    )


class Feed(Section):
    two_phase: bool = Field(
        default=False,
        description="The applications use PREPARE TRANSACTION, which forbids NOTIFY: triggers then send "
        "none, and events are found by polling.",
    )
