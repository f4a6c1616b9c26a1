"""Which statements are one and the same but for their values.

Owns: the fingerprint of a text and the text that stands for its group. Pure; callers cache what they ask often.
Must not know where texts come from.

The text is read as tokens by a lexer of our own: one pass in linear time, no parser's version in the key, and the
same key for what a driver sends and what pg_stat_statements shows of it. The tests hold it against libpg_query,
which parses; a parser in C is nothing to put into every process that is timed, and cannot read a text cut short.

What never matters: literals, parameters, signs of numbers, blanks, comments, the case of what is not quoted, how
many items there are in `in (...)`, `array[...]` and `values (...), (...)`, the value in `set x = ...`, and the
names of savepoints, cursors and prepared statements that a driver made up. `in (...)` and `= any (...)` are one.
All else matters: names, operators, casts, and the order of columns and conditions.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Literal

import msgspec

from pipeline.core.normalised import VALUE, Reader, statements, written
from pipeline.core.sql_words import COMMANDS

FINGERPRINT_VERSION = 1  # to be raised when any text would get another fingerprint than before

UNPARSABLE = "<unparsable query>"
TRUNCATED = "<truncated query>"
UNAVAILABLE = "<query text unavailable>"
NO_PRIVILEGE = "<insufficient privilege>"
_HIDDEN = {  # what the server shows in place of a text
    "": UNAVAILABLE,
    "<command string not enabled>": UNAVAILABLE,
    "<backend information not available>": UNAVAILABLE,
    **{name: name for name in (UNPARSABLE, TRUNCATED, UNAVAILABLE, NO_PRIVILEGE)},
}

FingerprintKind = Literal["ok", "truncated", "unparsable"]


class Fingerprint(msgspec.Struct, frozen=True):
    """A group of statements. hex: 16 characters, the key. text: what stands for the group, its values as `$1` and
    so on; that of an "ok" one has the same fingerprint, unless it was cut at MAX_TEXT characters.

    kind: "truncated" for a text that ends inside of something: its key is made of what is there and is never that
    of a whole one. "unparsable" for what is no SQL, and for what the server shows in place of a text: these are
    one group each, under a name such as `<insufficient privilege>`.
    """

    version: int
    hex: str
    text: str
    kind: FingerprintKind


def fingerprint(text: str, *, cut: bool = False) -> Fingerprint:
    """The fingerprint of a text; never raises. cut: the text is known to lack its end."""
    hidden = _HIDDEN.get(text.strip()) if len(text) < 50 else None
    if hidden:
        return _made([hidden], "unparsable", hidden)
    reader = Reader(text)
    reader.read()
    tokens = statements(reader.out)
    first = next((word for word in tokens if word != "("), "")
    if reader.bad or (first and first not in COMMANDS and first != VALUE):
        return _made([UNPARSABLE], "unparsable", UNPARSABLE)
    if cut or reader.cut:
        return _made(tokens, "truncated", f"{written(tokens)} ..." if tokens else TRUNCATED)
    if not tokens or first == VALUE:
        hidden = UNPARSABLE if tokens else UNAVAILABLE
        return _made([hidden], "unparsable", hidden)
    return _made(tokens, "ok", written(tokens))


def _made(tokens: list[str], kind: FingerprintKind, text: str) -> Fingerprint:
    key = "\0".join([kind, *tokens]).encode("utf-8", "surrogatepass")
    return Fingerprint(FINGERPRINT_VERSION, blake2b(key, digest_size=8).hexdigest(), text, kind)
