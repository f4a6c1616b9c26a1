"""The configuration: what can be set, and what holds now.

Owns: every setting with its default and meaning, the order of the sources, and the words for a setting that
cannot be used. Knows nothing of what the settings do. pipeline/config_sources.py reads the sources.

Order: defaults, then the TOML file, then PGREFLEX_* variables, then flags; the last one wins. Every value
keeps where it came from, because "which of the four is it" is the first question when something is amiss.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
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
    ValidationError,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from pipeline import config_sources as sources
from pipeline.config_sources import Given
from pipeline.core.mask import MASK, mask_text, mask_url
from pipeline.core.seal import key_of
from pipeline.errors import ConfigError

Secret = Annotated[SecretStr, Field(min_length=1)]
Token = Annotated[SecretStr, Field(min_length=16)]  # a shorter one can be guessed over the network
Queue = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
_ADDRESSES = ("dsn", "listen_dsn", "read_dsn")
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


def _names(value: Any) -> Any:
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


class Alerts(Section):
    webhook_url: Secret | None = Field(
        default=None, description="Where alerts are posted. Often holds a credential."
    )
    webhook_secret: Secret | None = Field(default=None, description="Key that signs each post (HMAC-SHA256).")


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


class Config(BaseSettings):
    """What holds now. Reads nothing by itself: `load` gathers the sources."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    dsn: str | None = Field(
        default=None,
        repr=False,
        min_length=1,
        description="Address of the database, as a URL or as `key=value` pairs. Unset: `DATABASE_URL`, then "
        "the PG* variables.",
    )
    listen_dsn: str | None = Field(
        default=None,
        repr=False,
        min_length=1,
        description="Address for LISTEN, past a transaction pooler. Unset: the same as `dsn`.",
    )
    read_dsn: str | None = Field(
        default=None,
        description="Address of one or more standbys. Queries of the cache in applications go there when the "
        "standby has replayed all that the feed has delivered, and else to `dsn`.",
    )
    imports: Annotated[tuple[str, ...], BeforeValidator(_names)] = Field(
        default=(),
        description="Python modules that define tasks and consumers. In a variable: separated by commas.",
    )
    http: Http = Http()
    jobs: Jobs = Jobs()
    cache: Cache = Cache()
    alerts: Alerts = Alerts()
    purge: Purge = Purge()
    log: Log = Log()
    feed: Feed = Feed()

    @property
    def listening_dsn(self) -> str | None:
        """The address for LISTEN."""
        return self.listen_dsn or self.dsn

    @classmethod
    def settings_customise_sources(  # type: ignore[override]  # the other sources are ours
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, **_others: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


@dataclass(frozen=True)
class Setting:
    """One effective value as it may be shown. source: `default`, `file:line`, `env NAME` or `--flag`."""

    key: str
    value: str
    source: str


@dataclass(frozen=True)
class Loaded:
    """A configuration and where each of its values came from."""

    config: Config
    sources: Mapping[str, str]

    def settings(self) -> list[Setting]:
        """Every setting in the order of the model, secrets masked."""
        return [
            Setting(key, shown(key, value_of(self.config, key)), self.sources.get(key, "default"))
            for key in keys()
        ]


def load(
    *,
    file: Path | None = None,
    flags: Mapping[str, Given] | None = None,
    env: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Loaded:
    """Gather all sources.

    file: as named by --config; None takes pgreflex.toml of `directory` (the current one) if there is one.
    flags: key to value and flag. Raises ConfigError that names every key at fault and its source.
    """
    env = os.environ if env is None else env
    known = keys()
    given = {
        **sources.database_url(env),
        **sources.from_file(file, directory or Path(), known),
        **sources.from_env(env, known, secrets=[key for key in known if is_secret(key)]),
        **(flags or {}),
    }
    for key in _ADDRESSES:
        if key in given:
            given[key] = sources.address(given[key])
    try:
        config = Config(**_nested(given))
    except ValidationError as error:
        raise ConfigError("\n".join(_problems(error, given)), hint=sources.REFERENCE) from None
    return Loaded(config, {key: one.source for key, one in given.items()})


def keys() -> list[str]:
    """Every setting by its dotted name: those of the top level, then section by section."""
    names: list[str] = []
    for name, field in Config.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            names += [f"{name}.{inner}" for inner in section.model_fields]
        else:
            names.append(name)
    return names


def value_of(config: Config, key: str) -> Any:
    """The value of a dotted name."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def is_secret(key: str) -> bool:
    """Whether the setting may hold a secret, and may therefore be read from a file (PGREFLEX_..._FILE)."""
    return key in _ADDRESSES or "SecretStr" in str(field_of(key).annotation)


def field_of(key: str) -> FieldInfo:
    """The model's description of a dotted name."""
    section, _, name = key.rpartition(".")
    model = type(getattr(Config(), section)) if section else Config
    return model.model_fields[name]


def shown(key: str, value: Any) -> str:
    """A value as a person may see it, in the spelling of a variable."""
    if value is None:
        return {"dsn": "the PG* variables", "listen_dsn": "same as dsn"}.get(key, "not set")
    if isinstance(value, SecretStr):
        return mask_url(value.get_secret_value()) if key.endswith("_url") else MASK
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, ByteSize):
        return value.human_readable()
    if isinstance(value, dict):
        return ",".join(f"{name}:{number}" for name, number in value.items())
    if isinstance(value, tuple):
        return ",".join(MASK if isinstance(one, SecretStr) else one for one in value) or "none"
    return mask_text(str(value))


def _nested(given: Mapping[str, Given]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, one in given.items():
        section, _, name = key.rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[name] = one.value
    return tree


def _problems(error: ValidationError, given: Mapping[str, Given]) -> list[str]:
    lines = []
    for detail in error.errors(include_input=False, include_url=False):
        path = ".".join(str(part) for part in detail["loc"])
        key = next((key for key in given if path == key or path.startswith(f"{key}.")), path)
        one = given.get(key)
        where = f" ({one.source})" if one else ""
        got = "" if one is None or is_secret(key) else f", not {sources.quoted(one.value)}"
        length = detail.get("ctx", {}).get("min_length", 1)
        wanted = _wanted(detail) if length == 1 else f"at least {length} characters long"
        lines.append(f"{key}{where} should be {wanted}{got}")
    return lines


def _wanted(detail: ErrorDetails) -> str:
    known = {
        "int_parsing": "a whole number",
        "int_type": "a whole number",
        "int_from_float": "a whole number",
        "float_parsing": "a number",
        "float_type": "a number",
        "bool_parsing": "true or false",
        "bool_type": "true or false",
        "string_type": "text",
        "string_too_short": "something, or left out",
        "too_short": "something, or left out",
        "dict_type": "name and number pairs such as mail:10",
    }
    text = known.get(detail["type"]) or detail["msg"]
    return text.removeprefix("Input should be ").removeprefix("Value error, ")
