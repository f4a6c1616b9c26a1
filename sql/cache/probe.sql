-- probe: the server's position, and which start of which server tells it
-- locks: none
select
    pg_current_snapshot()::text as snapshot,
    pg_is_in_recovery() as in_recovery,
    (select c.system_identifier from pg_control_system() as c)
        || '/' || extract(epoch from pg_postmaster_start_time()) as server
