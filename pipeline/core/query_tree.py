"""Postgres's own account of a query: the tree that parse analysis makes, read from its text form.

Owns: the text form of node trees (`pg_node_tree`). Must not know what any node means; see query_reads.py.

`{TAG :field value ...}` is a node, `(...)` a list, `<>` nothing, `"..."` a text in a list; a backslash stands
before what would otherwise be read as something else. Which fields a node has differs between versions of
Postgres, so nodes are read by their labels, and whoever asks for a field that is missing gets nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TypeAlias

Item: TypeAlias = "Node | list[Item] | str | None"

_WORD = re.compile(r'\s*("(?:\\.|[^"\\])*"|[(){}]|(?:\\.|[^\s(){}\\])+)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


class Node:
    """One node. fields: by label; a field of several words, such as the bytes of a constant, is a list."""

    __slots__ = ("fields", "tag")

    def __init__(self, tag: str, fields: dict[str, Item]) -> None:
        self.tag = tag
        self.fields = fields

    def node(self, label: str) -> Node | None:
        """The node in this field, or None."""
        found = self.fields.get(label)
        return found if isinstance(found, Node) else None

    def nodes(self, label: str) -> list[Node]:
        """The nodes of the list in this field."""
        found = self.fields.get(label)
        return [item for item in found if isinstance(item, Node)] if isinstance(found, list) else []

    def text(self, label: str) -> str:
        """The word in this field, '' where there is none."""
        found = self.fields.get(label)
        return found if isinstance(found, str) else ""

    def number(self, label: str) -> int:
        """The number in this field, 0 where there is none."""
        found = self.fields.get(label)
        return int(found) if isinstance(found, str) else 0

    def numbers(self, label: str) -> list[int]:
        """The numbers of a list such as `(o 96 98)` or `(b 8 9)`; its first word tells their kind."""
        found = self.fields.get(label)
        return [int(item) for item in found[1:] if isinstance(item, str)] if isinstance(found, list) else []

    def is_set(self, label: str) -> bool:
        """Whether this field says true."""
        return self.fields.get(label) == "true"

    def __repr__(self) -> str:
        return f"Node({self.tag})"


def read_tree(text: str) -> Item:
    """The tree of a text form. Raises ValueError for anything else."""
    reader = _Reader(text)
    item = reader.item()
    if reader.word is not None:
        raise ValueError("a node tree is followed by something else")
    return item


def walk(item: Item) -> Iterator[Node]:
    """Every node of a tree, the outer ones first."""
    todo = [item]
    while todo:
        one = todo.pop()
        if isinstance(one, Node):
            yield one
            todo.extend(reversed(one.fields.values()))
        elif isinstance(one, list):
            todo.extend(reversed(one))


def queries(item: Item) -> list[Node]:
    """The statements that a stored tree consists of: a view has one, the body of a function a list of lists."""
    if isinstance(item, Node):
        return [item] if item.tag == "QUERY" else []
    return [query for one in item or () for query in queries(one)] if isinstance(item, list) else []


class _Reader:
    """Takes the text apart, word by word; `word` is the next one, None at the end."""

    def __init__(self, text: str) -> None:
        self._matches = _WORD.finditer(text)
        self._length = len(text.rstrip())
        self._end = 0
        self.word: str | None = ""
        self.advance()

    def advance(self) -> None:
        match = next(self._matches, None)
        if match is None:
            if self._end != self._length:
                raise ValueError("a node tree ends in the middle")
            self.word = None
            return
        if match.start() != self._end:
            raise ValueError("a node tree with a character that cannot be there")
        self._end = match.end()
        self.word = match[1]

    def item(self) -> Item:
        word = self.word
        if word is None or word in "})":
            raise ValueError("a node tree that ends too early")
        self.advance()
        if word == "{":
            return self._node()
        if word == "(":
            return self._list()
        if word == "<>":
            return None
        if word.startswith('"'):
            word = word[1:-1]
        return _ESCAPED.sub(r"\1", word) if "\\" in word else word

    def _list(self) -> list[Item]:
        found: list[Item] = []
        while self.word != ")":
            found.append(self.item())
        self.advance()
        return found

    def _node(self) -> Node:
        tag = self.item()
        if not isinstance(tag, str):
            raise ValueError("a node without a name")  # noqa: TRY004 - of the text, not of a type
        fields: dict[str, Item] = {}
        while self.word != "}":
            label = self.item()
            if not isinstance(label, str) or not label.startswith(":"):
                raise ValueError(f"a field of {tag} without a label")
            values = [self.item()]  # the first is a value whatever it looks like: a name may begin with a colon
            while self.word is not None and self.word != "}" and not self.word.startswith(":"):
                values.append(self.item())
            fields[label[1:]] = values[0] if len(values) == 1 else values
        self.advance()
        return Node(tag, fields)
