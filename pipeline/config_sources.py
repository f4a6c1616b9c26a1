"""Reads what was given: the TOML file, the environment, and addresses.

Owns: names, their nearest match, and where each value stood. Knows nothing of types and defaults, which
pipeline/config.py holds.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from pipeline.errors import ConfigError

PREFIX = "PGREFLEX_"
FILE_NAME = "pgreflex.toml"
REFERENCE = "docs/configuration.md lists every setting."

# A Kubernetes service that is named pgreflex puts these into every container beside it; they are not ours.
_KUBERNETES = re.compile(r"PGREFLEX_(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")
_TESTS = "PGREFLEX_TEST_"
_LIBPQ_ONLY = {
    "channel_binding",
    "connect_timeout",
    "fallback_application_name",
    "gssencmode",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "tcp_user_timeout",
}
_PAIR = re.compile(r"\s*(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|(?:[^\s'\\]|\\.)*)\s*")


@dataclass(frozen=True)
class Given:
    """A value as it was given, and where: `pgreflex.toml:3`, `env PGREFLEX_DSN`, `--dsn`."""

    value: Any
    source: str


def from_file(file: Path | None, directory: Path, known: Sequence[str]) -> dict[str, Given]:
    """The values of a TOML file. Raises ConfigError: unreadable, broken, an unknown key."""
    path = file or directory / FILE_NAME
    if file is None and not path.is_file():
        return {}
    try:
        text = path.read_bytes().decode("utf-8")
        tree = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror or error}", hint="Name a readable file with --config."
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 (byte {error.start})", hint="Save the file as UTF-8.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(
            f"{path} is not valid TOML: {_lower(str(error))}",
            hint='Text stands in quotes (host = "127.0.0.1"), tables in brackets ([http]).',
        ) from None
    lines = _lines(text)
    given: dict[str, Given] = {}
    unknown = []
    for key, value in _leaves(tree, known):
        where = f"{path}:{lines[key]}" if key in lines else str(path)
        if key in known:
            given[key] = Given(value, where)
        elif any(other.startswith(f"{key}.") for other in known):
            unknown.append(f"{where}: {key} is a table; write [{key}] on a line of its own")
        else:
            tables = {name.rpartition(".")[0] for name in known if "." in name}
            unknown.append(f"{where}: {_unknown(key, [*known, *sorted(tables)])}")
    _refuse(unknown)
    return given


def from_env(env: Mapping[str, str], known: Sequence[str], secrets: Sequence[str]) -> dict[str, Given]:
    """The values of PGREFLEX_* variables; an empty one counts as not set.

    `http.port` is PGREFLEX_HTTP__PORT or PGREFLEX_HTTP_PORT; PGREFLEX_HTTP_ADMIN_TOKEN_FILE names a file that
    holds the secret. Raises ConfigError: an unknown name, two names for one setting, an unreadable file.
    """
    names = {name: (key, False) for key in known for name in variables(key)}
    names |= {f"{name}_FILE": (key, True) for key in secrets for name in variables(key)}
    given: dict[str, Given] = {}
    problems = []
    for name in sorted(name for name in env if name.upper().startswith(PREFIX) and env[name] != ""):
        if name not in names:
            if not (name.startswith(_TESTS) or _KUBERNETES.fullmatch(name)):
                problems.append(f"env {name}: {_unknown(name, list(names))}")
            continue
        key, in_file = names[name]
        if key in given:
            problems.append(f"env {name} and {given[key].source} set the same thing")
            continue
        given[key] = _secret_in(env[name], name) if in_file else Given(env[name], f"env {name}")
    _refuse(problems)
    return given


def variables(key: str) -> list[str]:
    """The names of the variables that set a key, the plain one first."""
    name = PREFIX + key.upper()
    return list(dict.fromkeys((name.replace(".", "_"), name.replace(".", "__"))))


def database_url(env: Mapping[str, str]) -> dict[str, Given]:
    """The address in DATABASE_URL, which many platforms set."""
    url = env.get("DATABASE_URL")
    return {"dsn": Given(url, "env DATABASE_URL")} if url else {}


def address(given: Given) -> Given:
    """A database address as the driver takes it: pairs become a URL, `postgresql+driver:` loses the driver.

    Parameters that only tune libpq are left out; the driver would send them to the server, which refuses them.
    Raises ConfigError without repeating any of the address, because it may hold a password.
    """
    text = given.value
    if not isinstance(text, str):
        return given
    if "://" not in text:
        return replace(given, value=_without_libpq(_url_of_pairs(text, given.source), given.source))
    scheme, rest = text.strip().split("://", 1)
    if scheme.split("+")[0] not in {"postgres", "postgresql"}:
        raise ConfigError(
            f"the address of the database ({given.source}) does not begin with postgresql://",
            hint="Write postgresql://user:password@host:5432/database",
        )
    url = f"postgresql://{rest}"
    try:
        parts = urlsplit(url)
        several = "," in parts.netloc
        broken = parts.netloc.count("@") > 1 or (not several and parts.port == 0)
    except ValueError:
        broken = True
    if broken:
        raise ConfigError(
            f"the address of the database ({given.source}) cannot be taken apart",
            hint="Percent-encode special characters of the password: @ is %40, / is %2F, : is %3A, # is %23.",
        )
    return replace(given, value=_without_libpq(url, given.source))


def quoted(value: Any) -> str:
    """A value in a message; long ones are cut."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _url_of_pairs(text: str, source: str) -> str:
    pairs: dict[str, str] = {}
    end = 0
    while match := _PAIR.match(text, end):
        quoted_value = match[2].startswith("'")
        pairs[match[1]] = re.sub(r"\\(.)", r"\1", match[2][1:-1] if quoted_value else match[2])
        end = match.end()
    if not pairs or end != len(text):
        raise ConfigError(
            f"the address of the database ({source}) is neither a URL nor `key=value` pairs",
            hint="Write postgresql://user:password@host:5432/database",
        )
    return f"postgresql://?{urlencode(pairs)}"


def _without_libpq(url: str, source: str) -> str:
    head, _, query = url.partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    if ("channel_binding", "require") in pairs:
        raise ConfigError(
            f"the address of the database ({source}) requires channel binding, which the driver does not have",
            hint="Take channel_binding out; sslmode=verify-full makes sure of the server in another way.",
        )
    kept = [(name, value) for name, value in pairs if name not in _LIBPQ_ONLY]
    return url if kept == pairs else f"{head}?{urlencode(kept)}" if kept else head


def _secret_in(path: str, name: str) -> Given:
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"env {name} names {path}, which cannot be read: {reason}", hint="") from None
    if not text:
        raise ConfigError(f"env {name} names {path}, which is empty", hint="Put the secret into the file.")
    return Given(text, f"file {path} (env {name})")


def _leaves(tree: Mapping[str, Any], known: Sequence[str], above: str = "") -> Iterator[tuple[str, Any]]:
    sections = {key.rpartition(".")[0] for key in known}
    for name, value in tree.items():
        key = f"{above}{name}"
        if isinstance(value, dict) and key in sections:
            yield from _leaves(value, known, f"{key}.")
        else:
            yield key, value


def _lines(text: str) -> dict[str, int]:
    """The line of each key. tomllib tells none; a file that parsed is regular enough to look for them."""
    found: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.match(r"\s*\[\[?\s*([\w.\-\"' ]+?)\s*\]", line):
            table = re.sub(r"[\"' ]", "", match[1])
            found.setdefault(table, number)
            table += "."
        elif match := re.match(r"\s*([\w.\-\"' ]+?)\s*=", line):
            found.setdefault(table + re.sub(r"[\"' ]", "", match[1]), number)
    return found


def _unknown(name: str, known: Iterable[str]) -> str:
    def likeness(other: str) -> float:
        """Also without the table: a key at the top level often only lacks its table."""
        pairs = ((name, other), (name.rpartition(".")[2], other.rpartition(".")[2]))
        return max(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)

    nearest = max(known, key=likeness)
    hint = f"; did you mean {nearest}?" if likeness(nearest) >= 0.6 else ""
    return f"there is no setting {name}{hint}"


def _refuse(problems: list[str]) -> None:
    if problems:
        raise ConfigError("\n".join(problems), hint=REFERENCE)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
