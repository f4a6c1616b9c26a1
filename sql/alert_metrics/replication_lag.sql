-- replication_lag: how far each standby is behind, in seconds; 0 for one that has replayed everything
-- locks: none
-- Without the role pg_read_all_stats the state is hidden, and nothing is known.
select jsonb_build_object('standby', s.application_name) as labels,
    max(case
        when s.state is distinct from 'streaming' then null
        when s.replay_lsn >= pg_current_wal_lsn() then 0
        else coalesce(extract(epoch from s.replay_lag), 0)
    end)::float8 as value,
    count(*) as samples, string_agg(format('%s: %s', s.client_addr, s.state), ', ') as detail
from pg_stat_replication as s
where not pg_is_in_recovery()
group by s.application_name
