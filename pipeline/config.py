"""The configuration: what can be set, and what holds now.

Owns: the settings of the top level, the order of the sources, and the words for a setting that cannot be used.
Knows nothing of what the settings do. pipeline/config_sections.py has the sections, pipeline/config_sources.py
reads the sources.

Order: defaults, then the TOML file, then PGREFLEX_* variables, then flags; the last one wins. Every value
keeps where it came from, because "which of the four is it" is the first question when something is amiss.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, ByteSize, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from pipeline import config_sources as sources
from pipeline.config_sections import Alerts, Cache, Feed, Http, Jobs, Log, Purge, Section, Timings, names
from pipeline.config_sources import Given
from pipeline.core.mask import MASK, mask_text, mask_url
from pipeline.errors import ConfigError

_ADDRESSES = ("dsn", "listen_dsn", "read_dsn")


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
    imports: Annotated[tuple[str, ...], BeforeValidator(names)] = Field(
        default=(),
        description="Python modules that define tasks and consumers. In a variable: separated by commas.",
    )
    http: Http = Http()
    jobs: Jobs = Jobs()
    cache: Cache = Cache()
    timings: Timings = Timings()
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
    found: list[str] = []
    for name, field in Config.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            found += [f"{name}.{inner}" for inner in section.model_fields]
        else:
            found.append(name)
    return found


def value_of(config: Config, key: str) -> Any:
    """The value of a dotted name."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def is_secret(key: str) -> bool:
    """Whether the setting may hold a secret, and may therefore be read from a file (PGREFLEX_..._FILE)."""
    return key in (*_ADDRESSES, "alerts.channels") or "SecretStr" in str(field_of(key).annotation)


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
        return ",".join(f"{name}:{one}" for name, one in value.items()) or "none"
    if isinstance(value, tuple):
        return ",".join(MASK if isinstance(one, SecretStr) else str(one) for one in value) or "none"
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
        named = path if key == "alerts.channels" else key
        where = f" ({one.source})" if one else ""
        got = "" if one is None or is_secret(key) else f", not {sources.quoted(one.value)}"
        length = detail.get("ctx", {}).get("min_length", 1)
        wanted = _wanted(detail) if length == 1 else f"at least {length} characters long"
        lines.append(f"{named}{where} should be {wanted}{got}")
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
