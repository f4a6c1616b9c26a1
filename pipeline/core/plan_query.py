"""Which texts a plan may be asked for, and in what form.

Owns: the decision, and the text with parameters in place of its literals. Knows no database: whether the text
means anything, and what it would do, only Postgres can tell; see pipeline/db/explain.py.
"""

from __future__ import annotations

import msgspec

from pipeline.core.sql_lexer import CONSTANTS, Kind, Token, token_at
from pipeline.core.sql_words import BEFORE_VALUE, TYPES

MAX_TEXT = 100_000  # characters; a longer text costs the server more than its plan is worth
PLANNED = frozenset({"select", "insert", "update", "delete", "merge", "with", "values", "table"})
_KEPT_AFTER = frozenset({"limit", "offset", "first", "next", "by"})  # page sizes, and columns by their numbers
_BEFORE_TYPE = frozenset({"::", "as"})


class Planned(msgspec.Struct, frozen=True):
    """A statement whose plan may be asked for. text: with `$1` and so on for psycopg's placeholders. without: the
    same without its literals, None where it has parameters: then its literals are the program's, not a user's.
    """

    text: str
    without: str | None


class NotPlanned(msgspec.Struct, frozen=True):
    """Why no plan is asked for; a sentence without its full stop."""

    reason: str


def planned(text: str) -> Planned | NotPlanned:
    """What may be explained of a text."""
    if len(text) > MAX_TEXT:
        return NotPlanned(f"the text is longer than {MAX_TEXT} characters")
    tokens = _tokens(text)
    if tokens is None:
        return NotPlanned("the text is truncated, or no SQL")
    first = next((token for token in tokens if token.value != "("), None)
    if first is None or first.kind is not Kind.WORD:
        return NotPlanned("the text is no statement")
    if any(token.kind is Kind.MARK and token.value == ";" for token in tokens):
        return NotPlanned("the text is more than one statement")
    if first.value not in PLANNED:
        return NotPlanned(f"{first.value} has no plan")
    numbered = _numbered(text, tokens)
    if any(token.kind is Kind.PARAM for token in tokens):
        return Planned(numbered, None)
    without = _without_literals(text, tokens)
    return Planned(text, without if without != text else None)


def _tokens(text: str) -> list[Token] | None:
    """The tokens but for semicolons at the end; None for a text that is not whole."""
    tokens: list[Token] = []
    place, operand = 0, False
    while True:
        token = token_at(text, place, operand=operand)
        if token.kind is Kind.END:
            break
        if token.kind in {Kind.CUT, Kind.BAD}:
            return None
        operand = token.kind in CONSTANTS or token.kind is Kind.NAME or token.value in {")", "]"}
        if token.kind is Kind.WORD:
            operand = token.value not in BEFORE_VALUE and token.value not in TYPES
        tokens.append(token)
        place = token.end
    while tokens and tokens[-1].kind is Kind.MARK and tokens[-1].value == ";":
        tokens.pop()
    return tokens


def _numbered(text: str, tokens: list[Token]) -> str:
    """The text with psycopg's placeholders as `$1` and so on; the same name has the same number."""
    numbers: dict[str, int] = {}
    parts: list[str] = []
    place = 0
    for token in tokens:
        if token.kind is Kind.PARAM and token.value.startswith("%"):
            name = token.value if "(" in token.value else f"%{len(numbers)}"
            number = numbers.setdefault(name, len(numbers) + 1)
            parts += (text[place : token.start], f"${number}")
            place = token.end
    end = tokens[-1].end
    return "".join([*parts, text[place:end]]) if parts else text[:end]


def _without_literals(text: str, tokens: list[Token]) -> str:
    """The text with parameters for its strings and numbers, wherever that is surely the same statement."""
    parts: list[str] = []
    place = count = 0
    for at, token in enumerate(tokens):
        if token.kind not in {Kind.STRING, Kind.NUMBER} or not _replaceable(tokens, at):
            continue
        before = tokens[at - 1]
        start, cast = token.start, ""
        if token.kind is Kind.STRING and before.kind is Kind.WORD and before.value in TYPES:
            start, cast = before.start, f"::{before.value}"  # date '2026-01-01'
        count += 1
        parts += (text[place:start], f"${count}{cast}")
        place = token.end
    return "".join([*parts, text[place : tokens[-1].end]])


def _replaceable(tokens: list[Token], at: int) -> bool:
    before = tokens[at - 1] if at else None
    if before is None:
        return False
    after = tokens[at + 1] if at + 1 < len(tokens) else None
    if tokens[at].kind is Kind.STRING:
        # strings in a row are one; `uescape` belongs to the one before; not every type may be written behind
        if before.kind is Kind.STRING or (after is not None and after.kind is Kind.STRING):
            return False
        if before.value == "uescape" or (after is not None and after.value == "uescape"):
            return False
        return before.kind is not Kind.WORD or before.value in TYPES or before.value in BEFORE_VALUE
    if before.kind is Kind.WORD and before.value in _KEPT_AFTER:
        return False
    return not _in_type(tokens, at)


def _in_type(tokens: list[Token], at: int) -> bool:
    """Whether a number is part of a type, as in `numeric(10, 2)`; rather too often than not often enough."""
    for back in range(at - 1, max(at - 6, 0), -1):
        if tokens[back].value == "(":
            return tokens[back - 1].kind is Kind.WORD and tokens[back - 2].value in _BEFORE_TYPE
        if tokens[back].value != "," and tokens[back].kind is not Kind.NUMBER:
            return False
    return False
