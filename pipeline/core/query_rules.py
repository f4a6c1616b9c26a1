"""Which relations, functions and types a cached query may refer to, and in what words others are refused.

Owns: the rules. Knows no tree and no database; it is given rows of the catalogs.

Volatile functions never qualify. Immutable ones do: that is what the word promises. A stable one promises to give
the same result within one statement only, so it qualifies if it is known why: a function of SQL is followed into
its body, and the built-in ones below depend on their arguments and on settings that are part of the key.
"""

from __future__ import annotations

import re

import msgspec

from pipeline.core.query_reads import VOUCH, clock, words
from pipeline.errors import NotCacheable

# What all results may depend on besides tables and arguments. Read once a connection; see sql/cache/settings.sql.
# TimeZone, DateStyle, IntervalStyle, extra_float_digits, bytea_output, lc_*, xml*: texts of values and texts
# read as values. default_text_search_config: to_tsvector(text). search_path, role: what a name means, and
# current_user.

_STABLE = words(
    # texts of any value, alone or in JSON: TimeZone, DateStyle, IntervalStyle, extra_float_digits, bytea_output
    """
    concat concat_ws format quote_literal quote_nullable anytextcat textanycat array_to_string array_to_json
    row_to_json to_json to_jsonb json_build_array json_build_object jsonb_build_array jsonb_build_object json_agg
    jsonb_agg json_agg_strict jsonb_agg_strict json_object_agg jsonb_object_agg json_object_agg_strict
    json_object_agg_unique json_object_agg_unique_strict jsonb_object_agg_strict jsonb_object_agg_unique
    jsonb_object_agg_unique_strict
    """
    # formatted numbers and times: lc_numeric, lc_monetary, lc_time, TimeZone
    """
    to_char to_number to_date to_timestamp money numeric
    """
    # times with and without zone, and days: TimeZone
    """
    date time timestamp timestamptz timezone date_part extract date_trunc date_bin make_timestamptz date_add
    date_subtract timestamptz_pl_interval timestamptz_mi_interval interval_pl_timestamptz generate_series in_range
    overlaps jsonb_path_exists_tz jsonb_path_match_tz jsonb_path_query_tz jsonb_path_query_array_tz
    jsonb_path_query_first_tz
    """
    # text search: default_text_search_config, and dictionaries, whose changes are DDL
    """
    to_tsvector to_tsquery plainto_tsquery phraseto_tsquery websearch_to_tsquery ts_headline ts_match_tq
    ts_match_tt json_to_tsvector jsonb_to_tsvector
    """
    # the server's encodings, which never change, and labels of enums, whose changes are DDL
    """
    convert convert_from convert_to length enum_first enum_last enum_range
    """
    # part of the key
    """
    current_database current_schema current_schemas current_user session_user getpgusername getdatabaseencoding
    """
)
_COMPARES_TIMES = re.compile(r"(date|timestamp|timestamptz)_(eq|ne|lt|le|gt|ge|cmp)_(date|timestamp|timestamptz)")
_CLOCKS = frozenset({"now", "transaction_timestamp", "statement_timestamp", "clock_timestamp", "timeofday", "age"})
_KINDS = {
    "m": ("a materialized view, which changes when it is refreshed and tells nobody", "Query its tables instead"),
    "f": ("a foreign table, whose changes happen elsewhere", "Cache it where it lives"),
    "S": ("a sequence, which changes outside of transactions", "Read a table instead"),
}


class Relation(msgspec.Struct, frozen=True):
    """A relation: its name as it is written, relkind, relpersistence, schema, and for a view its definition."""

    oid: int
    name: str
    kind: str
    persistence: str
    row_security: bool
    schema: str
    definition: str | None


class Function(msgspec.Struct, frozen=True):
    """A function. name: bare; signature: with types. builtin: made by initdb. volatility: i, s or v. parts: for an
    aggregate the functions that it calls. body, defaults: trees. source: its text. arguments: the text of its
    arguments, for parsing the source again. path: the search_path that it sets.
    """

    oid: int
    name: str
    signature: str
    builtin: bool
    language: str
    volatility: str
    definer: bool
    parts: list[int]
    body: str | None
    source: str
    defaults: str | None
    arguments: str
    path: str | None


class Type(msgspec.Struct, frozen=True):
    """A type: its name, typtype and typcategory."""

    oid: int
    name: str
    kind: str
    category: str


class Watched(msgspec.Struct, frozen=True):
    """How a relation is watched, by itself or by the topmost table that it inherits from.

    top: that table's name. tag: None when it is not watched. keys, columns: column numbers in the relation;
    columns None: every update is told. problem: why the watch may be incomplete.
    """

    relation: int
    name: str
    top: str
    tag: str | None
    keys: list[int] | None
    columns: list[int] | None
    problem: str | None


def check_relation(relation: Relation) -> None:
    """Raises NotCacheable for a relation whose changes no trigger tells, or whose rows depend on who asks."""
    name = relation.name
    if relation.schema in ("pg_catalog", "information_schema", "pg_toast"):
        raise NotCacheable(f"it reads the system catalog {name}, which fires no triggers", hint=VOUCH)
    if relation.schema == "pipeline" and relation.kind != "v":
        raise NotCacheable(f"it reads {name}, which belongs to pgreflex itself", hint="Read it without the cache.")
    if relation.persistence == "t":
        raise NotCacheable(
            f"it reads the temporary table {name}, which only one session sees", hint="Read it without the cache."
        )
    if relation.kind in _KINDS:
        what, advice = _KINDS[relation.kind]
        raise NotCacheable(f"it reads {name}, {what}", hint=f"{advice}, or {VOUCH[0].lower()}{VOUCH[1:]}")
    if relation.kind not in ("r", "p", "v"):
        raise NotCacheable(f"it reads {name}, which is no table", hint=VOUCH)
    if relation.row_security:
        raise NotCacheable(
            f"row security is enabled on {name}: what a role sees of it depends on its policies",
            hint="Read it without the cache, or pass tags=... if all readers here may see the same rows.",
        )


def check_function(function: Function) -> bool:
    """Whether the function's body has to be followed. Raises NotCacheable for one that may give another result
    although no table changed.
    """
    name = function.signature
    if function.builtin and function.name in _CLOCKS and function.volatility != "i":
        raise clock(f"{name}")
    if function.volatility == "v":
        raise NotCacheable(
            f"it calls {name}, which is volatile: it may give another result each time, or write",
            hint="If it only reads, declare it so (alter function ... stable), or pass tags=...",
        )
    if function.builtin:
        if function.volatility == "s" and not is_known(function.name, name):
            raise NotCacheable(
                f"it calls {name}, which is stable, and depends on more than its arguments and settings",
                hint=VOUCH,
            )
        return False
    if function.language == "sql":
        return True
    if function.volatility == "s":
        raise NotCacheable(
            f"it calls {name}, which is stable and written in {function.language}: what it reads cannot be seen",
            hint="Write it in SQL, or declare it immutable if it reads nothing, or pass tags=...",
        )
    return False


def is_known(name: str, signature: str) -> bool:
    """Whether a stable built-in function depends on its arguments and on settings in the key alone.

    A time of day with a zone needs today's date to know the zone's offset.
    """
    if ",time with time zone" in signature or "(time with time zone" in signature:
        return False
    return name in _STABLE or _COMPARES_TIMES.fullmatch(name) is not None


def check_parsed(kind: Type) -> None:
    """Raises NotCacheable where the text 'now' would be read as the time."""
    if kind.category == "D" or kind.kind in ("c", "r", "m", "d"):
        raise clock(f"a conversion of text to {kind.name}, which reads 'now' and 'today' as the time")
    if kind.name == "regrole":
        raise NotCacheable("it looks up roles, whose changes nobody tells", hint=VOUCH)


def check_watched(watched: Watched, read: set[int], columns: dict[int, str]) -> None:
    """Raises NotCacheable unless the feed tells of every change to these columns.

    read: numbers of the columns that the query reads, 0 for all. columns: their names.
    """
    if watched.tag is None:
        above = "" if watched.top == watched.name else f" (a statement on {watched.top} changes its rows, too)"
        raise NotCacheable(
            f"it reads {watched.name}, which is not watched{above}",
            hint=f"select pipeline.watch('{watched.top.replace(chr(39), chr(39) * 2)}')",
        )
    if watched.problem is not None:
        raise NotCacheable(
            f"the watch of {watched.top} may not report everything: {watched.problem}",
            hint="`pgreflex check` tells more; pipeline.watch mends it.",
        )
    if watched.columns is not None:
        silent = sorted(read - set(watched.columns) - set(watched.keys or ()) - {-6})
        if silent:
            names = ", ".join("the whole row" if number == 0 else columns.get(number, "?") for number in silent)
            raise NotCacheable(
                f"the watch of {watched.top} does not report changes of what it reads: {names}",
                hint="Add these to the columns of the watch, or leave its columns out.",
            )
