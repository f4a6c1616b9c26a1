-- Queries by fingerprint, as applications write them: they have no rights on the tables.

-- Write down what stands for each fingerprint; a row that is there is touched at most once an hour, so a hundred
-- processes that start at once write each row once.
create or replace function pipeline.remember_queries(
    p_fingerprints text[], p_version int, p_kinds text[], p_texts text[]
) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
    insert into pipeline.query as q (fingerprint, version, kind, text, first_at, last_at)
    select distinct on (u.fingerprint)
        u.fingerprint, p_version, u.kind, u.text, pipeline.now(), pipeline.now()
    from unnest(p_fingerprints, p_kinds, p_texts) as u (fingerprint, kind, text)
    order by u.fingerprint
    on conflict (fingerprint) do update
        set last_at = excluded.last_at, version = greatest(q.version, excluded.version),
            -- newer rules made it again: it is nobody's past
            moved_to = case when excluded.version > q.version then null else q.moved_to end
        where q.last_at < excluded.last_at - interval '1 hour' or q.version < excluded.version
$$;

-- The fingerprint that a query has under the present rules, of one that it has or had.
create or replace function pipeline.fingerprint_now(p_fingerprint text) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select coalesce((select q.moved_to from pipeline.query as q where q.fingerprint = p_fingerprint), p_fingerprint)
$$;
revoke execute on function pipeline.fingerprint_now from public;
