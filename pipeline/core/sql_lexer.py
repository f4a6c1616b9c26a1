"""The words of a SQL text, as Postgres's own lexer would take it apart.

Owns: where a token begins and ends, and what kind it is. Knows no grammar and no meaning; see fingerprint.py.

It reads any text in one pass: every repetition is possessive, so a text of n characters takes a time in
proportion to n whatever it holds. `standard_conforming_strings` is taken to be on, which is the default.
"""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache
from typing import NamedTuple


class Kind(IntEnum):
    WORD = 1  # a keyword or a plain name; its value is folded to lower case
    NAME = 2  # a quoted name, as written
    STRING = 3
    NUMBER = 4
    PARAM = 5  # $1, and what psycopg puts in its place: %s, %(name)s
    OPERATOR = 6
    MARK = 7  # ( ) [ ] , ; . : :: := ..
    END = 8
    CUT = 9  # a string, name or comment that does not end
    BAD = 10  # a character that cannot be there


class Token(NamedTuple):
    kind: Kind
    value: str
    start: int
    end: int


CONSTANTS = frozenset({Kind.STRING, Kind.NUMBER, Kind.PARAM})

_BLANK = r"[ \t\n\r\f\v]"
_FIRST = r"A-Za-z_\x80-\U0010ffff"  # Postgres takes every character beyond ASCII for a letter
_REST = _FIRST + r"0-9"
_SKIP = rf"(?:{_BLANK}++|--[^\n\r]*+)*+"
_FORMAT = rf"%(?:\([^()]{{0,200}}+\)[sbt]|[sbt])(?![{_REST}$])"
_PLAIN = r"'[^']*+(?:''[^']*+)*+'"
_DIGITS = r"[0-9](?:_?[0-9])*+"
_NUMBER = (
    r"0[xX](?:_?[0-9a-fA-F])++|0[oO](?:_?[0-7])++|0[bB](?:_?[01])++"
    rf"|(?:{_DIGITS}(?:\.(?!\.)(?:{_DIGITS})?+)?+|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?+"
)
_TOKEN = re.compile(
    _SKIP + r"(?:"
    rf"(?P<string>(?:[bBxXnN]|[uU]&)?+{_PLAIN}"
    r"|[eE]'[^'\\]*+(?:(?:''|\\.)[^'\\]*+)*+'"
    rf"|(?P<quote>\$(?:[{_FIRST}][{_REST}]*+)?+\$).*?(?P=quote))"
    r'|(?P<name>(?:[uU]&)?+"[^"]*+(?:""[^"]*+)*+")'
    rf"|(?P<cut>(?:[bBxXnNeE]|[uU]&)?+'|(?:[uU]&)?+\"|\$(?:[{_FIRST}][{_REST}]*+)?+\$)"
    rf"|(?P<word>[{_FIRST}][{_REST}$]*+)"
    r"|(?P<param>\$[0-9]++)"
    rf"|(?P<number>{_NUMBER})"
    rf"|(?P<format>{_FORMAT})"
    rf"|(?P<operator>(?:[+*<>=~!@#^&|`?]|-(?!-)|/(?!\*)|%(?!{_FORMAT[1:]})){{1,63}}+)"
    r"|(?P<mark>::|:=|\.\.|[()\[\],;.:])"
    r"|(?P<comment>/\*)"
    r"|(?P<end>\Z)"
    r"|(?P<bad>.))",
    re.DOTALL,
)
_KINDS = {
    "word": Kind.WORD,
    "name": Kind.NAME,
    "string": Kind.STRING,
    "param": Kind.PARAM,
    "number": Kind.NUMBER,
    "mark": Kind.MARK,
    "end": Kind.END,
    "cut": Kind.CUT,
    "bad": Kind.BAD,
}
_COMMENT = re.compile(r"/\*|\*/")
_MAY_END_IN_SIGN = re.compile(r"[~!@#%^&|`?]")
_SIMPLE = rf"(?:[+-]?+(?:{_NUMBER})|{_PLAIN}|\$[0-9]++|(?i:null|true|false)(?![{_REST}$]))"
_MORE = rf"{_BLANK}*+,{_BLANK}*+{_SIMPLE}(?={_BLANK}*+[,)\]])"
_MORE_ITEMS = re.compile(rf"(?:{_MORE})*+")
_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def token_at(text: str, place: int, *, operand: bool = False) -> Token:
    """The token that follows `place`; blanks and comments before it are passed over.

    operand: whether what stands before is a value, so that `%s` is the remainder by a column `s`.
    """
    while True:
        match = _TOKEN.match(text, place)
        if match is None:  # the pattern takes any character and the end; not reached
            return Token(Kind.BAD, text[place : place + 1], place, place + 1)
        group = match.lastgroup or "bad"
        start, end = match.span(group)
        if group != "comment":
            break
        place = _after_comment(text, end)
        if place < 0:
            return Token(Kind.CUT, "/*", start, len(text))
    value = match[group]
    if group == "word":
        return Token(Kind.WORD, value.lower() if value.isascii() else value.translate(_LOWER), start, end)
    if group == "operator":
        value = _operator(value)
        return Token(Kind.OPERATOR, _SPELT.get(value, value), start, start + len(value))
    if group == "format":
        if operand and value[1] != "(":
            return Token(Kind.OPERATOR, "%", start, start + 1)
        return Token(Kind.PARAM, value, start, end)
    return Token(_KINDS[group], value, start, end)


def skip_items(text: str, place: int) -> int:
    """Where the run of `, constant` ends that begins at `place`."""
    match = _MORE_ITEMS.match(text, place)
    return match.end() if match else place


def skip_rows(text: str, place: int, columns: int) -> int:
    """Where the run of `, (constant, ...)` ends that begins at `place`, each with so many columns."""
    match = _rows(columns).match(text, place)
    return match.end() if match else place


@lru_cache(maxsize=64)
def _rows(columns: int) -> re.Pattern[str]:
    last = rf"{_SIMPLE}(?={_BLANK}*+[,)])"
    row = rf"\({_BLANK}*+{last}(?:{_BLANK}*+,{_BLANK}*+{last}){{{columns - 1}}}{_BLANK}*+\)"
    return re.compile(rf"(?:{_BLANK}*+,{_BLANK}*+{row}(?={_BLANK}*+(?:[,;)]|\Z)))*+")


_SPELT = {"!=": "<>", "%%": "%"}  # psycopg doubles the percent sign


def _operator(value: str) -> str:
    """As much of the characters as is one operator: `=-1` is `=` and `-1`, but `@-` is one."""
    if len(value) > 1 and value[-1] in "+-" and not _MAY_END_IN_SIGN.search(value):
        return value.rstrip("+-") or value[0]
    return value


def _after_comment(text: str, place: int) -> int:
    """Where the comment ends whose inside begins at `place`; comments nest. -1: it does not end."""
    depth = 1
    for match in _COMMENT.finditer(text, place):
        depth += 1 if match[0] == "/*" else -1
        if depth == 0:
            return match.end()
    return -1
