-- wal_ratio: the write-ahead log on disk, by max_wal_size; needs the role pg_monitor
-- locks: none
select '{}'::jsonb as labels, w.bytes / s.most as value, 1::bigint as samples, pg_size_pretty(w.bytes) as detail
from (select coalesce(sum(size), 0) as bytes from pg_ls_waldir()) as w
cross join (
    select greatest(
        pg_size_bytes(current_setting('max_wal_size')), pg_size_bytes(current_setting('wal_keep_size'))
    )::float8 as most
) as s
