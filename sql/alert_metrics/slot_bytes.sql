-- slot_bytes: how much log each replication slot keeps from being removed
-- locks: none
select jsonb_build_object('slot', s.slot_name) as labels,
    greatest(0, pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn))::float8 as value, 1::bigint as samples,
    format('%s, %s', s.slot_type, case when s.active then 'in use' else 'not in use' end) as detail
from pg_replication_slots as s
where s.restart_lsn is not null and not pg_is_in_recovery()
