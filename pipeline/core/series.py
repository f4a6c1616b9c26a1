"""What a timing belongs to: a series, its name, its labels, and the one text for both.

Owns: how names and labels are written, and what is done to those that are too long or ambiguous. Knows nothing
of timings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import blake2b

import msgspec

MAX_NAME = 200  # characters of a name, and of a label's value
MAX_BYTES = 2_000  # of a series' whole text: an index of Postgres takes 2,700
MAX_TOGETHER = 28  # characters of each part where it would be more: 2,400 bytes at most
MAX_LABELS = 10
# What would make the text of a series ambiguous, or cannot be stored.
_IN_NAMES = re.compile(r'[{}"\x00-\x1f\x7f]')
_IN_KEYS = re.compile(r'[{}",=\x00-\x1f\x7f]')
_IN_VALUES = re.compile(r'["\x00-\x1f\x7f]')


class Series(msgspec.Struct, frozen=True):
    """What a timing belongs to. text: name and labels as one; no two series have the same.

    source: what told it: table, query, transaction, span, sql, http, job or pool. labels: sorted by key.
    """

    text: str
    source: str
    name: str
    labels: dict[str, str] = {}


def series_name(name: str, labels: Mapping[str, object] | None = None) -> str:
    """One name for a name and its labels, sorted: `checkout{region="eu"}`. SQL's series_name agrees."""
    if not labels:
        return name
    inner = ",".join(f'{key}="{_label(value)}"' for key, value in sorted(labels.items()))
    return f"{name}{{{inner}}}"


def is_plain(text: str, labels: Mapping[str, object] | None) -> bool:
    """Whether a name of series_name has no marks but its own; otherwise it may be that of another series too."""
    return text.count('"') == 2 * len(labels) if labels else "{" not in text


def usable(name: str, labels: Mapping[str, object] | None, source: str) -> tuple[Series, int]:
    """A series as it can be stored, and how many of its texts had to be cut or left out.

    Characters that would make its text ambiguous, or cannot be stored, become `_`. What is longer than MAX_NAME
    gets a hash for its end, so that two long ones stay apart.
    """
    pairs = sorted((str(key), _label(value)) for key, value in (labels or {}).items() if str(key))
    kept = pairs[:MAX_LABELS]
    found = {_short(key, _IN_KEYS): _short(value, _IN_VALUES) for key, value in kept}
    cut = sum(len(text) > MAX_NAME for text in (name, *(text for pair in kept for text in pair)))
    short = _short(name, _IN_NAMES)
    text = series_name(short, found)
    if len(text) > MAX_BYTES // 4 and len(text.encode()) > MAX_BYTES:
        cut += 1
        short = _short(short, _IN_NAMES, MAX_TOGETHER)
        found = {
            _short(key, _IN_KEYS, MAX_TOGETHER): _short(value, _IN_VALUES, MAX_TOGETHER)
            for key, value in found.items()
        }
        text = series_name(short, found)
    return Series(text, source, short, found), cut + len(pairs) - len(kept)


def _label(value: object) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    text = msgspec.json.encode(value).decode()
    return text[1:-1] if text[0] == '"' else text  # what JSON has no type of its own for, as dates and UUIDs


def _short(text: str, unusable: re.Pattern[str], longest: int = MAX_NAME) -> str:
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()
    if len(text) > longest:
        mark = blake2b(text.encode(), digest_size=8).hexdigest()
        text = f"{text[: longest - 17]}~{mark}"
    return unusable.sub("_", text)
