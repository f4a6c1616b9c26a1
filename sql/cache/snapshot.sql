-- snapshot: which transactions a statement that begins after this one sees at the least
-- On a standby the transactions in progress cannot be told, so only those below xmin count as seen.
-- locks: none
select
    case
        when pg_is_in_recovery() then format('%1$s:%1$s:', pg_snapshot_xmin(pg_current_snapshot()))
        else pg_current_snapshot()::text
    end as snapshot
