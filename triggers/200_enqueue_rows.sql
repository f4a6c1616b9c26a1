-- enqueue_rows: turns the rows of one statement into jobs; installed by pipeline.enqueue_on
--
-- Runs inside the user's transaction, as the owner of the schema. Cost: one jsonb and one insert a row, one event and one
-- savepoint a statement. It never breaks the write: a row of more than 1 MB of JSON text, or any error of its own, makes a
-- WARNING and no job.
-- arguments: task, queue or '' for the task's own, share
-- The jobs of a unique task are added without a look at others: that look would wait for other writers.
-- locks: none that anyone waits for

-- A cast to json that to_jsonb would call for a row of the table, with the rights of the schema's owner, though another
-- role wrote it; null where there is none, which a look at pg_cast alone tells nearly always.
create or replace function pipeline.foreign_cast(p_relation oid) returns regprocedure
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (select from pg_cast c where c.casttarget = 'json'::regtype and c.castfunc <> 0) then
        return null;  -- the rest would be planned in every transaction: a millisecond
    end if;
    return (
        with recursive casts as materialized (
            select c.castsource, c.castfunc from pg_cast c join pg_proc p on p.oid = c.castfunc
            where c.casttarget = 'json'::regtype
              and p.proowner <> (select oid from pg_roles where rolname = current_user)
              and not exists (select from pg_roles r where r.oid = p.proowner and r.rolsuper)
        ),
        parts as (
            select a.atttypid as type from pg_attribute a
            where a.attrelid = p_relation and a.attnum > 0 and exists (select from casts)
            union
            select inner_type from parts join pg_type t on t.oid = parts.type, lateral (
                select t.typelem union all select t.typbasetype
                union all select a.atttypid from pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0
            ) i(inner_type)
            where inner_type <> 0
        )
        select c.castfunc::regprocedure from casts c join parts on parts.type = c.castsource limit 1
    );
end
$$;
revoke execute on function pipeline.foreign_cast from public;

create or replace function pipeline.enqueue_rows() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_task text := tg_argv[0];
    v_queue text := nullif(tg_argv[1], '');
    v_share double precision := tg_argv[2]::double precision;
    v_rows jsonb[];
    v_keys text[];
    v_skipped bigint;
begin
    if pipeline.foreign_cast(tg_relid) is not null then
        raise insufficient_privilege using message = format(
            'the cast %s would run with the rights of %s', pipeline.foreign_cast(tg_relid), current_user);
    end if;
    with rows as materialized (
        select to_jsonb(c.*) as args from changed c where v_share >= 1 or random() < v_share
    ), measured as materialized (
        select r.args, pg_column_size(r.args) <= 4096 or octet_length(r.args::text) <= pipeline.most_bytes() as fits from rows r
    )
    select array_agg(m.args) filter (where m.fits), count(*) filter (where not m.fits)
    into v_rows, v_skipped
    from measured m;
    if v_skipped > 0 then
        raise warning 'pgreflex made no job % for % rows of % that are above 1 MB', v_task, v_skipped, tg_relid::regclass;
    end if;
    if v_rows is not null then
        -- A key that is too long keeps its beginning: the row is written whatever becomes of its job.
        v_keys := (
            select array_agg(case when length(k.key) > 200 then left(k.key, 168) || md5(k.key) else k.key end order by r.i)
            from pipeline.task t, unnest(v_rows) with ordinality r (args, i), lateral pipeline.render_key(t.key, r.args) k (key)
            where t.name = v_task and t.key is not null
        );
        perform pipeline.add_jobs(v_task, v_rows, v_queue, null, null, null, null, null, v_keys);
    end if;
    return null;
exception when others then
    raise warning 'pgreflex could not make jobs % for %: % (%)', v_task, tg_relid::regclass, sqlerrm, sqlstate;
    return null;
end
$$;
