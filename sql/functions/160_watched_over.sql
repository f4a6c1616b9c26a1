-- What automatic tags ask about watches.

-- How each of these relations is watched. A statement fires the triggers of the table that it names, which may be any
-- above the one whose rows it changes; so only a watch of the topmost one hears of every change. That watch has
-- triggers on all below it. One row for each relation and each topmost relation above it, which may be itself.
--   keys, columns   numbers of the columns in the relation itself; 0 for one that it does not have
create or replace function pipeline.watched_over(p_relations oid[])
returns table (
    relation oid, name text, top text, tag text, keys int[], columns int[], problem text
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    with recursive up as (
        select r as relation, r as above from unnest(p_relations) r
        union
        select u.relation, i.inhparent from up u join pg_inherits i on i.inhrelid = u.above
    )
    select
        u.relation, pipeline.tag_of(u.relation), pipeline.tag_of(u.above), w.tag,
        pipeline.columns_numbered(u.relation, w.keys), pipeline.columns_numbered(u.relation, w.columns),
        case when w.id is not null then pipeline.watch_problem(w) end
    from up u
    left join pipeline.watch w on w.relation = u.above
    where not exists (select from pg_inherits i where i.inhrelid = u.above)
$$;

create or replace function pipeline.columns_numbered(p_relation oid, p_columns text[]) returns int[]
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select case when p_columns is not null then coalesce(array_agg(coalesce(a.attnum, 0)::int order by c.n), '{}') end
    from unnest(p_columns) with ordinality c (name, n)
    left join pg_attribute a on a.attrelid = p_relation and a.attname = c.name and a.attnum > 0 and not a.attisdropped
$$;
revoke execute on function pipeline.columns_numbered from public;
