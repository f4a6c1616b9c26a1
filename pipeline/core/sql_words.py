"""Words of SQL that are more than names.

Owns: the lists. Must not know what is done with them. A name that is missing from KEYWORDS costs nothing but two
quotes: `"order"` keeps its quotes because `order` is in the list, `"orders"` loses them and is `orders`.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# the words a statement may begin with; what begins otherwise is no SQL of Postgres
COMMANDS = _words(
    """abort alter analyse analyze begin call checkpoint close cluster comment commit copy create
    deallocate declare delete discard do drop end execute explain fetch grant import insert listen load
    lock merge move notify prepare reassign refresh reindex release repack reset revoke rollback
    savepoint security select set show start table truncate unlisten update vacuum values wait with"""
)

# words after which a value begins, so that a sign belongs to the number behind it
BEFORE_VALUE = _words(
    """absolute all and any array as asc backward between by case default desc distinct else escape except
    fetch for forward from having ilike in intersect into is isnull like limit not notnull offset on
    only or relative return returning select similar some symmetric then to union using values when
    where with"""
)

# types that may stand before a literal
TYPES = _words(
    """bool boolean bytea cidr date inet interval json jsonb numeric text time timestamp timestamptz timetz
    uuid"""
)

# reserved words and those with a grammar of their own: as a quoted name they keep their quotes
KEYWORDS = (
    COMMANDS
    | BEFORE_VALUE
    | _words(
        """asymmetric authorization bigint binary bit boolean both cascade cast char character check coalesce
    collate collation column concurrently constraint cross current current_catalog current_date
    current_role current_schema current_time current_timestamp current_user cursor dec decimal
    deferrable exists extract false filter first float foreign freeze full global greatest group
    grouping hold initially inner inout int integer interval join json_array json_arrayagg json_exists
    json_object json_objectagg json_query json_scalar json_serialize json_table json_value last lateral
    leading least left local localtime localtimestamp merge_action national natural nchar next none
    normalize null nullif numeric off order out outer over overlaps overlay placing position precision
    primary prior real references right row rows scroll session session_user setof smallint substring
    system_user tablesample time timestamp trailing treat trim true uescape unique user varchar variadic
    verbose window work xmlattributes xmlconcat xmlelement xmlexists xmlforest xmlnamespaces xmlparse
    xmlpi xmlroot xmlserialize xmltable zone"""
    )
)
