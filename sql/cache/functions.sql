-- functions: what decides whether functions may be called in a cached query; one of SQL comes with its body
-- $1 oid[]: functions
-- $2 oid[]: operators, for the functions behind them
-- locks: none
select
    p.oid, p.proname::text as name, p.oid::regprocedure::text as signature,
    p.oid < 16384 and p.pronamespace = 'pg_catalog'::regnamespace as builtin,
    l.lanname::text as language, p.provolatile::text as volatility, p.prosecdef as definer,
    coalesce((
        select array_remove(array[
            a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn
        ]::oid[], 0)
        from pg_aggregate a where a.aggfnoid = p.oid
    ), '{}') as parts,
    p.prosqlbody::text as body, coalesce(p.prosrc, '') as source, p.proargdefaults::text as defaults,
    coalesce((
        select string_agg(concat_ws(' ', quote_ident(nullif(i.name, '')), format_type(t.type, null)), ', ' order by t.n)
        from unnest(p.proargtypes::oid[]) with ordinality t (type, n)
        left join lateral (
            select u.name, row_number() over (order by u.n) as n
            from unnest(p.proargnames, p.proargmodes::text[]) with ordinality u (name, mode, n)
            where coalesce(u.mode, 'i') in ('i', 'b', 'v')
        ) i on i.n = t.n
    ), '') as arguments,
    (select substr(o, 13) from unnest(p.proconfig) o where o like 'search_path=%') as path
from pg_proc p
join pg_language l on l.oid = p.prolang
where p.oid = any ($1::oid[]) or p.oid = any (
    select o.oprcode::oid from pg_operator o where o.oid = any ($2::oid[])
)
