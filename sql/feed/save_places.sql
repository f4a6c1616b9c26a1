-- save_places: notes how far consumers have come
-- $1 text: the lineage
-- $2 text[]: the consumers
-- $3 bigint[]: the number of the last batch that each has handled
-- locks: the consumers' rows
insert into pipeline.consumer (name, lineage, seq, saved_at)
select n, $1, s, clock_timestamp() from unnest($2::text[], $3::bigint[]) u(n, s)
on conflict (name) do update
set lineage = excluded.lineage, seq = excluded.seq, saved_at = excluded.saved_at
