"""The tokens of a statement without all that may differ between its calls.

Owns: what becomes of each token, how lists of any length become one, and how the result is written out. Must not
know what it is for; see fingerprint.py.

Lists are made one while they are read: an item that was there already is taken back. Inside a list of plain
constants the rest is passed over by one regular expression, so a megabyte of rows takes some 30 ms, not seconds.
"""

from __future__ import annotations

import re

from pipeline.core.sql_lexer import CONSTANTS, Kind, Token, skip_items, skip_rows, token_at
from pipeline.core.sql_words import BEFORE_VALUE, KEYWORDS, TYPES

VALUE = "\x01"  # stands for a constant; no token of a text that Postgres accepts contains it
MAX_TEXT = 10_000  # characters that are kept of a text; its tokens are read to the end
_MORE = " /*, ... */"
_LISTS = 8  # so many lists inside each other are made one; a bound on the work, not on what is accepted
_PLAIN_NAME = re.compile(r'"[a-z_][a-z0-9_$]*"')
_MADE_UP = re.compile(r'"?_|.*[0-9]')
_NO_VALUE_AFTER = {"null": {"is", "not", "set", "on"}, "true": {"is"}, "false": {"is"}}
_IN_ROW = f"(), {VALUE}"
_ONE_LIST = ([VALUE, ")"], ["array", "[", VALUE, "]", ")"])
_LONGEST_LIST = 6  # words, with the bracket before it
_LIKE_IN = {("=", "any"): ["in"], ("=", "some"): ["in"], ("<>", "all"): ["not", "in"]}
_OPENS_LIST = (["in", "("], ["array", "["])
_TIGHT_BEFORE = {")", "]", ",", ";", ".", "::", "[", ":", ".."}
_TIGHT_AFTER = {"(", "[", ".", "::", ":", ".."}
_SPACED = BEFORE_VALUE | {"exists", "filter", "lateral", "over", "partition", "set", "table"}
_QUERY = {"select", "with", "table", "values"}


class _Frame:
    """An open bracket, or the rows of `values`. place: where in the output it begins. is_list: whether it is
    counted as a list; collapses: whether an item counts once however often it comes. start: where its current item
    begins.
    """

    __slots__ = ("bracket", "collapses", "is_list", "place", "seen", "start")

    def __init__(self, bracket: str, place: int, *, is_list: bool) -> None:
        self.bracket = bracket
        self.place = place
        self.is_list = self.collapses = is_list
        self.start = place
        self.seen: set[str] = set()


class Reader:
    """Reads a text. out: its tokens. cut: it ends inside of something. bad: it is no SQL."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.out: list[str] = []
        self.cut = False
        self.bad = False
        self._place = 0
        self._frames = [_Frame("", 0, is_list=False)]
        self._lists = 0
        self._signs = 0  # unary ones at the end of the output
        self._operand = False  # whether the output ends with a value

    def read(self) -> None:
        last: Kind | None = None
        self.bad = "\0" in self.text
        while not self.bad:
            value_ended = self._operand and self.out[-1] not in TYPES
            token = token_at(self.text, self._place, operand=value_ended)
            self._place, kind = token.end, token.kind
            if kind is Kind.END or kind is Kind.CUT:
                self.cut = kind is Kind.CUT
                break
            top = self._frames[-1]
            if top.bracket == "values" and token.value not in {"(", ","}:
                self._close(top)
            if kind is Kind.OPERATOR:
                self._signs = self._signs + 1 if token.value in {"+", "-"} and not self._operand else 0
                self.out.append(token.value)
                self._operand = False
            else:
                self._take(token, last)
                self._signs = 0
            last = kind
        while self._frames[-1].bracket == "values":
            self._close(self._frames[-1])
        self.cut = self.cut or len(self._frames) > 1

    def _take(self, token: Token, last: Kind | None) -> None:
        kind = token.kind
        if kind is Kind.WORD:
            self._word(token.value)
        elif kind is Kind.MARK:
            self._mark(token)
        elif kind in CONSTANTS:
            self._constant(token, last)
        elif kind is Kind.NAME:
            self.out.append(_unquoted(token.value))
            self._operand = True
        else:
            self.bad = True

    def _word(self, word: str) -> None:
        out, top = self.out, self._frames[-1]
        before = out[-1] if out else ""
        if top.collapses and word in _QUERY and len(out) == top.start:
            top.collapses = False  # `in (select a, b ...)`: no list
        no_value = _NO_VALUE_AFTER.get(word)
        if no_value and before not in no_value and out[-2:] != ["is", "not"]:
            out.append(VALUE)
            self._operand = True
            return
        self._operand = word not in BEFORE_VALUE or before == "."
        out.append(word)

    def _constant(self, token: Token, last: Kind | None) -> None:
        out = self.out
        self._operand = True
        if token.kind is Kind.STRING and last is Kind.STRING:
            return  # 'a', and 'b' on the next line: one string
        if len(out) > 1 and out[-1] == "uescape":
            out.pop()
            return
        if token.kind is Kind.NUMBER and self._signs:
            del out[-self._signs :]
        if token.value.startswith("%") and out and out[-1] == "in":
            out += ("(", VALUE, ")")  # psycopg2 puts the brackets there
        else:
            out.append(VALUE)

    def _mark(self, token: Token) -> None:
        mark, out, top = token.value, self.out, self._frames[-1]
        self._operand = mark in {")", "]"}
        if mark in {"(", "["}:
            self._open(mark)
        elif self._operand:
            if top.bracket != ("(" if mark == ")" else "["):
                self.bad = True
                return
            self._close(top)
            out.append(mark)
            if mark == ")":
                _as_in(out, top.place - 1)
        elif mark == "," and top.collapses:
            item = self._end_item(top)
            self._place = max(self._place, self._after_alike(item, token.start))
            out.append(",")
            top.start = len(out)
        else:
            out.append(mark)

    def _open(self, bracket: str) -> None:
        out = self.out
        before, top = out[-1] if out else "", self._frames[-1]
        may = self._lists < _LISTS
        if bracket == "(" and before == "values" and may:
            self._push(_Frame("values", len(out), is_list=True))
        inner = top.collapses and top.bracket == "["  # array[[1, 2], [3, 4]]
        is_list = may and (before == "in" if bracket == "(" else before == "array" or inner)
        out.append(bracket)
        self._push(_Frame(bracket, len(out), is_list=is_list))

    def _push(self, frame: _Frame) -> None:
        self._frames.append(frame)
        self._lists += frame.is_list

    def _close(self, frame: _Frame) -> None:
        if frame.collapses:
            self._end_item(frame)
        self._frames.pop()
        self._lists -= frame.is_list

    def _end_item(self, frame: _Frame) -> str:
        """End the item that was read last; one that was there before is taken back with the comma before it."""
        out = self.out
        item = " ".join(out[frame.start :])
        if frame.start > frame.place and (not item or item in frame.seen):
            del out[frame.start - 1 :]
        frame.seen.add(item)
        return item

    def _after_alike(self, item: str, comma: int) -> int:
        """Where the constants, or rows of constants, end that follow this comma and are like this item."""
        if item == VALUE:
            return skip_items(self.text, comma)
        if item.startswith("(") and item.count("(") == 1 and not item.strip(_IN_ROW):
            return skip_rows(self.text, comma, item.count(VALUE))
        return comma


def _as_in(out: list[str], opening: int) -> None:
    """Write `= any (...)` as `in (...)` and `<> all (...)` as `not in (...)`, of a constant or an array."""
    if opening >= 2 and len(out) - opening <= _LONGEST_LIST and out[opening + 1 :] in _ONE_LIST:
        word = _LIKE_IN.get((out[opening - 2], out[opening - 1]))
        if word:
            out[opening - 2 :] = [*word, "(", VALUE, ")"]


def _unquoted(name: str) -> str:
    """The name as it would stand without quotes, where that is the same name."""
    return name[1:-1] if _PLAIN_NAME.fullmatch(name) and name[1:-1] not in KEYWORDS else name


def statements(tokens: list[str]) -> list[str]:
    """The tokens without empty statements, and without what does not matter in commands that carry no query."""
    out: list[str] = []
    start = 0
    for place in range(len(tokens) + 1):
        if place == len(tokens) or tokens[place] == ";":
            if place > start:
                out += [";", *_command(tokens[start:place])] if out else _command(tokens[start:place])
            start = place + 1
    return out


def _command(tokens: list[str]) -> list[str]:
    first, last = tokens[0], tokens[-1]
    if first == "set":
        return _setting(tokens)
    if (first in {"savepoint", "release"} or (first == "rollback" and "to" in tokens)) and len(tokens) > 1:
        return [*tokens[:-1], VALUE]
    if first in {"fetch", "move", "close", "deallocate"} and _MADE_UP.match(last):
        return [*tokens[:-1], VALUE]
    if first in {"declare", "prepare", "execute"} and len(tokens) > 1 and _MADE_UP.match(tokens[1]):
        return [first, VALUE, *tokens[2:]]
    return tokens


def _setting(tokens: list[str]) -> list[str]:
    """`set [local] name = value` without the value."""
    scope = 2 if tokens[1:2] in (["local"], ["session"]) else 1
    words = tokens[scope : scope + 2]
    if words[:1] in (["transaction"], ["constraints"], ["characteristics"]):
        return tokens
    if words[:1] in (["role"], ["authorization"]) or words == ["time", "zone"]:
        return [*tokens[: scope + 1 + (words[0] == "time")], VALUE]
    for place, token in enumerate(tokens[:8]):
        if token in {"=", "to"}:
            rest = tokens[place + 1 :]
            return [*tokens[:place], "=", *(rest if rest == ["default"] else [VALUE])]
    return tokens


def written(tokens: list[str]) -> str:
    """The tokens as one line of text, its values as `$1`, `$2` and so on; cut at MAX_TEXT characters."""
    parts: list[str] = []
    length = values = 0
    before = ""
    for place, word in enumerate(tokens):
        if parts and not (word in _TIGHT_BEFORE or before in _TIGHT_AFTER or (word == "(" and _calls(before))):
            parts.append(" ")
        before = word
        if word == VALUE:
            values += 1
            many = tokens[place - 2 : place] in _OPENS_LIST and tokens[place + 1 : place + 2] in ([")"], ["]"])
            parts.append(f"${values}{_MORE if many else ''}")
        else:
            parts.append(word)
        length += len(parts[-1]) + 1
        if length > MAX_TEXT:
            return "".join(parts)[:MAX_TEXT] + " ..."
    return "".join(parts)


def _calls(word: str) -> bool:
    """Whether a bracket stands close behind this word, as that of a function or a list of columns."""
    return (word[0].isalnum() or word[0] in '_"') and word not in _SPACED
