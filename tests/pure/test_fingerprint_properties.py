"""Fingerprints over made statements: what may change without effect, what may not, and what any text costs."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core import normalised
from pipeline.core.fingerprint import Fingerprint, fingerprint
from pipeline.core.normalised import VALUE, Reader
from pipeline.core.sql_lexer import Kind, Token, token_at

LITERALS = (
    ["1", "-7", "0", ".5", "1.", "1e5", "1.5E-3", "0x1F", "1_000", "0b101", "''", "'a'", "'it''s'", r"E'a\'b'",
     "$$x$$", "$t$ 'a' $$ $t$", "B'01'", "X'ff'", "U&'d\\0061'", "$1", "$27", "null", "TRUE", "false",
     "'a;b -- /*'", "'ü€'", "'a'\n'b'"]
)  # fmt: skip
BLANKS = [" ", "  ", "\n", "\t", " /* a */ ", "/* /* b */ ' */", " -- c ' \" \n", "\r\n", "\f"]
NAMES = st.sampled_from(["a", "b1", "c_2", '"D e"', '"select"', "t3x", "ünï", "f$1", '"q"'])
OPERATORS = st.sampled_from(["=", "<>", "<", ">=", "||", "@>", "->>", "~*", "+", "-", "/", "%", "?", "?|"])

SEEDS = st.integers(0, 10**9)


@st.composite
def statements(draw: st.DrawFn) -> list[str]:
    """The tokens of a statement; VALUE stands for a literal."""
    columns = draw(st.lists(NAMES, min_size=1, max_size=4))
    tokens = ["select"]
    for place, name in enumerate(columns):
        tokens += [",", name] if place else [name]
    tokens += ["from", draw(NAMES), "where"]
    for place in range(draw(st.integers(1, 4))):
        if place:
            tokens.append(draw(st.sampled_from(["and", "or"])))
        kind = draw(st.integers(0, 4))
        name = draw(NAMES)
        if kind == 0:
            tokens += [name, "in", "(", *_listed(draw(st.integers(1, 5))), ")"]
        elif kind == 1:
            tokens += [name, "=", "any", "(", "array", "[", *_listed(draw(st.integers(1, 5))), "]", ")"]
        elif kind == 2:
            tokens += ["f", "(", name, ",", VALUE, ")", "between", VALUE, "and", VALUE]
        else:
            tokens += [name, draw(OPERATORS), VALUE]
    return tokens


def _listed(count: int) -> list[str]:
    return [",", *[VALUE, ","] * count][1:-1]


def written(chance: random.Random, tokens: list[str]) -> str:
    """A text of these tokens, with any literals, blanks, comments and case."""
    parts = []
    for token in tokens:
        if token == VALUE:
            parts.append(chance.choice(LITERALS))
        else:
            upper = token[0].isalpha() and token.isascii() and chance.random() < 0.5
            parts.append(token.upper() if upper else token)
        parts.append(chance.choice(BLANKS))
    return "".join(parts)


@given(statements(), SEEDS)
@settings(max_examples=150, deadline=None)
def test_literals_blanks_comments_and_case_never_change_it(tokens: list[str], seed: int) -> None:
    chance = random.Random(seed)
    one, other = written(chance, tokens), written(chance, tokens)
    assert fingerprint(one) == fingerprint(other)
    assert fingerprint(one).kind == "ok"
    assert fingerprint(fingerprint(one).text) == fingerprint(one)


@given(statements(), SEEDS)
@settings(max_examples=150, deadline=None)
def test_another_name_or_operator_always_changes_it(tokens: list[str], seed: int) -> None:
    places = [at for at, token in enumerate(tokens) if token not in {"(", ")", "[", "]", ",", VALUE, "select"}]
    chance = random.Random(seed)
    at = chance.choice(places)
    other = "zzz" if tokens[at][0].isalpha() or tokens[at][0] == '"' else "<->"
    changed = [*tokens[:at], other, *tokens[at + 1 :]]
    assert fingerprint(written(chance, changed)).hex != fingerprint(written(chance, tokens)).hex


@given(statements(), st.integers(1, 400), SEEDS)
@settings(max_examples=100, deadline=None)
def test_the_length_of_a_list_never_changes_it(tokens: list[str], count: int, seed: int) -> None:
    longer: list[str] = []
    for at, token in enumerate(tokens):
        longer.append(token)
        if (token == "(" and tokens[at - 1] == "in") or token == "[":
            longer += [VALUE, ","] * count
    long = "  ".join("7" if token == VALUE else token for token in longer)
    assert fingerprint(written(random.Random(seed), tokens)) == fingerprint(long)


@given(st.integers(1, 40), SEEDS)
@settings(max_examples=100, deadline=None)
def test_the_number_of_rows_never_changes_it(count: int, seed: int) -> None:
    chance = random.Random(seed)
    blank = chance.choice(BLANKS)
    rows = [chance.choices(LITERALS, k=2) for _row in range(count)]
    values = f"{blank},{blank}".join(f"({blank}{one}{blank},{blank}{two}{blank})" for one, two in rows)
    assert fingerprint(f"insert into t (a, b) values {values} returning c") == fingerprint(
        "insert into t (a, b) values ($1, $2) returning c"
    )


@given(st.text(max_size=200) | st.text(alphabet="'\"$/*-()[],;.: \n\\aeEuU&xX01_%s=<", max_size=100))
@settings(max_examples=300, deadline=None)
def test_no_text_is_too_strange(text: str) -> None:
    for one in (fingerprint(text), fingerprint(text, cut=True)):
        assert isinstance(one, Fingerprint)
        assert len(one.hex) == 16
        if one.kind == "ok":
            assert fingerprint(one.text) == one


@given(st.text(alphabet="'\"$/*-()[],;.: \n\\aeEuU&xX01_%s=<", max_size=200))
@settings(max_examples=300, deadline=None)
def test_tokens_follow_each_other_and_reach_the_end(text: str) -> None:
    place = 0
    while True:
        token = token_at(text, place)
        assert token.start >= place
        if token.kind in {Kind.END, Kind.CUT}:
            break
        assert token.end > token.start
        place = token.end


LONG: dict[str, Callable[[int], str]] = {
    "rows": lambda n: "insert into t values " + ",".join(["(1, 'abc', 2.5)"] * (n // 16)),
    "rows that differ in form": lambda n: "insert into t values " + ",".join(["(1, now(), f(2))"] * (n // 17)),
    "an in list": lambda n: "select 1 where a in (" + ",".join(["12345"] * (n // 6)) + ")",
    "an in list with casts": lambda n: "select 1 where a in (" + ",".join(["1::int"] * (n // 7)) + ")",
    "names": lambda n: "select " + "a, " * (n // 3) + "b",
    "brackets": lambda n: "select " + "(" * n,
    "lists in lists": lambda n: "select " + "a in (" * (n // 7) + ")" * (n // 7),
    "arrays in arrays": lambda n: "select " + "array[" * (n // 7) + "]" * (n // 7),
    "signs": lambda n: "select " + "+" * n,
    "signs apart": lambda n: "select " + "- " * (n // 2) + "1",
    "comments in comments": lambda n: "/*" * (n // 2),
    "comments": lambda n: "select " + "/**/" * (n // 4),
    "dollars": lambda n: "select $a$" + "$b$" * (n // 3),
    "quotes": lambda n: "'" * (n | 1),
    "backslashes": lambda n: "select e'" + "\\" * n,
    "percent signs": lambda n: "select " + "%(" * (n // 2),
    "points": lambda n: "select " + "1." * (n // 2),
    "semicolons": lambda n: "select 1;" + ";" * n,
    "settings": lambda n: "set a = " + "b, " * (n // 3) + "c",
}


def test_time_grows_with_the_length_of_a_text_and_no_faster() -> None:
    """Eight times the text takes eight times as long; where it grew with the square, it would be 64."""

    def seconds(text: str) -> float:
        best = 9.0
        for _try in range(2):
            began = time.process_time()
            fingerprint(text)
            best = min(best, time.process_time() - began)
        return best

    for name, make in LONG.items():
        size = 15_000 if "lists" in name else 2_000
        short, long = seconds(make(size)), seconds(make(8 * size))
        assert long < 24 * short + 0.01, name


def test_a_long_list_of_constants_is_neither_kept_nor_taken_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = 0

    def counting(text: str, place: int, *, operand: bool = False) -> Token:
        nonlocal seen
        seen += 1
        return token_at(text, place, operand=operand)

    monkeypatch.setattr(normalised, "token_at", counting)
    for text in ("select 1 where a in ({})", "select array[{}]", "insert into t values (1,2),({})"):
        rows = "),(".join("7,-8" for _row in range(5_000)) if "insert" in text else ",".join(["'x'", "5"] * 5_000)
        reader = Reader(text.format(rows))
        reader.read()
        assert len(reader.out) < 20
    assert seen < 100


def corpus() -> list[str]:
    """Statements of many kinds, each with other literals as well."""
    from tests.pure.test_fingerprint import DIFFERENT, SAME

    return [*DIFFERENT, *(text for texts in SAME.values() for text in texts)]


# One group for us: values that a parser counts as something else.
COARSER = [
    ["fetch forward 100 from c_2", "fetch forward 50 from c_1"],
    ["select * from t where a != ALL(array[1])", "select * from t where a <> all($1)",
     "select * from t where a not in (1)"],
    ["select * from t where a = ANY (ARRAY[1, 2, 3])", "select * from t where a in (1)"],
    ["select +3", "select 1"],
    ["select array[[1, 2], [3, 4]]", "select array[[1]]"],
]  # fmt: skip
# One group for libpg_query, which looks neither at schemas, casts and the number of values, nor at any names but
# those of tables and columns. They cost differently, or are somebody's own.
FINER = [
    ["execute __asyncpg_stmt_1__ (1)", "execute one(1)", "execute two(1)"],
    ["insert into t values (1, 2)", "insert into t values (1, 2), (default, 3)",
     "insert into t values (1, default)"],
    ["listen a", "listen b"],
    ["select * from t where a < 1", "select * from t where a < any($1)"],
    ["select * from t where a <> 1", "select * from t where a not in (1)"],
    ["select * from t where a = 1", "select * from t where a in ($1::int)", "select * from t where a in (1)"],
    ["select * from t where a = any(b)", "select * from t where a in (1, b)"],
    ["select * from t where a in (select b, c from u)", "select * from t where a in (select c, b from u)"],
    ["select 1", "select 1, 2", "select 1::bigint", "select 1::int"],
    ["select a from s.t", "select a from t"],
    ["select f(1)", "select f(1, 2)"],
]  # fmt: skip


def test_groups_are_those_of_a_parser_but_for_what_is_meant_otherwise() -> None:
    postgast = pytest.importorskip("postgast")

    def fingerprints(text: str) -> str:
        return fingerprint(text).hex

    def parsed(text: str) -> str | None:
        try:
            return str(postgast.fingerprint(text).hex)
        except postgast.PgQueryError:
            return None

    apart, together = [], []
    for keys, others, found in ((fingerprints, parsed, apart), (parsed, fingerprints, together)):
        groups: dict[str | None, dict[str | None, str]] = {}
        for text in corpus():
            if "%" not in text and parsed(text) is not None:
                groups.setdefault(keys(text), {}).setdefault(others(text), text)
        found.extend(sorted(sorted(one.values()) for one in groups.values() if len(one) > 1))
    assert apart == COARSER
    assert together == FINER
