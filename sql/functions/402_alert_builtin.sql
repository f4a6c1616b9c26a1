-- The rules that come with pgreflex. docs/alerts.md gives the reason for each threshold.

-- What of a rule was given by pgreflex. Whether it is enabled is the user's alone.
create or replace function pipeline.rule_definition(p_rule pipeline.alert_rule) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select jsonb_build_array(
        p_rule.metric, p_rule.series, p_rule.sources, p_rule.over, p_rule.comparison, p_rule.threshold, p_rule.clear_threshold,
        p_rule.need, p_rule.keep_firing, p_rule.min_samples, p_rule.severity, p_rule.message
    )::text
$$;
revoke execute on function pipeline.rule_definition(pipeline.alert_rule) from public;

-- Adds the rules that are new and renews those that nobody has changed; what was changed, disabled or deleted stays so.
create or replace function pipeline.seed_alert_rules() returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_new record;
begin
    for v_new in
        select * from (values
            ('slow query', 'latency.p95', 'query{%', '{query}'::text[], '1 minute'::interval, '>', 500, 400, 3, 2, 3, 'warning',
                'the p95 of {instance} is {value} ms'),
            ('very slow query', 'latency.p95', 'query{%', '{query}', '1 minute', '>', 1000, 800, 3, 2, 3, 'critical',
                'the p95 of {instance} is {value} ms'),
            ('slow timings', 'latency.p95', '%', '{table,span,sql,http}', '1 minute', '>', 1000, 800, 3, 2, 5, 'warning',
                'the p95 of {instance} is {value} ms'),
            ('errors', 'latency.error_rate', '%', '{query,span,sql,http}', '1 minute', '>', 0.02, 0.01, 3, 2, 50, 'warning',
                'a share of {value} of {instance} fails'),
            ('regression', 'latency.regression', '%', '{query,table,span,sql,http}', '1 hour', '>', 2, 1.5, 1, 1, 100, 'warning',
                '{instance} takes {value} times as long as at this hour of earlier days: {detail}'),
            ('job failures', 'latency.error_rate', 'job.run{%', '{job}', '1 minute', '>', 0.1, 0.05, 3, 2, 20, 'warning',
                'a share of {value} of the attempts of {instance} fails'),
            ('dead letters', 'jobs.failed', null, null, '1 minute', '>', 0, null, 1, 10, 1, 'warning',
                '{value} jobs of the queue {label.queue} failed for good within a minute; {detail}'),
            ('queue age', 'jobs.queue_age', null, null, '1 minute', '>', 300, 120, 3, 2, 1, 'warning',
                'a job of the queue {label.queue} has waited for {value} s'),
            ('pool waits', 'latency.p95', 'pool.wait{%', '{pool}', '1 minute', '>', 100, 50, 3, 2, 10, 'warning',
                'the p95 of {instance} is {value} ms: clients wait for connections'),
            ('pool exhausted', 'latency.error_rate', 'pool.wait{%', '{pool}', '1 minute', '>', 0, null, 1, 3, 1, 'critical',
                'clients got no connection of {instance}, a share of {value}'),
            ('cache hit ratio', 'cache.hit_ratio', null, null, '5 minutes', '<', 0.5, 0.6, 3, 2, 1000, 'warning',
                'a share of {value} of the cached reads is a hit'),
            ('feed lag', 'feed.lag', null, null, '1 minute', '>', 1000, 500, 3, 2, 10, 'warning',
                'the p99 from a write to its delivery is {value} ms'),
            ('dead listener', 'feed.deaf', null, null, '15 seconds', '>', 0, null, 2, 2, 1, 'critical',
                'the process {label.process} does not hear the feed: {detail}'),
            ('long transaction', 'db.long_transaction', null, null, '1 minute', '>', 300, null, 1, 1, 1, 'warning',
                'a transaction has been open for {value} s: {detail}'),
            ('connections', 'db.connections', null, null, '1 minute', '>', 0.8, 0.7, 3, 2, 1, 'warning',
                'a share of {value} of all connections is taken: {detail}'),
            ('connections nearly gone', 'db.connections', null, null, '15 seconds', '>', 0.95, 0.9, 2, 2, 1, 'critical',
                'a share of {value} of all connections is taken: {detail}'),
            ('replication lag', 'db.replication_lag', null, null, '1 minute', '>', 30, 15, 3, 2, 1, 'warning',
                'the standby {label.standby} is {value} s behind'),
            ('replication slot', 'db.slot_bytes', null, null, '1 minute', '>', 10737418240, null, 3, 2, 1, 'warning',
                'the slot {label.slot} ({detail}) keeps {value} bytes of log'),
            ('wraparound', 'db.wraparound_age', null, null, '10 minutes', '>', 1000000000, null, 1, 1, 1, 'warning',
                'the database {label.database} has transaction ids {value} transactions old'),
            ('wraparound is near', 'db.wraparound_age', null, null, '10 minutes', '>', 1900000000, null, 1, 1, 1, 'critical',
                'the database {label.database} has transaction ids {value} transactions old; at 2.1 billion it stops'),
            ('notify queue', 'db.notify_queue', null, null, '1 minute', '>', 0.5, 0.3, 1, 2, 1, 'critical',
                'a share of {value} of the queue of NOTIFY is full; when all is, commits with NOTIFY fail'),
            ('deadlocks', 'db.deadlocks', null, null, '1 minute', '>', 5, null, 3, 2, 1, 'warning',
                '{value} deadlocks a minute'),
            ('write-ahead log', 'db.wal_ratio', null, null, '1 minute', '>', 4, 3, 3, 2, 1, 'warning',
                'the write-ahead log is {value} times max_wal_size: {detail}'),
            ('disk', 'disk.free', null, null, '1 minute', '<', 0.15, 0.17, 3, 2, 1, 'warning',
                'a share of {value} of the disk is free: {detail}'),
            ('disk nearly full', 'disk.free', null, null, '1 minute', '<', 0.05, 0.07, 2, 2, 1, 'critical',
                'a share of {value} of the disk is free: {detail}'),
            ('error budget burns fast', 'slo.burn_1h', null, null, '1 minute', '>', 14.4, null, 1, 2, 1, 'critical',
                'the objective {label.slo} burns its budget {value} times as fast as it may: 2 % within an hour; {detail}'),
            ('error budget burns', 'slo.burn_6h', null, null, '1 minute', '>', 6, null, 1, 2, 1, 'critical',
                'the objective {label.slo} burns its budget {value} times as fast as it may: 5 % within six hours; {detail}'),
            ('error budget burns slowly', 'slo.burn_1d', null, null, '5 minutes', '>', 3, null, 1, 2, 1, 'warning',
                'the objective {label.slo} burns its budget {value} times as fast as it may: 10 % within a day; {detail}'),
            ('error budget wears off', 'slo.burn_3d', null, null, '10 minutes', '>', 1, null, 1, 2, 1, 'warning',
                'the objective {label.slo} burns its budget {value} times as fast as it may: 10 % within three days; {detail}'),
            ('broken rule', 'alerts.broken_rules', null, null, '1 minute', '>', 0, null, 3, 2, 1, 'warning',
                'the rule {label.rule} cannot be judged: {detail}'),
            ('lost alerts', 'alerts.lost', null, null, '1 minute', '>', 0, null, 1, 10, 1, 'warning',
                'triggers of alert_on could not raise {value} alerts a minute; the log of the server says why')
        ) as v (
            name, metric, series, sources, over, comparison, threshold, clear_threshold, need, keep_firing, min_samples,
            severity, message
        )
    loop
        if exists (select from pipeline.alert_rule as r where r.name = v_new.name) then
            -- A rule of the user's that has this name, or one of ours that was changed, stays as it is.
            update pipeline.alert_rule as r
            set metric = v_new.metric, series = v_new.series, sources = v_new.sources, over = v_new.over,
                comparison = v_new.comparison, threshold = v_new.threshold, clear_threshold = v_new.clear_threshold,
                need = v_new.need, keep_firing = v_new.keep_firing, min_samples = v_new.min_samples,
                severity = v_new.severity, message = v_new.message
            where r.name = v_new.name and r.origin = 'builtin'
              and exists (
                  select from pipeline.alert_builtin as b
                  where b.name = r.name and b.definition = pipeline.rule_definition(r)
              );
            continue when not found;
        elsif exists (select from pipeline.alert_builtin as b where b.name = v_new.name) then
            continue;
        else
            insert into pipeline.alert_rule (
                name, metric, series, sources, over, comparison, threshold, clear_threshold, need, keep_firing, min_samples,
                severity, message, origin
            )
            values (
                v_new.name, v_new.metric, v_new.series, v_new.sources, v_new.over, v_new.comparison, v_new.threshold,
                v_new.clear_threshold, v_new.need, v_new.keep_firing, v_new.min_samples, v_new.severity, v_new.message,
                'builtin'
            );
        end if;
        insert into pipeline.alert_builtin as b (name, definition)
        select r.name, pipeline.rule_definition(r) from pipeline.alert_rule as r where r.name = v_new.name
        on conflict (name) do update set definition = excluded.definition;
    end loop;
end
$$;
revoke execute on function pipeline.seed_alert_rules() from public;

select pipeline.seed_alert_rules();
