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
    """The tree of a text form. Raises ValueError for anything else.

    A list is gathered as such, and a node as the list of its words and items, taken apart at its end.
    """
    outer: list[list[Item]] = []
    items: list[Item] = []
    labels: list[int] = []  # of the node that is being read, the places of its labels; of a list, none
    inner: list[list[int]] = []
    end = 0
    for match in _WORD.finditer(text):
        if match.start() != end:
            raise ValueError("a node tree with a character that cannot be there")
        end = match.end()
        word = match[1]
        first = word[0]
        if first in "({":
            outer.append(items)
            inner.append(labels)
            items, labels = [], [-1] if first == "{" else []
        elif first in ")}":
            if not outer or bool(labels) != (first == "}"):
                raise ValueError("a node tree with a bracket that does not fit")
            done: Item = _node(items, labels[1:]) if labels else items
            items, labels = outer.pop(), inner.pop()
            items.append(done)
        elif first == ":" and labels and labels[-1] != len(items) - 1:
            # what follows a label is its value whatever it looks like: a name may begin with a colon
            labels.append(len(items))
            items.append(word[1:])
        elif word == "<>":
            items.append(None)
        elif first == '"':
            items.append(_ESCAPED.sub(r"\1", word[1:-1]))
        else:
            items.append(_ESCAPED.sub(r"\1", word) if "\\" in word else word)
    if outer or len(items) != 1 or text[end:].strip():
        raise ValueError("a node tree ends in the middle, or is followed by something else")
    return items[0]


def _node(items: list[Item], labels: list[int]) -> Node:
    """A node of its name, its labels and their values."""
    fields: dict[str, Item] = {}
    for place, label in enumerate(labels):
        until = labels[place + 1] if place + 1 < len(labels) else len(items)
        values = items[label + 1 : until]
        fields[str(items[label])] = values[0] if len(values) == 1 else values
    if not items or not isinstance(items[0], str) or (labels[0] if labels else len(items)) != 1:
        raise ValueError("a node without a name, or a field without a label")
    return Node(items[0], fields)


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
