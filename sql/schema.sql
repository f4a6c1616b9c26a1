-- schema: what the migrations, functions and triggers add up to, as Postgres 18 tells it; not run by anything
-- Written by `make schema`; a test compares it with the migrated database.

CREATE SCHEMA pipeline;

COMMENT ON SCHEMA pipeline IS 'pgreflex: events, cache invalidation, percentiles, alerts and jobs';

CREATE TYPE pipeline.timing_digest AS (
	series integer,
	count bigint,
	sum double precision,
	low double precision,
	high double precision,
	errors bigint,
	over_count bigint,
	row_count bigint,
	centroids smallint[]
);

CREATE FUNCTION pipeline.add_job(p_task text, p_args jsonb, p_queue text, p_priority integer, p_run_at timestamp with time zone, p_max_attempts integer, p_timeout interval, p_key text, p_expires_at timestamp with time zone) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_now timestamptz := pipeline.now();
    v_later bool := coalesce(p_run_at > v_now, false);
    v_id bigint;
begin
    perform pg_current_xact_id(); -- before a position is drawn
    insert into pipeline.job (task, args, queue, priority, pos, run_at, created_at, max_attempts, timeout, key, expires_at)
    values (
        p_task, p_args, p_queue, p_priority, case when not v_later then nextval('pipeline.job_pos') end,
        greatest(p_run_at, v_now), v_now, p_max_attempts, p_timeout, p_key, p_expires_at
    )
    returning id into v_id;
    perform pipeline.request_lane(p_queue, p_priority, p_key);
    if not v_later then
        perform pipeline.ring_workers(p_queue);
    end if;
    return v_id;
end
$$;

CREATE FUNCTION pipeline.add_jobs(task text, args jsonb[], queue text, priority integer, run_at timestamp with time zone, max_attempts integer, timeout interval, expires_at timestamp with time zone, keys text[]) RETURNS bigint[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
declare
    v_now timestamptz := pipeline.now();
    v_known pipeline.task;
    v_ids bigint[];
begin
    select * into v_known from pipeline.task t where t.name = task;
    queue := coalesce(queue, v_known.queue, 'default');
    priority := coalesce(priority, v_known.priority, 0);
    max_attempts := coalesce(max_attempts, v_known.max_attempts, 5);
    timeout := coalesce(timeout, v_known.timeout);
    expires_at := coalesce(expires_at, greatest(run_at, v_now) + v_known.expires);
    if coalesce(length(task) > 500 or length(queue) > 200 or task = '' or queue = '' or priority not between -32768 and 32767 or max_attempts < 1 or timeout <= '0', true) then
        perform pipeline.refuse_job(task, '{}', queue, priority, max_attempts, timeout, '');
    end if;

    if keys is not null or v_known.key is not null then
        perform pipeline.refuse_job(task, '{}', queue, priority, max_attempts, timeout, k.key)
        from (
            select coalesce(a.key, pipeline.render_key(v_known.key, a.args)) as key from unnest(args, keys) a (args, key)
        ) k
        where length(k.key) > 200;
    end if;

    perform pg_current_xact_id(); -- before a position is drawn
    with given as materialized (
        select a.args, a.i,
            coalesce(a.key, case when v_known.key is not null then pipeline.render_key(v_known.key, a.args) end, '') as key
        from unnest(args, keys) with ordinality a (args, key, i)
        where a.i <= cardinality(add_jobs.args)
    ), made as (
        insert into pipeline.job (
            task, args, queue, priority, pos, run_at, created_at, max_attempts, timeout, key, expires_at
        )
        select
            task, g.args, queue, priority, case when run_at > v_now then null else nextval('pipeline.job_pos') end,
            greatest(run_at, v_now), v_now, max_attempts, timeout, g.key, expires_at
        from given g order by g.i
        returning id
    ), asked as (
        insert into pipeline.lane_request (queue, priority, key)
        select queue, priority, g.key from (select distinct g.key from given g) g
        where not exists (
            select from pipeline.lane l where l.queue = queue and l.priority = priority::smallint and l.key = g.key
        )
    )
    select array_agg(m.id order by m.id) into v_ids from made m;
    if v_ids is not null and (run_at <= v_now) is not false then
        perform pipeline.ring_workers(queue);
    end if;
    return coalesce(v_ids, '{}');
end
$$;

CREATE FUNCTION pipeline.adopt_lanes() RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_made bigint;
begin
    if not exists (select from pipeline.lane_request) then
        return 0;
    end if;
    perform pg_advisory_xact_lock(1885697639, 11);
    with asked as materialized (
        select r.ctid as tid, r.queue, r.priority, r.key from pipeline.lane_request r limit 10000 for update skip locked
    ), answered as (
        delete from pipeline.lane_request r using asked a where r.ctid = a.tid
    ), made as (
        insert into pipeline.lane (queue, priority, key, last_pos, limited)
        select distinct
            a.queue, a.priority, a.key, q.last_pos,
            coalesce(q.concurrency is not null or q.rate is not null, false)
        from asked a
        left join pipeline.queue q on q.name = a.queue
        -- one that no index takes must not keep all others from being made
        where octet_length(a.queue) + octet_length(a.key) <= 2000
        on conflict do nothing
        returning queue, priority, key
    ), stated as (
        insert into pipeline.lane_state (queue, priority, key, n) select m.queue, m.priority, m.key, 0 from made m
    )
    select count(*) into v_made from made;
    return v_made;
end
$$;

CREATE FUNCTION pipeline.alert_ack(rule text, instance text DEFAULT NULL::text, note text DEFAULT ''::text, by text DEFAULT SESSION_USER) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_by text := left(coalesce(alert_ack.by, session_user), 200);
    v_note text := left(coalesce(alert_ack.note, ''), 4000);
    v_count bigint;
begin
    with alive as (
        select a.kind, a.instance, a.episode from pipeline.alerts_alive(alert_ack.rule, alert_ack.instance) as a
    ),
    acked as (
        insert into pipeline.alert_ack as k (kind, rule, instance, episode, made_by, note, at)
        select a.kind, alert_ack.rule, a.instance, a.episode, v_by, v_note, pipeline.now()
        from alive as a
        on conflict on constraint alert_ack_pkey do update set
            episode = excluded.episode, made_by = excluded.made_by, note = excluded.note, at = excluded.at
    ),
    noted as (
        insert into pipeline.alert_note (at, rule, instance, episode, action, made_by, note)
        select pipeline.now(), alert_ack.rule, a.instance, a.episode, 'ack', v_by, v_note
        from alive as a
    )
    select count(*) into v_count from alive;
    return v_count;
end
$$;

CREATE FUNCTION pipeline.alert_channels() RETURNS TABLE(channel text, kind text, open bigint, told_at timestamp with time zone, problem text, tokens double precision, seen_at timestamp with time zone)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select c.name, c.kind, n.open, n.told_at, coalesce(c.problem, n.problem), c.tokens, c.seen_at
    from pipeline.alert_channel as c
    cross join lateral (
        select count(*) filter (where o.state = 'open') as open, max(o.ended_at) filter (where o.state = 'told') as told_at,
            (array_agg(o.problem order by o.at desc) filter (where o.state = 'open' and o.problem is not null))[1] as problem
        from pipeline.alert_notification as o
        where o.channel = c.name
    ) as n
    order by c.name
$$;

CREATE FUNCTION pipeline.alert_digests(p_pattern text, p_labels jsonb, p_sources text[], p_from timestamp with time zone, p_seconds integer, p_digests boolean) RETURNS TABLE(series text, labels jsonb, count bigint, errors bigint, sum double precision, low double precision, high double precision, lows double precision[], highs double precision[], sizes integer[], centroids bytea)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_custom_plan'
    AS $$
#variable_conflict use_column
declare
    v_ids constant int[] := pipeline.alert_series(p_pattern, p_labels, p_sources, p_from);
    v_level constant int := case
        when p_seconds % 3600 = 0 then 3600 when p_seconds % 300 = 0 then 300 when p_seconds % 60 = 0 then 60 else 5
    end;
begin
    return query
    select k.series, k.labels, m.count, m.errors, m.sum, m.low, m.high, m.lows, m.highs, m.sizes, m.centroids
    from (
        select t.series, sum(t.count)::bigint as count, sum(t.errors)::bigint as errors,
            sum(case when t.sum < 1e-290 then 0 else t.sum end) as sum, min(t.low) as low, max(t.high) as high,
            array_agg(t.low) filter (where p_digests) as lows, array_agg(t.high) filter (where p_digests) as highs,
            array_agg(cardinality(t.centroids)) filter (where p_digests) as sizes,
            -- without the 20 bytes of each array's head
            string_agg(substr(array_send(t.centroids), 21), '') filter (where p_digests) as centroids
        from pipeline.timing_stored(v_ids, p_from, p_from + make_interval(secs => p_seconds), v_level) as t
        group by t.series
    ) as m
    join pipeline.timing_series as k on k.id = m.series;
end
$$;

CREATE FUNCTION pipeline.alert_log(over interval DEFAULT '1 day'::interval, rule text DEFAULT NULL::text, most integer DEFAULT 200) RETURNS TABLE(at timestamp with time zone, rule text, instance text, episode bigint, what text, value double precision, message text, by text)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select * from (
        select h.at, h.rule, h.instance, h.episode, h.before || ' -> ' || h.after as what, h.value,
            case when h.reason = '' then h.message else h.message || ' (' || h.reason || ')' end as message, null::text as by
        from pipeline.alert_history as h
        where h.at > pipeline.now() - alert_log.over and (alert_log.rule is null or h.rule = alert_log.rule)
        union all
        select n.at, n.rule, n.instance, n.episode, n.action, null, n.note, n.made_by
        from pipeline.alert_note as n
        where n.at > pipeline.now() - alert_log.over and (alert_log.rule is null or n.rule = alert_log.rule)
    ) as e
    order by e.at desc
    limit alert_log.most
$$;

CREATE FUNCTION pipeline.alert_metrics() RETURNS TABLE(metric text, kind text, unit text, about text)
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    values
        ('latency.p50', 'timing', 'ms', 'median of a series in the window'),
        ('latency.p95', 'timing', 'ms', '95th percentile of a series in the window'),
        ('latency.p99', 'timing', 'ms', '99th percentile of a series in the window'),
        ('latency.mean', 'timing', 'ms', 'mean of a series in the window'),
        ('latency.max', 'timing', 'ms', 'slowest of a series in the window'),
        ('latency.count', 'timing', 'events', 'timings of a series in the window'),
        ('latency.error_rate', 'timing', '0 to 1', 'share of a series that failed in the window'),
        ('latency.regression', 'timing', 'times', 'p95 of the window, by the median of that of the same hour on the seven days before'),
        ('slo.burn_1h', 'gauge', 'times', 'how fast an objective''s error budget burns, over 1 hour and over 5 minutes'),
        ('slo.burn_6h', 'gauge', 'times', 'the same over 6 hours and 30 minutes'),
        ('slo.burn_1d', 'gauge', 'times', 'the same over 1 day and 2 hours'),
        ('slo.burn_3d', 'gauge', 'times', 'the same over 3 days and 6 hours'),
        ('jobs.failed', 'gauge', 'jobs', 'jobs of a queue that failed for good in the window'),
        ('jobs.queue_age', 'gauge', 's', 'how long the oldest job of a queue that may run has waited'),
        ('cache.hit_ratio', 'local', '0 to 1', 'hits of all caches by their reads'),
        ('feed.lag', 'local', 'ms', '99th percentile of the time from a write to its delivery'),
        ('feed.deaf', 'local', '0 or 1', 'a process whose listener is dead or deaf'),
        ('db.long_transaction', 'gauge', 's', 'age of the oldest open transaction of a client'),
        ('db.connections', 'gauge', '0 to 1', 'connections by how many there may be'),
        ('db.replication_lag', 'gauge', 's', 'how far a standby is behind'),
        ('db.slot_bytes', 'gauge', 'bytes', 'log that a replication slot keeps'),
        ('db.wraparound_age', 'gauge', 'transactions', 'age of the oldest transaction id of a database'),
        ('db.notify_queue', 'gauge', '0 to 1', 'how full the queue of NOTIFY is'),
        ('db.deadlocks', 'counter', 'per minute', 'deadlocks in this database'),
        ('db.growth', 'counter', 'bytes per minute', 'by how much this database grows'),
        ('db.wal_ratio', 'gauge', 'times', 'write-ahead log on disk, by max_wal_size'),
        ('disk.free', 'local', '0 to 1', 'free part of the disk that the data is on, where the daemon is on the server''s host'),
        ('alerts.broken_rules', 'gauge', '0 or 1', 'a rule that cannot be judged'),
        ('alerts.lost', 'counter', 'per minute', 'alerts that triggers of alert_on could not raise'),
        ('sql', 'query', '', 'what a query of one''s own returns')
$$;

CREATE FUNCTION pipeline.alert_note(rule text, note text, instance text DEFAULT NULL::text, by text DEFAULT SESSION_USER) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if coalesce(btrim(alert_note.note), '') = '' then
        raise exception 'alert_note: the note is empty' using errcode = '22023';
    end if;
    insert into pipeline.alert_note (at, rule, instance, episode, action, made_by, note)
    values (
        pipeline.now(), alert_note.rule, alert_note.instance,
        (
            select h.episode
            from pipeline.alert_history as h
            where h.rule = alert_note.rule and (alert_note.instance is null or h.instance = alert_note.instance)
            order by h.id desc
            limit 1
        ),
        'note', left(coalesce(alert_note.by, session_user), 200), left(alert_note.note, 4000)
    );
end
$$;

CREATE FUNCTION pipeline.alert_notifications(over interval DEFAULT '1 day'::interval, channel text DEFAULT NULL::text, most integer DEFAULT 200) RETURNS TABLE(id uuid, channel text, at timestamp with time zone, state text, reason text, groups text[], alerts bigint, attempts integer, ended_at timestamp with time zone, problem text, job bigint)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select n.id, n.channel, n.at, n.state, n.reason, n.groups, jsonb_array_length(n.members)::bigint, n.attempts, n.ended_at, n.problem, n.job
    from pipeline.alert_notification as n
    where n.at > pipeline.now() - alert_notifications.over
      and (alert_notifications.channel is null or n.channel = alert_notifications.channel)
    order by n.at desc
    limit alert_notifications.most
$$;

CREATE FUNCTION pipeline.alert_off(tbl regclass, name text) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_before text := current_setting('lock_timeout');
    v_trigger text := 'pipeline_alert_'
        || case when octet_length(alert_off.name) > 48 then md5(alert_off.name) else alert_off.name end;
begin
    if not exists (select from pg_trigger t where t.tgrelid = tbl and t.tgname = v_trigger) then
        return false;
    end if;
    perform set_config('lock_timeout', '5s', true);
    execute format('drop trigger %I on %s', v_trigger, tbl);
    perform set_config('lock_timeout', v_before, true);
    return true;
end
$$;

CREATE FUNCTION pipeline.alert_on(tbl regclass, op text, "when" text DEFAULT NULL::text, name text DEFAULT NULL::text, message text DEFAULT NULL::text, severity text DEFAULT 'warning'::text, labels text[] DEFAULT '{}'::text[]) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
#variable_conflict use_variable
declare
    v_kind "char" := (select c.relkind from pg_class c where c.oid = tbl);
    v_before text := current_setting('lock_timeout');
    v_name text := coalesce(alert_on.name, tbl::text || ' ' || alert_on.op);
    v_message text := coalesce(alert_on.message, v_name);
    v_trigger text := 'pipeline_alert_' || case when octet_length(v_name) > 48 then md5(v_name) else v_name end;
    v_cursor refcursor;
    v_missing text;
    v_tries int := 0;
begin
    if coalesce(alert_on.op, '') !~ '^(insert|update|delete)( or (insert|update|delete))*$' then
        raise exception 'op must be insert, update, delete, or several with or between, not %', coalesce(alert_on.op, 'null')
            using errcode = 'invalid_parameter_value';
    elsif coalesce(v_kind not in ('r', 'p'), true) then
        raise exception '% is not a table', tbl using errcode = 'wrong_object_type';
    elsif coalesce(alert_on.severity, '') not in ('info', 'warning', 'critical') then
        raise exception 'alert %: there is no severity %', v_name, coalesce(alert_on.severity, 'null')
            using errcode = 'invalid_parameter_value', hint = 'Severities are info, warning and critical.';
    elsif v_name = '' or length(v_name) > 200 then
        raise exception 'an alert needs a name of 1 to 200 characters' using errcode = 'invalid_parameter_value';
    end if;
    select c.name into v_missing
    from (
        select unnest(coalesce(alert_on.labels, '{}'))
        union all select m[1] from regexp_matches(v_message, '\{([^{}]*)\}', 'g') as m
    ) as c (name)
    where not exists (
        select from pg_attribute a where a.attrelid = tbl and a.attname = c.name and a.attnum > 0 and not a.attisdropped
    )
    limit 1;
    if v_missing is not null then
        raise exception 'alert %: % has no column %', v_name, tbl, v_missing
            using errcode = 'undefined_column', hint = 'Labels, and what stands in braces in the message, are columns.';
    end if;
    if alert_on."when" is not null then
        -- A cursor takes a single statement, so that nothing but a condition can come behind `when`; it fetches nothing.
        open v_cursor for execute format(
            'select from %1$s as new cross join %1$s as old where (%2$s)', tbl, alert_on."when"
        );
        close v_cursor;
    end if;

    perform set_config('lock_timeout', '50ms', true);
    loop
        begin
            execute format('lock table %s in share row exclusive mode', tbl);
            exit;
        exception when lock_not_available then
            v_tries := v_tries + 1;
            if v_tries = 40 then
                raise exception 'the lock on % could not be had in %', tbl, '10 s' using errcode = 'lock_not_available',
                    hint = 'A transaction that writes to the table has been open for long. End it, or call again later.';
            end if;
            perform pg_sleep(0.15 + random() * 0.1);
        end;
    end loop;
    perform set_config('lock_timeout', v_before, true);

    execute format(
        'create or replace trigger %I after %s on %s for each row %s execute function pipeline.alert_row(%L, %L, %L, %L)',
        v_trigger, alert_on.op, tbl, case when alert_on."when" is null then '' else format('when (%s)', alert_on."when") end,
        v_name, v_message, alert_on.severity, to_jsonb(coalesce(alert_on.labels, '{}'))::text
    );
    return v_trigger;
end
$_$;

CREATE FUNCTION pipeline.alert_resolve(rule text, instance text DEFAULT NULL::text, note text DEFAULT ''::text, by text DEFAULT SESSION_USER) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_by text := left(coalesce(alert_resolve.by, session_user), 200);
    v_note text := left(coalesce(alert_resolve.note, ''), 4000);
    v_count bigint;
begin
    -- the locks under which an evaluator works: it has the state in its memory meanwhile
    perform pg_advisory_xact_lock(1885697639, 30);
    perform from pipeline.alert_progress as p
    join pipeline.alert_rule as r on r.id = p.rule_id
    where r.name = alert_resolve.rule
    for update of p;
    with alive as (
        select a.kind, a.instance, a.episode from pipeline.alerts_alive(alert_resolve.rule, alert_resolve.instance) as a
    ),
    before as (
        select s.kind, s.instance, s.state, s.episode, s.value, s.message, s.labels
        from pipeline.alert_state as s
        join alive as a on a.kind = s.kind and a.instance = s.instance
        where s.rule = alert_resolve.rule
        for update of s
    ),
    ended as (
        update pipeline.alert_state as s
        set state = 'resolved', bad = 0, good = 0, silent = 0, nodata = false, resolved_at = pipeline.now()
        from before as b
        where s.rule = alert_resolve.rule and s.kind = b.kind and s.instance = b.instance and b.state = 'firing'
    ),
    calmed as (
        delete from pipeline.alert_state as s
        using before as b
        where s.rule = alert_resolve.rule and s.kind = b.kind and s.instance = b.instance and b.state = 'pending'
    ),
    history as (
        insert into pipeline.alert_history (at, kind, rule, instance, episode, before, after, value, message, reason, labels)
        select pipeline.now(), b.kind, alert_resolve.rule, b.instance, b.episode, b.state,
            case b.state when 'firing' then 'resolved' else 'inactive' end, b.value, b.message, 'resolved by ' || v_by, b.labels
        from before as b
    ),
    noted as (
        insert into pipeline.alert_note (at, rule, instance, episode, action, made_by, note)
        select pipeline.now(), alert_resolve.rule, b.instance, b.episode, 'resolve', v_by, v_note
        from before as b
    )
    select count(*) into v_count from before;
    return v_count;
end
$$;

CREATE FUNCTION pipeline.alert_row() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    v_seen text := current_setting('pipeline.alert_rows', true);
    v_rows int := case when v_seen ~ '^[0-9]{1,3}$' then v_seen::int else 0 end;
    v_row jsonb;
    v_message text := tg_argv[1];
    v_names jsonb := tg_argv[3];
    v_labels jsonb := '{}';
    v_open int := strpos(tg_argv[1], '{');
    v_close int;
    v_piece text;
begin
    if v_rows >= 100 then
        perform nextval('pipeline.alert_losses');
        return null;
    end if;
    perform set_config('pipeline.alert_rows', (v_rows + 1)::text, true);
    begin
        if v_names <> '[]' or v_open > 0 then
            if exists (select from pg_cast c where c.casttarget = 'json'::regtype and c.castfunc <> 0)
                and pipeline.foreign_cast(tg_relid) is not null
            then
                raise insufficient_privilege using message = format(
                    'the cast %s would run with the rights of %s', pipeline.foreign_cast(tg_relid), current_user);
            end if;
            v_row := case tg_op when 'DELETE' then to_jsonb(old) else to_jsonb(new) end;
            for i in 0 .. jsonb_array_length(v_names) - 1 loop
                v_labels := v_labels || jsonb_build_object(v_names ->> i, coalesce(v_row ->> (v_names ->> i), ''));
            end loop;
            if v_open > 0 then
                v_piece := v_message;
                v_message := '';
                while v_open > 0 loop
                    v_close := strpos(substr(v_piece, v_open), '}') + v_open - 1;
                    v_message := v_message || left(v_piece, v_open - 1)
                        || coalesce(v_row ->> substr(v_piece, v_open + 1, v_close - v_open - 1), '');
                    v_piece := substr(v_piece, v_close + 1);
                    v_open := strpos(v_piece, '{');
                end loop;
                v_message := v_message || v_piece;
            end if;
        end if;
        perform pipeline.raise_alert(tg_argv[0], v_message, tg_argv[2], v_labels);
    exception when others then
        perform nextval('pipeline.alert_losses');
        raise warning 'pgreflex could not raise the alert % for %: % (%)', tg_argv[0], tg_relid::regclass, sqlerrm, sqlstate;
    end;
    return null;
end
$_$;

CREATE FUNCTION pipeline.alert_rule_check(name text) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_rule pipeline.alert_rule;
begin
    select * into v_rule from pipeline.alert_rule as r where r.name = alert_rule_check.name;
    if not found then
        raise exception 'there is no alert rule %', coalesce(alert_rule_check.name, 'null') using errcode = '22023';
    end if;
    return coalesce(
        pipeline.query_problem(v_rule.query),
        (select p.problem from pipeline.alert_progress as p where p.rule_id = v_rule.id)
    );
end
$$;

CREATE FUNCTION pipeline.alert_rule_set(name text, metric text DEFAULT NULL::text, series text DEFAULT NULL::text, threshold double precision DEFAULT NULL::double precision, comparison text DEFAULT '>'::text, over interval DEFAULT '00:01:00'::interval, need integer DEFAULT 3, keep_firing integer DEFAULT 2, hold_max integer DEFAULT 3, min_samples integer DEFAULT 1, severity text DEFAULT 'warning'::text, message text DEFAULT '{rule}: {instance} is {value}, the threshold is {threshold}'::text, enabled boolean DEFAULT true, query text DEFAULT NULL::text, labels jsonb DEFAULT '{}'::jsonb, sources text[] DEFAULT NULL::text[], clear_threshold double precision DEFAULT NULL::double precision, runbook text DEFAULT NULL::text, max_instances integer DEFAULT 500, origin text DEFAULT 'user'::text) RETURNS bigint
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
    insert into pipeline.alert_rule as r (
        name, metric, series, threshold, comparison, over, need, keep_firing, hold_max, min_samples, severity, message, enabled,
        query, labels, sources, clear_threshold, runbook, max_instances, origin
    )
    values (
        $1, coalesce($2, case when $14 is not null then 'sql' end), $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15,
        $16, $17, $18, $19, $20
    )
    on conflict (name) do update set
        metric = excluded.metric, series = excluded.series, threshold = excluded.threshold,
        comparison = excluded.comparison, over = excluded.over, need = excluded.need,
        keep_firing = excluded.keep_firing, hold_max = excluded.hold_max, min_samples = excluded.min_samples,
        severity = excluded.severity, message = excluded.message, enabled = excluded.enabled, query = excluded.query,
        labels = excluded.labels, sources = excluded.sources, clear_threshold = excluded.clear_threshold,
        runbook = excluded.runbook, max_instances = excluded.max_instances,
        -- a rule that came with pgreflex stays one of those, and is known to have been changed
        origin = case when excluded.origin = 'user' and r.origin = 'builtin' then r.origin else excluded.origin end
    returning r.id
$_$;

CREATE FUNCTION pipeline.alert_rules() RETURNS TABLE(name text, origin text, metric text, severity text, health text, problem text, instances integer, judged_until timestamp with time zone, took_ms double precision)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select r.name, r.origin, r.metric, r.severity,
        case
            when not r.enabled then 'off'
            when p.problem is not null then 'error'
            when p.judged_at is null then 'new'
            else 'ok'
        end,
        p.problem, p.instances, p.judged_until, p.took_ms
    from pipeline.alert_rule as r
    join pipeline.alert_progress as p on p.rule_id = r.id
    order by r.name
$$;

CREATE FUNCTION pipeline.alert_series(p_pattern text, p_labels jsonb, p_sources text[], p_from timestamp with time zone) RETURNS integer[]
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select array_agg(k.id)
    from pipeline.timing_series as k
    where (k.series = p_pattern or (strpos(p_pattern, '%') > 0 and k.series like p_pattern))
      and k.labels @> p_labels
      and (p_sources is null or k.source = any(p_sources))
      and k.last_at >= p_from - interval '65 minutes'
$$;

CREATE FUNCTION pipeline.alert_test(channel text, by text DEFAULT SESSION_USER) RETURNS uuid
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_id uuid := gen_random_uuid();
    v_at double precision := extract(epoch from pipeline.now());
    v_known text;
begin
    if not exists (select from pipeline.alert_channel as c where c.name = alert_test.channel) then
        select string_agg(c.name, ', ' order by c.name) into v_known from pipeline.alert_channel as c;
        raise exception 'alert_test: there is no channel %', coalesce(alert_test.channel, 'null')
            using errcode = 'P0002', hint = coalesce('There are: ' || v_known, 'No daemon has run with channels yet.');
    end if;
    insert into pipeline.alert_notification (id, channel, groups, reason, body, members, at, job)
    values (
        v_id, alert_test.channel, '{}', 'test',
        jsonb_build_object(
            'id', '', 'at', v_at, 'reason', 'test', 'status', 'firing', 'severity', 'info', 'groups', jsonb_build_array('test'),
            'firing', 1, 'resolved', 0, 'alerts', jsonb_build_array(
                jsonb_build_object(
                    'status', 'firing', 'rule', 'test', 'instance', '', 'severity', 'info', 'episode', 0, 'at', v_at,
                    'message', format('a test of channel %s, asked for by %s', alert_test.channel, left(alert_test.by, 200))
                )
            )
        ),
        '[]', pipeline.now(), pipeline.enqueue_notification(v_id, alert_test.channel)
    );
    return v_id;
end
$$;

CREATE FUNCTION pipeline.alert_timings(p_pattern text, p_labels jsonb, p_sources text[], p_from timestamp with time zone, p_seconds integer) RETURNS TABLE(series text, labels jsonb, count bigint, errors bigint, sum double precision, high double precision, quantiles double precision[])
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select s.series, s.labels, m.count, m.errors, m.sum, m.high, m.quantiles
    from (select pipeline.alert_series(p_pattern, p_labels, p_sources, p_from) as ids) as f
    cross join lateral (
        select case
            when p_seconds % 3600 = 0 then 3600 when p_seconds % 300 = 0 then 300 when p_seconds % 60 = 0 then 60 else 5
        end as level
    ) as l
    cross join lateral pipeline.timing_summary(
        f.ids, f.ids, p_from, p_from + make_interval(secs => p_seconds), l.level, l.level, array[0.5, 0.95, 0.99]
    ) as m
    join pipeline.timing_series as s on s.id = m.grp
$$;

CREATE FUNCTION pipeline.alert_unack(rule text, instance text DEFAULT NULL::text, by text DEFAULT SESSION_USER) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_count bigint;
begin
    with gone as (
        delete from pipeline.alert_ack as k
        where k.rule = alert_unack.rule and (alert_unack.instance is null or k.instance = alert_unack.instance)
        returning k.instance, k.episode
    ),
    noted as (
        insert into pipeline.alert_note (at, rule, instance, episode, action, made_by)
        select pipeline.now(), alert_unack.rule, g.instance, g.episode, 'unack', left(coalesce(alert_unack.by, session_user), 200)
        from gone as g
    )
    select count(*) into v_count from gone;
    return v_count;
end
$$;

CREATE FUNCTION pipeline.alerts() RETURNS TABLE(rule text, instance text, state text, severity text, since timestamp with time zone, message text, value double precision, threshold double precision, nodata boolean)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select s.rule, s.instance, s.state, s.severity,
        case s.state when 'firing' then s.fired_at when 'resolved' then s.resolved_at else s.active_at end,
        s.message, s.value, s.threshold, s.nodata
    from pipeline.alert_state as s
    where s.state <> 'resolved' or s.resolved_at > pipeline.now() - interval '15 minutes'
    order by array_position(array['firing', 'pending', 'resolved'], s.state),
        array_position(array['critical', 'warning', 'info'], s.severity), s.rule, s.instance
$$;

CREATE FUNCTION pipeline.alerts_alive(p_rule text, p_instance text) RETURNS TABLE(kind text, instance text, episode bigint)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
begin
    return query
    select s.kind, s.instance, s.episode
    from pipeline.alert_state as s
    where s.rule = p_rule and (p_instance is null or s.instance = p_instance) and s.state in ('pending', 'firing');
    if not found then
        raise exception 'alert %: % neither pends nor fires', p_rule, coalesce(nullif(p_instance, ''), 'it')
            using errcode = 'P0002', hint = 'select * from pipeline.alerts() shows what does.';
    end if;
end
$$;

CREATE FUNCTION pipeline.allowance(p_name text, p_rate integer, p_seconds double precision) RETURNS bigint
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select p_rate - coalesce((
        select case
            when m.slot_seconds <> p_seconds / 64 then (select sum(c) from unnest(m.counts) c)
            else (
                select sum(c.n) from unnest(m.counts) with ordinality c (n, i)
                where pipeline.slot_of(m.slot, (c.i - 1)::int) >= pipeline.slot_now(m.slot, m.slot_seconds) - 64
            )
        end
        from pipeline.limiter m where m.name = p_name
    ), 0)
$$;

CREATE FUNCTION pipeline.assert_leader(p_term bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    perform from pipeline.leader where term = p_term for share;
    if not found then
        raise object_not_in_prerequisite_state using message = 'another process leads the feed now';
    end if;
end
$$;

CREATE FUNCTION pipeline.blocked(most integer DEFAULT 100) RETURNS TABLE(pid integer, role text, application text, waited_seconds double precision, lock text, mode text, relation text, text text, behind integer, root integer, root_state text, root_role text, root_application text, root_transaction_seconds double precision, root_text text, depth integer)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
    v_database constant oid := (select d.oid from pg_database as d where d.datname = current_database());
begin
    return query
    with recursive session as materialized (
        select a.pid, a.usename::text as role, a.application_name, a.state, a.xact_start, a.query_id, a.query_start,
            a.wait_event_type is not distinct from 'Lock' as waits, a.datid
        from pg_stat_activity as a
    ),
    waiting as materialized (
        select s.pid, coalesce(l.waitstart, s.query_start) as since, l.locktype, l.mode,
            case when l.database = v_database then l.relation end as relation
        from session as s
        left join lateral (
            select k.waitstart, k.locktype, k.mode, k.relation, k.database
            from pg_locks as k where k.pid = s.pid and not k.granted limit 1
        ) as l on true
        where s.waits and s.datid = v_database
        order by since
        limit blocked.most
    ),
    -- One step for each: whoever waits for nothing, else whoever has waited longest. Queues have a pair for each two of them.
    step as materialized (
        select w.pid, b.pid as behind
        from waiting as w
        cross join lateral (
            select u.pid
            from unnest(pg_blocking_pids(w.pid)) as u (pid)
            left join waiting as o on o.pid = u.pid
            order by o.pid is not null, o.since, u.pid
            limit 1
        ) as b
    ),
    chain as (
        select s.pid, s.behind, s.behind as root, 1 as depth from step as s
        union all
        select c.pid, c.behind, s.behind, c.depth + 1
        from chain as c
        join step as s on s.pid = c.root
        where c.depth < 50  -- a deadlock has no end until the server finds it
    ),
    top_of as (
        select distinct on (c.pid) c.pid, c.behind, c.root, c.depth from chain as c order by c.pid, c.depth desc
    )
    select w.pid, s.role, s.application_name, extract(epoch from clock_timestamp() - w.since)::float8, w.locktype, w.mode,
        regexp_replace(w.relation::regclass::text, '^public\.', ''), pipeline.text_of(s.query_id), t.behind, nullif(t.root, 0),
        case when t.root = 0 then 'prepared transaction' else r.state end, r.role, r.application_name,
        extract(epoch from clock_timestamp() - r.xact_start)::float8, pipeline.text_of(r.query_id), t.depth
    from waiting as w
    join session as s on s.pid = w.pid
    join top_of as t on t.pid = w.pid
    left join session as r on r.pid = t.root
    order by w.since;
end
$$;

CREATE FUNCTION pipeline.broadcast(p_term bigint, p_lineage text, p_first bigint, p_payloads text[], p_notices text[], p_position text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_last constant bigint := p_first + cardinality(p_payloads) - 1;
begin
    perform pipeline.assert_leader(p_term);
    if (select last_value & 1 from pipeline.gate) = 0 then
        insert into pipeline.ring_0 (seq, lineage, position, payload)
        select p_first + n - 1, p_lineage, case when p_first + n - 1 = v_last then p_position end, p
        from unnest(p_payloads) with ordinality u(p, n);
    else
        insert into pipeline.ring_1 (seq, lineage, position, payload)
        select p_first + n - 1, p_lineage, case when p_first + n - 1 = v_last then p_position end, p
        from unnest(p_payloads) with ordinality u(p, n);
    end if;
    perform pg_notify('pipeline_feed', n) from unnest(p_notices) n;
end
$$;

CREATE FUNCTION pipeline.cache_get(p_key bytea, p_epoch text, p_refused bigint, p_refused_at text, p_owner bigint, p_lease double precision, OUT version bigint, OUT snapshot text, OUT upper text, OUT tags text[], OUT value bytea, OUT load_ms real, OUT left_s double precision, OUT wait_s double precision) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_role constant oid := pipeline.cache_role();
    v_leads boolean := false;
begin
    loop
        select r.version, r.snapshot::text, r.upper::text, r.tags, r.value, r.load_ms,
            extract(epoch from r.expires_at - pipeline.now())::float8
        into version, snapshot, upper, tags, value, load_ms, left_s
        from (
            select c.* from pipeline.cache_0 c where c.role = v_role and c.key = p_key
            union all
            select c.* from pipeline.cache_1 c where c.role = v_role and c.key = p_key
        ) r
        where r.epoch = p_epoch and (r.expires_at is null or r.expires_at > pipeline.now())
            and (p_refused is null or r.version <> p_refused or r.snapshot::text <> p_refused_at)
        order by pg_snapshot_xmax(r.snapshot) desc
        limit 1;
        if found or v_leads then
            exit;
        end if;
        insert into pipeline.cache_lease as l (role, key, owner, until)
        values (v_role, p_key, p_owner, pipeline.now() + make_interval(secs => least(p_lease, 60)))
        on conflict (role, key) do update set owner = excluded.owner, until = excluded.until
            where l.until < pipeline.now() or l.owner = excluded.owner;
        if not found then
            select extract(epoch from l.until - pipeline.now())::float8 into wait_s
            from pipeline.cache_lease l where l.role = v_role and l.key = p_key;
            wait_s := greatest(coalesce(wait_s, 0), 0);
            return;
        end if;
        v_leads := true; -- whoever led before may have written the row since we looked
    end loop;
    if version is not null and v_leads then
        delete from pipeline.cache_lease l where l.role = v_role and l.key = p_key and l.owner = p_owner;
    end if;
end
$$;

CREATE FUNCTION pipeline.cache_half_bytes() RETURNS bigint
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select value::bigint / 2 from pipeline.setting where name = 'cache_shared_max_bytes'
$$;

CREATE FUNCTION pipeline.cache_open_half() RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_name constant text := 'pipeline.cache_' || (select last_value from pipeline.cache_half);
begin
    return case when pg_total_relation_size(v_name) < pipeline.cache_half_bytes() then v_name end;
end
$$;

CREATE FUNCTION pipeline.cache_put(p_epoch text, p_owner bigint, p_keys bytea[], p_versions bigint[], p_namespaces text[], p_values bytea[], p_tags text[], p_snapshots text[], p_ttls double precision[], p_load_ms real[]) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    v_role constant oid := pipeline.cache_sharer();
    v_half constant text := pipeline.cache_open_half();
    v_upper constant pg_snapshot := pg_current_snapshot();
begin
    if v_half is not null and p_epoch = pipeline.epoch() then
        execute format('insert into %s as c (role, key, version, namespace, epoch, snapshot, upper, tags, value, load_ms,
                                             expires_at, raised_at)
            select $1, u.key, u.version, u.namespace, $2, u.snapshot::pg_snapshot, $11,
                array(select json_array_elements_text(u.tags::json)), u.value, u.load_ms,
                pipeline.now() + make_interval(secs => u.ttl), pipeline.now()
            from unnest($3, $4, $5, $6, $7, $8, $9, $10)
                u(key, version, namespace, value, tags, snapshot, ttl, load_ms)
            where length(u.key) <= 64 and length(u.value) <= 1048576 and length(u.tags) <= 65536
                and length(u.namespace) <= 200
            order by u.key
            on conflict (role, key) do update
            set version = excluded.version, namespace = excluded.namespace, epoch = excluded.epoch,
                snapshot = excluded.snapshot, upper = excluded.upper, tags = excluded.tags, value = excluded.value,
                load_ms = excluded.load_ms, expires_at = excluded.expires_at, raised_at = excluded.raised_at
            where c.epoch <> excluded.epoch or c.expires_at < pipeline.now()
                or pg_snapshot_xmax(excluded.snapshot) >= pg_snapshot_xmax(c.snapshot)', v_half)
        using v_role, p_epoch, p_keys, p_versions, p_namespaces, p_values, p_tags, p_snapshots, p_ttls, p_load_ms,
            v_upper;
    end if;
    if v_half is not null then
        perform pipeline.cache_release(p_owner, p_keys);
        return v_upper::text;
    end if;
    return null;
end
$_$;

CREATE FUNCTION pipeline.cache_raise(p_epoch text, p_keys bytea[], p_versions bigint[], p_snapshot text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    v_role constant oid := pipeline.cache_sharer();
    v_half constant text := pipeline.cache_open_half();
    v_other constant text := translate(v_half, '01', '10');
begin
    if v_half is null or p_epoch <> pipeline.epoch() then
        return v_half is not null;
    end if;
    -- in the order of keys, as cache_put does, so that two never wait for each other
    execute format('with due as materialized (
            select c.role, c.key from %s c join unnest($3, $4) u(key, version) using (key, version)
            where c.role = $1 and c.epoch = $2 and c.raised_at < pipeline.now() - interval ''5 seconds''
            order by c.key for no key update of c)
        update %1$s c set snapshot = $5::pg_snapshot, raised_at = pipeline.now() from due
        where c.role = due.role and c.key = due.key', v_half)
    using v_role, p_epoch, p_keys, p_versions, p_snapshot;
    execute format('insert into %s (role, key, version, namespace, epoch, snapshot, upper, tags, value, load_ms, expires_at, raised_at)
        select c.role, c.key, c.version, c.namespace, c.epoch, $5::pg_snapshot, c.upper, c.tags,
            c.value, c.load_ms, c.expires_at, pipeline.now()
        from %s c join unnest($3, $4) u(key, version) using (key, version)
        where c.role = $1 and c.epoch = $2
        order by c.key
        on conflict do nothing', v_half, v_other)
    using v_role, p_epoch, p_keys, p_versions, p_snapshot;
    return true;
end
$_$;

CREATE FUNCTION pipeline.cache_release(p_owner bigint, p_keys bytea[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_role constant oid := pipeline.cache_sharer();
begin
    delete from pipeline.cache_lease l using (
        select e.role, e.key from pipeline.cache_lease e
        where e.role = v_role and e.key = any (p_keys) and e.owner = p_owner
        order by e.key for update
    ) mine
    where l.role = mine.role and l.key = mine.key;
end
$$;

CREATE FUNCTION pipeline.cache_role() RETURNS oid
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select coalesce(
        (select r.oid from pg_roles r where r.rolname = nullif(current_setting('role'), 'none')),
        (select r.oid from pg_roles r where r.rolname = session_user))
$$;

CREATE FUNCTION pipeline.cache_sharer() RETURNS oid
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_role constant oid := pipeline.cache_role();
begin
    if not has_function_privilege(v_role, 'pipeline.cache_get(bytea,text,bigint,text,bigint,float8)', 'execute') then
        raise insufficient_privilege using
            message = 'this role may not share values of the cache',
            hint = 'Grant it execute on function pipeline.cache_get.';
    end if;
    return v_role;
end
$$;

CREATE FUNCTION pipeline.cache_turn() RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '100ms'
    AS $$
begin
    perform pipeline.cache_sharer();
    if not pg_try_advisory_xact_lock(1885697639, 19) then
        return false;
    end if;
    if pipeline.cache_open_half() is not null then
        return true;
    end if;
    delete from pipeline.cache_lease l where l.until < pipeline.now() - interval '1 minute';
    if (select last_value from pipeline.cache_half) = 0 then
        truncate pipeline.cache_1;
        perform setval('pipeline.cache_half', 1);
    else
        truncate pipeline.cache_0;
        perform setval('pipeline.cache_half', 0);
    end if;
    return pipeline.cache_open_half() is not null;
exception when lock_not_available then
    return false;
end
$$;

CREATE FUNCTION pipeline.cancel_dependents(p_needed bigint[], p_job bigint[], p_what text[]) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_need record;
    v_count int := 0;
begin
    for v_need in
        select w.id, w.name, w.state, array_agg(j.id order by j.id) as jobs
        from (
            select distinct on (e.job) e.job, e.needed
            from unnest(p_needed, p_job, p_what) e (needed, job, what)
            where e.what = 'cancel'
            order by e.job, e.needed
        ) e
        join pipeline.job j on j.id = e.job and j.needs > 0
        join pipeline.workflow_job w on w.id = e.needed
        group by w.id, w.name, w.state
        order by w.id
    loop
        v_count := v_count + cardinality(pipeline.end_jobs(v_need.jobs, 'cancelled', format(
            'job %s (%s), which this one needs, %s', v_need.id, v_need.name,
            case v_need.state when 'failed' then 'has failed' when 'expired' then 'has expired' else 'was cancelled' end
        )));
    end loop;
    return v_count;
end
$$;

CREATE FUNCTION pipeline.cancel_jobs(ids bigint[], reason text DEFAULT NULL::text) RETURNS bigint[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_ended bigint[] := pipeline.end_jobs(ids, 'cancelled', coalesce('cancelled: ' || reason, 'cancelled'));
begin
    for v_from in 1 .. cardinality(v_ended) by 300 loop
        perform pipeline.emit('pipeline.job_cancelled', array_to_string(v_ended[v_from : v_from + 299], ','));
    end loop;
    return v_ended;
end
$$;

CREATE FUNCTION pipeline.cancel_workflow(id bigint) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    update pipeline.workflow w set state = 'cancelling'
    where w.id = cancel_workflow.id and w.state in ('running', 'cancelling');
    return found;
end
$$;

CREATE FUNCTION pipeline.cancel_workflows(p_limit integer) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_flow bigint;
    v_count int := 0;
begin
    for v_flow in
        select w.id from pipeline.workflow w where w.state = 'cancelling' order by w.id
        for no key update skip locked
    loop
        exit when v_count >= p_limit;
        v_count := v_count + cardinality(pipeline.cancel_jobs(array(
            select j.id
            from pipeline.workflow_job w
            join pipeline.job j on j.id = w.id
            where w.workflow = v_flow
            order by j.id limit p_limit - v_count
        ), 'workflow ' || v_flow || ' was cancelled'));
    end loop;
    return v_count;
end
$$;

CREATE FUNCTION pipeline.changes_since(p_since pg_snapshot) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
declare
    v_seen constant pg_snapshot := pg_current_snapshot();
    v_leader pipeline.leader;
    v_events json := '[]';
    v_count bigint := 0;
    v_lost boolean := true;
begin
    select * into v_leader from pipeline.leader;
    if found and p_since is not null then
        select count(*), coalesce(json_agg(json_build_array(
                e.xid::text::bigint,
                coalesce(e.name, w.tag, (select f.tag from pipeline.former_watch f where f.id = e.watch), ''),
                e.op::text, e.keys, e.payload)), '[]')
        into v_count, v_events
        from (
            (select * from pipeline.outbox o
             where o.xid >= pg_snapshot_xmax(p_since) and o.xid < pg_snapshot_xmax(v_seen)
               and pg_visible_in_snapshot(o.xid, v_seen)
             order by o.xid, o.id limit 1001)
            union all
            (select * from pipeline.outbox o
             where o.xid = any (array(select x from pg_snapshot_xip(p_since) x where pg_visible_in_snapshot(x, v_seen)))
             order by o.xid, o.id limit 1001)
        ) e
        left join pipeline.watch w on w.id = e.watch;
        v_lost := v_count > 1000
            or coalesce(pg_sequence_last_value('pipeline.gate'), 0) & 2 <> 0
            or v_leader.retired_xmax = '18446744073709551615'
            or v_leader.flush_until > pg_snapshot_xmin(p_since)
            or not pipeline.covers(p_since, v_leader.position::pg_snapshot)
            -- durable events are deleted when all consumers have had them, and they may be ahead of the caller
            or exists (select from pipeline.watch where durable) and not pipeline.covers(p_since, coalesce(
                   (select r.position from pipeline.ring r where r.position is not null order by r.seq desc limit 1),
                   v_leader.position)::pg_snapshot);
    end if;
    return json_build_object(
        'epoch', pipeline.epoch(), 'seen', v_seen::text, 'lost', v_lost,
        'events', case when v_lost then '[]' else v_events end);
end
$$;

CREATE FUNCTION pipeline.charge(p_name text, p_count bigint, p_seconds double precision) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    insert into pipeline.limiter as m (name, slot_seconds, slot, counts)
    select p_name, p_seconds / 64, n.slot, array_fill(0, array[(n.slot % 65)::int]) || p_count::int
        || array_fill(0, array[64 - (n.slot % 65)::int])
    from (select pipeline.slot_now(0, p_seconds / 64) as slot) n
    on conflict (name) do update set
        slot_seconds = excluded.slot_seconds,
        slot = case when m.slot_seconds = excluded.slot_seconds then greatest(m.slot, excluded.slot) else excluded.slot end,
        counts = (
            select array_agg(
                case
                    when m.slot_seconds = excluded.slot_seconds then
                        case when pipeline.slot_of(m.slot, i) >= greatest(m.slot, excluded.slot) - 64 then m.counts[i + 1] else 0 end
                        + case when i = greatest(m.slot, excluded.slot) % 65 then p_count::int else 0 end
                    -- the window has another length: all that counted before counts from now on
                    when i = excluded.slot % 65 then p_count::int + (select sum(c)::int from unnest(m.counts) c)
                    else 0
                end order by i
            )
            from generate_series(0, 64) i
        )
$$;

CREATE FUNCTION pipeline.check_alert_matchers() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_column text;
    v_wrong text;
begin
    foreach v_column in array tg_argv loop
        v_wrong := pipeline.check_matchers(to_jsonb(new) -> v_column);
        if v_wrong is not null then
            raise exception '%: %', v_column, v_wrong using errcode = '22023';
        end if;
    end loop;
    return new;
end
$$;

CREATE FUNCTION pipeline.check_alert_rule() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    v_seconds double precision := extract(epoch from new.over);
    v_kind text;
    v_problem text;
begin
    if coalesce(new.name, '') = '' or length(new.name) > 200 then
        raise exception 'an alert rule needs a name of 1 to 200 characters' using errcode = '22023';
    end if;
    select m.kind into v_kind from pipeline.alert_metrics() as m where m.metric = new.metric;
    if v_kind is null then
        raise exception 'alert rule %: there is no metric %', new.name, coalesce(new.metric, 'null')
            using errcode = '22023',
                hint = 'select * from pipeline.alert_metrics() lists them; a query of your own has the metric sql.';
    end if;
    new.labels := coalesce(new.labels, '{}');
    if jsonb_typeof(new.labels) <> 'object' or jsonb_path_exists(new.labels, '$.* ? (@.type() != "string")') then
        raise exception 'alert rule %: labels must be a JSON object of texts', new.name
            using errcode = '22023', hint = 'For example {"route": "/orders"}.';
    end if;
    if v_kind = 'timing' and coalesce(new.series, '') = '' then
        raise exception 'alert rule %: it names no series', new.name
            using errcode = '22023', hint = 'Name a series such as orders.insert, or a pattern such as orders.%.';
    end if;
    if v_kind <> 'timing' and (new.series is not null or new.sources is not null) then
        raise exception 'alert rule %: % is not measured by series', new.name, new.metric
            using errcode = '22023', hint = 'Leave series and sources out; labels choose among the instances.';
    end if;
    if strpos(new.series, '%') > 0 and length(substring(new.series from '\\*$')) % 2 = 1 then
        raise exception 'alert rule %: the pattern % ends in its escape character', new.name, new.series
            using errcode = '22023', hint = 'Write \\ for a backslash that is meant.';
    end if;
    if new.over is null or v_seconds < 5 or v_seconds > 86400
        or v_seconds::numeric % (case when v_seconds < 60 then 5 else 60 end) <> 0 then
        raise exception 'alert rule %: windows of % cannot be had', new.name, coalesce(new.over::text, 'null')
            using errcode = '22023',
                hint = 'A window is 5 s to 1 day long: below a minute a multiple of 5 s, from a minute on whole minutes.';
    end if;
    if coalesce(new.comparison, '') not in ('>', '>=', '<', '<=') then
        raise exception 'alert rule %: % is no comparison', new.name, coalesce(new.comparison, 'null')
            using errcode = '22023', hint = 'Use >, >=, < or <=.';
    end if;
    if (new.threshold is null and v_kind <> 'query') or new.threshold in ('NaN', 'Infinity', '-Infinity') then
        raise exception 'alert rule %: the threshold must be a number, not %', new.name, coalesce(new.threshold::text, 'null')
            using errcode = '22023';
    end if;
    if new.metric = 'latency.error_rate' and not new.threshold between 0 and 1 then
        raise exception 'alert rule %: an error rate lies between 0 and 1, the threshold is %', new.name, new.threshold
            using errcode = '22023', hint = 'Five per cent is 0.05.';
    end if;
    if tg_op = 'UPDATE' and new.threshold is distinct from old.threshold
        and new.clear_threshold is not distinct from old.clear_threshold
        and (new.comparison in ('>', '>=') and new.clear_threshold > new.threshold
             or new.comparison in ('<', '<=') and new.clear_threshold < new.threshold)
    then
        new.clear_threshold := null;  -- it belonged to the threshold that is gone
    end if;
    if new.clear_threshold in ('NaN', 'Infinity', '-Infinity')
        or (new.clear_threshold is not null and new.threshold is null)
        or (new.comparison in ('>', '>=') and new.clear_threshold > new.threshold)
        or (new.comparison in ('<', '<=') and new.clear_threshold < new.threshold) then
        raise exception 'alert rule %: the clear threshold % does not lie on the good side of the threshold %',
            new.name, new.clear_threshold, coalesce(new.threshold::text, 'null')
            using errcode = '22023', hint = 'A rule > 100 can clear at 90, a rule < 0.5 at 0.6.';
    end if;
    if new.need is null or new.keep_firing is null or new.hold_max is null
        or least(new.need, new.keep_firing, new.hold_max) < 1 or greatest(new.need, new.keep_firing, new.hold_max) > 1000 then
        raise exception 'alert rule %: need, keep_firing and hold_max are counts of windows, 1 to 1000', new.name
            using errcode = '22023';
    end if;
    if new.min_samples is null or new.min_samples < 1 then
        raise exception 'alert rule %: min_samples must be at least 1', new.name
            using errcode = '22023', hint = 'A window with fewer timings counts as one without data.';
    end if;
    if new.max_instances is null or new.max_instances not between 1 and 100000 then
        raise exception 'alert rule %: max_instances lies between 1 and 100000', new.name using errcode = '22023';
    end if;
    if coalesce(new.severity, '') not in ('info', 'warning', 'critical') then
        raise exception 'alert rule %: there is no severity %', new.name, coalesce(new.severity, 'null')
            using errcode = '22023', hint = 'Severities are info, warning and critical.';
    end if;
    select m[1] into v_problem
    from regexp_matches(new.message, '\{([^{}]*)\}', 'g') as m
    where m[1] not in ('rule', 'metric', 'series', 'instance', 'value', 'threshold', 'detail') and m[1] !~ '^label\..+'
    limit 1;
    if new.message is null or v_problem is not null then
        raise exception 'alert rule %: its message has the unknown placeholder {%}', new.name, coalesce(v_problem, '')
            using errcode = '22023',
                hint = 'Placeholders are {rule}, {metric}, {instance}, {value}, {threshold}, {detail}, and {label.NAME}.';
    end if;
    if new.runbook !~ '^https?://\S+$' or length(new.runbook) > 2000 then
        raise exception 'alert rule %: its runbook is no link', new.name
            using errcode = '22023', hint = 'Write an address that begins with https://.';
    end if;
    if (v_kind = 'query') <> (coalesce(new.query, '') <> '') then
        raise exception 'alert rule %: %', new.name,
            case v_kind when 'query' then 'it has no query' else 'a query needs the metric sql' end
            using errcode = '22023', hint = 'Give a query and the metric sql, or neither.';
    end if;
    if v_kind = 'query' and (
        tg_op = 'INSERT' or new.query is distinct from old.query or new.metric is distinct from old.metric
    ) then
        v_problem := pipeline.query_problem(new.query);
        if v_problem is not null then
            raise exception 'alert rule %: its query cannot be run: %', new.name, v_problem
                using errcode = '22023',
                    hint = 'One SELECT; tables that are not in the schema public are named with theirs.';
        end if;
    end if;
    -- What the rule measures; instances of another revision no longer speak for it.
    new.revision := md5(concat_ws(
        '|', new.metric, coalesce(new.series, ''), v_seconds, new.comparison, coalesce(new.threshold::text, ''),
        nullif(new.labels, '{}'), new.sources, new.query
    ));
    return new;
end
$_$;

CREATE FUNCTION pipeline.check_columns(p_relation oid, p_columns text[]) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_missing text;
begin
    select c into v_missing from unnest(p_columns) c
    where not exists (select from pg_attribute where attrelid = p_relation and attname = c
                      and attnum > 0 and not attisdropped)
    limit 1;
    if v_missing is not null then
        raise undefined_column using
            message = format('%s has no column %s', p_relation::regclass, quote_ident(v_missing)),
            hint = format('Its columns are: %s.', (
                select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute
                where attrelid = p_relation and attnum > 0 and not attisdropped));
    end if;
    -- triggers see no value in them, so a change would go unnoticed; the letter is unknown before Postgres 18
    select c into v_missing from unnest(p_columns) c
    where exists (select from pg_attribute where attrelid = p_relation and attname = c and attgenerated = 'v')
    limit 1;
    if v_missing is not null then
        raise feature_not_supported using
            message = format('column %s of %s is virtual, and triggers do not see its value',
                             quote_ident(v_missing), p_relation::regclass),
            hint = 'Name the columns from which it is computed.';
    end if;
end
$$;

CREATE FUNCTION pipeline.check_cron(p_cron text, p_timezone text) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    v_field constant text := '[*0-9a-zA-Z][-*/,#0-9a-zA-Z]*';
begin
    if length(p_cron) > 200 or coalesce(btrim(p_cron), '') !~* (
        '^(@(yearly|annually|monthly|weekly|daily|midnight|hourly)|every\s+[1-9][0-9]{0,8}\s*[smhd]|'
        || v_field || '(\s+' || v_field || '){4})$'
    ) then
        raise exception '% is not a cron expression', coalesce(quote_literal(left(p_cron, 200)), 'null')
            using errcode = 'invalid_parameter_value',
                hint = 'Write five fields as in ''0 3 * * *'', a name such as @daily, or an interval: every 30s, every 5m.';
    end if;
    if coalesce(p_timezone, '') !~ '^[A-Z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$' or length(p_timezone) > 100 then
        raise exception '% is not a time zone', coalesce(quote_literal(left(p_timezone, 100)), 'null')
            using errcode = 'invalid_parameter_value', hint = 'Use a name such as Europe/Berlin.';
    end if;
    perform pipeline.now() at time zone p_timezone;  -- the server knows most names too
end
$_$;

CREATE FUNCTION pipeline.check_matchers(p_matchers jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_name text;
    v_value jsonb;
begin
    if p_matchers is null or jsonb_typeof(p_matchers) <> 'object' then
        return 'matchers are a JSON object, such as {"rule": "slow*", "label.region": "eu"}';
    end if;
    for v_name, v_value in select m.key, m.value from jsonb_each(p_matchers) as m order by m.key loop
        if v_name not in ('rule', 'severity', 'kind', 'instance') and v_name !~ '^label\..' then
            return format('there is no attribute %s; there are rule, severity, kind, instance and label.NAME', v_name);
        end if;
        if jsonb_typeof(v_value) <> 'string' then
            return format('%s should be a text, such as eu, eu* or !eu', v_name);
        end if;
    end loop;
    return null;
end
$$;

CREATE FUNCTION pipeline.check_watchable(p_name text, p_relation oid) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_class pg_class;
    v_schema text;
    v_refusal text;
begin
    select * into v_class from pg_class where oid = p_relation;
    if not found then
        raise undefined_table using
            message = format('there is no table %s', p_name),
            hint = 'Write it as schema.table; names with capitals or blanks need double quotes.';
    end if;
    select nspname into v_schema from pg_namespace where oid = v_class.relnamespace;
    v_refusal := case
        when v_class.relkind = 'v' then 'is a view; watch the tables that it reads'
        when v_class.relkind = 'm' then 'is a materialized view, which fires no triggers'
        when v_class.relkind = 'f' then 'is a foreign table; watch it on its own server'
        when v_class.relkind not in ('r', 'p') then 'is not a table'
        when v_class.relpersistence = 't' then 'is a temporary table, which only one session sees'
        when v_schema in ('pg_catalog', 'information_schema') then 'is a system catalog, which fires no triggers'
        when v_schema = 'pipeline' then 'belongs to pgreflex itself'
    end;
    if v_refusal is not null then
        raise wrong_object_type using message = format('%s %s', p_name, v_refusal),
            hint = 'Ordinary and partitioned tables can be watched.';
    end if;
    if not pg_has_role(v_class.relowner, 'usage') then
        raise insufficient_privilege using
            message = format('role %s does not own %s, and only the owner may give a table its triggers', current_user,
                             p_name),
            hint = format('Become a member: grant %I to %I', pg_get_userbyid(v_class.relowner), current_user);
    end if;
end
$$;

CREATE FUNCTION pipeline.check_watches() RETURNS TABLE(tag text, finding text)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_watch pipeline.watch;
    v_before constant text := current_setting('lock_timeout');
begin
    perform set_config('pipeline.own_ddl', 'on', true);
    for v_watch in
        select w.* from pipeline.watch w where pipeline.needs_check(w) order by w.id for update skip locked
    loop
        tag := v_watch.tag;
        for finding in select * from pipeline.follow_table(v_watch) loop
            return next;
        end loop;
        select * into v_watch from pipeline.watch w where w.id = v_watch.id;
        continue when not found;
        begin
            perform set_config('lock_timeout', '100ms', true);
            for finding in select * from pipeline.mend_triggers(v_watch) loop
                return next;
            end loop;
            perform set_config('lock_timeout', v_before, true);
        exception when lock_not_available or insufficient_privilege then
            -- what a missing trigger does not report is made good by naming the whole table at each check
            perform pipeline.write_event(v_watch.id, 'w', null, 0, null, v_watch.tag);
            finding := format('triggers are missing: %s', sqlerrm);
            return next;
        end;
    end loop;
    perform set_config('pipeline.own_ddl', 'off', true);
    perform pipeline.tell_schema_changes();
end
$$;

CREATE FUNCTION pipeline.check_workflow(p_name text, p_jobs jsonb, p_on_failure text) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    c_known constant text[] := '{name,task,args,after,on_failure,queue,priority,run_at,max_attempts,timeout,key,expires_at}';
    v_job record;
    v_text text;
begin
    if coalesce(p_name, '') = '' or length(p_name) > 200 then
        raise exception 'a workflow needs a name of 1 to 200 characters' using errcode = 'invalid_parameter_value';
    elsif coalesce(jsonb_typeof(p_jobs) <> 'array', true) then
        raise exception 'the jobs of a workflow are a JSON array of objects' using errcode = 'invalid_parameter_value';
    elsif jsonb_array_length(p_jobs) not between 1 and 100000 then
        raise exception 'workflow % has % jobs; it may have 1 to 100,000', p_name, jsonb_array_length(p_jobs)
            using errcode = 'invalid_parameter_value', hint = 'Start several, the next one from the last job of the one before.';
    elsif coalesce(p_on_failure not in ('cancel', 'ignore', 'hold'), true) then
        raise exception 'on_failure is cancel, ignore or hold, not %', coalesce(p_on_failure, 'null')
            using errcode = 'invalid_parameter_value';
    end if;
    for v_job in
        select j.i, j.one
        from jsonb_array_elements(p_jobs) with ordinality j (one, i)
        where jsonb_typeof(j.one) <> 'object' or not coalesce(
            j.one - c_known = '{}' and length(j.one ->> 'task') between 1 and 500 and j.one ->> 'name' is distinct from ''
            and jsonb_typeof(coalesce(j.one -> 'args', '{}')) = 'object' and length(coalesce(j.one ->> 'queue', 'default')) between 1 and 200
            and (pg_column_size(j.one -> 'args') <= 4096 or octet_length((j.one -> 'args')::text) <= pipeline.most_bytes()) is not false
            and coalesce((j.one ->> 'priority')::numeric, 0) between -32768 and 32767
            and coalesce((j.one ->> 'max_attempts')::numeric, 1) between 1 and 2147483647
            and coalesce((j.one ->> 'timeout')::float8, 1) > 0
            and length(coalesce(j.one ->> 'key', '')) <= 200
            and jsonb_typeof(coalesce(j.one -> 'after', '[]')) = 'array'
            and coalesce(j.one ->> 'on_failure', 'hold') in ('cancel', 'ignore', 'hold'), false
        )
        order by j.i limit 1
    loop
        if jsonb_typeof(v_job.one) <> 'object' then
            raise exception 'job number % of workflow % is no object', v_job.i, p_name using errcode = 'invalid_parameter_value';
        end if;
        select k into v_text from jsonb_object_keys(v_job.one) k where k <> all(c_known) limit 1;
        if v_text is not null then
            raise exception 'job number % of workflow % has the field "%", which is not known', v_job.i, p_name, v_text
                using errcode = 'invalid_parameter_value', hint = 'Known are ' || array_to_string(c_known, ', ') || '.';
        end if;
        perform pipeline.refuse_job(
            v_job.one ->> 'task', coalesce(v_job.one -> 'args', '{}'), v_job.one ->> 'queue',
            (v_job.one ->> 'priority')::int, (v_job.one ->> 'max_attempts')::int, null, v_job.one ->> 'key'
        );
        raise exception 'job number % of workflow % has a name, timeout, after or on_failure that cannot be meant', v_job.i, p_name
            using errcode = 'invalid_parameter_value',
            hint = 'A name is not empty, timeout is seconds above 0, after a list of names, on_failure cancel, ignore or hold.';
    end loop;
    select coalesce(j ->> 'name', j ->> 'task') into v_text
    from jsonb_array_elements(p_jobs) j group by 1 having count(*) > 1 limit 1;
    if v_text is not null then
        raise exception 'two jobs of workflow % are named %', p_name, v_text using errcode = 'invalid_parameter_value',
            hint = 'Give each job a name of its own; without one it is named as its task.';
    end if;
end
$$;

CREATE FUNCTION pipeline.claim(p_queue text, p_free bigint, p_limit bigint, p_worker bigint, p_after text DEFAULT ''::text) RETURNS TABLE(lease bigint, id bigint, task text, args jsonb, queue text, priority smallint, attempt integer, max_attempts integer, timeout double precision, created_at double precision, run_at double precision, waited double precision, key text, lost smallint, expires_in double precision, workflow bigint)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
    v_now constant timestamptz := pipeline.now();
    v_queue pipeline.queue;
    v_rule pipeline.key_rule;
    v_lane record;
    v_state pipeline.lane_state;
    v_room bigint := p_limit;
    v_quota bigint;
    v_take bigint;
    v_taken bigint;
    v_allowed bigint;
    v_ask_in double precision;
    v_seen text := p_after;
    v_keyed bool := exists (
        select from pipeline.lane l where l.queue = p_queue and (l.key <> '' or l.limited)
    );
begin
    if v_keyed then
        select * into v_queue from pipeline.queue q where q.name = p_queue for update;
        if v_queue.concurrency is not null then
            v_room := least(v_room, v_queue.concurrency - pipeline.running(p_queue));
        end if;
        if v_queue.rate is not null then
            v_allowed := pipeline.allowance('queue:' || p_queue, v_queue.rate, v_queue.rate_seconds);
            v_room := least(v_room, v_allowed, case when v_queue.rate < 1000 * v_queue.rate_seconds then p_free end);
            v_ask_in := case when v_allowed < 1 then greatest(0.01, least(1, v_queue.rate_seconds / 64)) end;
        end if;
    end if;

    for v_lane in
        select l.priority, l.key, p_limit as quota
        from pipeline.lane l
        -- laterally, not with `exists`: that may become a hash join, which reads every job in line
        cross join lateral (
            select from pipeline.job j
            where j.queue = l.queue and j.priority = l.priority and j.key = l.key
                and j.pos <= coalesce(l.last_pos, 9223372036854775807)
                and j.pos > (
                    select s.mark from pipeline.lane_state s
                    where s.queue = l.queue and s.priority = l.priority and s.key = l.key
                    order by s.n desc limit 1
                )
            limit 1
        ) j
        where not v_keyed and l.queue = p_queue and l.key = '' and not l.limited
        union all
        select t.priority, t.key, t.quota from pipeline.turns(p_queue, p_after, v_room) t where v_keyed and v_room > 0
        order by 1
    loop
        exit when v_room <= 0;
        v_seen := coalesce(v_lane.key, v_seen);
        if v_lane.priority is null then
            v_ask_in := least(v_ask_in, v_lane.quota / 1000.0);
            continue;
        end if;
        v_take := least(v_room, v_lane.quota);

        -- The lock in one statement, and all that depends on it in the next ones, under newer snapshots.
        perform from pipeline.lane l
        where l.queue = p_queue and l.priority = v_lane.priority and l.key = v_lane.key
            and (v_keyed or not l.limited) -- it may have been limited since
        for update skip locked;
        if not found then
            v_ask_in := least(v_ask_in, 0.002); -- another claim has it, for about as long
            continue;
        end if;

        v_rule := null;
        if v_lane.key <> '' then
            select * into v_rule from pipeline.key_rule r where r.name = split_part(v_lane.key, ':', 1);
            if v_rule.name is not null then
                perform from pipeline.limiter m where m.name = 'key:' || v_lane.key for update skip locked;
                if not found then
                    -- Made here and now only by whoever then takes nothing more: it waits for nobody with this in hand.
                    insert into pipeline.limiter (name) values ('key:' || v_lane.key) on conflict do nothing;
                    v_ask_in := 0.002;
                    exit;
                end if;
                if v_rule.concurrency is not null then
                    v_take := least(v_take, v_rule.concurrency - (
                        select coalesce(sum(cardinality(e.ids)), 0) from pipeline.lease e where e.key = v_lane.key
                    ));
                end if;
                if v_rule.rate is not null then
                    v_allowed := pipeline.allowance('key:' || v_lane.key, v_rule.rate, v_rule.rate_seconds);
                    v_take := least(v_take, v_allowed, case when v_rule.rate < 1000 * v_rule.rate_seconds then p_free end);
                    if v_allowed < 1 then
                        v_ask_in := least(v_ask_in, greatest(0.01, least(1, v_rule.rate_seconds / 64)));
                    end if;
                end if;
                continue when v_take <= 0;
            end if;
        end if;

        select s.* into v_state
        from pipeline.lane_state s
        where s.queue = p_queue and s.priority = v_lane.priority and s.key = v_lane.key
        order by s.n desc limit 1;

        return query
        with picked as materialized (
            select j.*
            from pipeline.job j
            where j.queue = p_queue and j.priority = v_lane.priority and j.key = v_lane.key and j.pos > v_state.mark
                and j.pos <= coalesce((
                    select l.last_pos from pipeline.lane l
                    where l.queue = p_queue and l.priority = v_lane.priority and l.key = v_lane.key
                ), 9223372036854775807)
            order by j.pos
            limit v_take
        ), leased as (
            insert into pipeline.lease (worker, queue, priority, key, counted, made_at, ids)
            select p_worker, p_queue, v_lane.priority, v_lane.key, v_keyed, v_now, array_agg(p.id)
            from picked p having count(*) > 0
            returning id
        ), noted as (
            insert into pipeline.lane_state (
                queue, priority, key, n, mark, settled, settling, settling_xid, oldest_lease, swept_at, searched_at
            )
            select
                v_state.queue, v_state.priority, v_state.key, v_state.n + 1, (select max(pos) from picked),
                v_state.settled, v_state.settling, v_state.settling_xid, v_state.oldest_lease,
                v_state.swept_at, v_state.searched_at
            from leased
        ), dropped as (
            delete from pipeline.lane_state s
            using leased
            where s.queue = v_state.queue and s.priority = v_state.priority and s.key = v_state.key and s.n = v_state.n
        )
        select
            (select l.id from leased l), p.id, p.task, p.args, p.queue, p.priority, p.attempt, p.max_attempts,
            extract(epoch from p.timeout)::float8, extract(epoch from p.created_at)::float8,
            extract(epoch from p.run_at)::float8, extract(epoch from v_now - p.run_at)::float8,
            p.key, p.lost, extract(epoch from p.expires_at - v_now)::float8, p.workflow
        from picked p
        order by p.pos;
        get diagnostics v_taken = row_count;

        v_room := v_room - v_taken;
        if v_queue.rate is not null and v_taken > 0 then
            perform pipeline.charge('queue:' || p_queue, v_taken, v_queue.rate_seconds);
        end if;
        if v_rule.rate is not null and v_taken > 0 then
            perform pipeline.charge('key:' || v_lane.key, v_taken, v_rule.rate_seconds);
        end if;
        -- without keys: one lane a claim, so that a worker comes back to the first one before it takes of the others
        exit when v_taken > 0 and not v_keyed;
    end loop;
    if v_ask_in is not null then
        id := null; queue := p_queue; key := v_seen; waited := v_ask_in;
        return next;
    end if;
end
$$;

CREATE FUNCTION pipeline.claim_plan(p_fingerprint text) RETURNS boolean
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    with turn as (
        insert into pipeline.plan_turn as t (fingerprint, at, outcome)
        values (p_fingerprint, pipeline.now(), 'asked')
        on conflict (fingerprint) do update
            set at = excluded.at, outcome = excluded.outcome, reason = ''
            where t.at <= excluded.at - interval '1 hour'
        returning 1
    )
    select exists (select from turn)
$$;

CREATE FUNCTION pipeline.claimable(p_queue text, p_priority smallint, p_key text) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select exists (
        select
        from pipeline.lane l
        cross join lateral (
            select s.mark from pipeline.lane_state s
            where s.queue = l.queue and s.priority = l.priority and s.key = l.key
            order by s.n desc limit 1
        ) s
        cross join lateral (
            select from pipeline.job j
            where j.queue = p_queue and j.priority = p_priority and j.key = p_key and j.pos > s.mark
                and j.pos <= coalesce(l.last_pos, 9223372036854775807)
            limit 1
        ) j
        where l.queue = p_queue and l.priority = p_priority and l.key = p_key
            and (p_key = '' or not exists (
                select from pipeline.key_rule r
                where r.name = split_part(p_key, ':', 1) and r.concurrency <= (
                    select coalesce(sum(cardinality(e.ids)), 0) from pipeline.lease e where e.key = p_key
                )
            ))
    )
$$;

CREATE FUNCTION pipeline.close_if_full(p_gate bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    v_locked boolean := false;
begin
    -- a bound that is no number must not fail the user's write
    if pg_relation_size(case when p_gate & 1 = 0 then 'pipeline.outbox_0'::regclass
                             else 'pipeline.outbox_1'::regclass end)
       <= coalesce((select value::bigint from pipeline.setting
                    where name = 'outbox_max_bytes' and value ~ '^[0-9]{1,18}$'), 134217728)
    then
        return;
    end if;
    v_locked := pg_try_advisory_lock(1885697639, 4);  -- against a turn of the gate at this moment; never waits
    if v_locked then
        perform setval('pipeline.gate', last_value | 2) from pipeline.gate;
        perform pg_advisory_unlock(1885697639, 4);
    end if;
exception when others or query_canceled then
    -- the lock is the session's: kept after a cancelled statement, it would let nobody turn the gate any more
    if v_locked then
        perform pg_advisory_unlock(1885697639, 4);
    end if;
    raise;
end
$_$;

CREATE FUNCTION pipeline.columns_numbered(p_relation oid, p_columns text[]) RETURNS integer[]
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select case when p_columns is not null then coalesce(array_agg(coalesce(a.attnum, 0)::int order by c.n), '{}') end
    from unnest(p_columns) with ordinality c (name, n)
    left join pg_attribute a on a.attrelid = p_relation and a.attname = c.name and a.attnum > 0 and not a.attisdropped
$$;

CREATE FUNCTION pipeline.contained() RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
begin
    if pg_is_in_recovery() then
        return json_build_object(
            'epoch', (select value from pipeline.setting where name = 'feed_epoch'),
            'wal', (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint,
            'seen', format('%1$s:%1$s:', pg_snapshot_xmin(pg_current_snapshot())));
    end if;
    return json_build_object('epoch', pipeline.epoch(), 'wal', null, 'seen', pg_current_snapshot()::text);
end
$_$;

CREATE FUNCTION pipeline.count_ended(p_notes bigint[]) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    with latest as materialized (
        select distinct on (d.job) d.job, d.state, d.finished_at, d.result
        from unnest(p_notes) x (n)
        join pipeline.job_ended d on d.n = x.n
        order by d.job, d.n desc
    ), ended as (
        update pipeline.workflow_job w
        set state = l.state, finished_at = l.finished_at, result = case when w.dependents > 0 then l.result end
        from latest l
        join pipeline.workflow_job was on was.id = l.job
        where w.id = l.job
        returning
            w.workflow, (was.state is null)::int as first,
            (w.state <> 'finished')::int - (coalesce(was.state, 'finished') <> 'finished')::int as failed
    )
    update pipeline.workflow f
    set pending = f.pending - e.first, failed = f.failed + e.failed
    from (select e.workflow, sum(e.first) as first, sum(e.failed) as failed from ended e group by e.workflow) e
    where f.id = e.workflow
$$;

CREATE FUNCTION pipeline.covers(p_one pg_snapshot, p_other pg_snapshot) RETURNS boolean
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select pg_snapshot_xmax(p_one) >= pg_snapshot_xmax(p_other)
        and not exists (select from pg_snapshot_xip(p_one) x where pg_visible_in_snapshot(x, p_other))
$$;

CREATE FUNCTION pipeline.now() RETURNS timestamp with time zone
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if current_setting('pipeline.fake_now', true) <> '' then
        return coalesce(pipeline.fake_now(), statement_timestamp());
    end if;
    return statement_timestamp();
end
$$;

CREATE TABLE pipeline.watch (
    id integer NOT NULL,
    relation regclass NOT NULL,
    tag text NOT NULL,
    keys text[] NOT NULL,
    columns text[],
    timing boolean DEFAULT false NOT NULL,
    durable boolean DEFAULT false NOT NULL,
    replicated boolean DEFAULT false NOT NULL,
    tree oid[],
    created_at timestamp with time zone DEFAULT pipeline.now() NOT NULL
);

COMMENT ON TABLE pipeline.watch IS 'Tables whose changes are reported; written by pipeline.watch and pipeline.unwatch.';

CREATE FUNCTION pipeline.create_watch_functions(p_watch pipeline.watch) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    v_op text;
    v_clock constant text := format('pipeline.began_%s', p_watch.id);
    v_pinned text := '';
begin
    if pipeline.reads_unlike(p_watch) then
        v_pinned := 'set timezone = ''UTC'' set datestyle = ''ISO, YMD'' set intervalstyle = ''iso_8601'''
            ' set bytea_output = ''hex'' set extra_float_digits = 1 set lc_monetary = ''C''';
    end if;
    if p_watch.timing then
        -- a stack, because a statement may run inside a trigger of another on the same table
        execute format($f$
            create or replace function pipeline.watch_%s_begin() returns trigger
            language plpgsql security definer set search_path = pg_catalog, pg_temp
            as $body$
            begin
                perform set_config(%2$L, concat_ws(',', nullif(current_setting(%2$L, true), ''),
                                   extract(epoch from clock_timestamp())), true);
                return null;
            end
            $body$ $f$, p_watch.id, v_clock);
    end if;
    foreach v_op in array array['insert', 'update', 'delete'] loop
        execute format($f$
            create or replace function pipeline.watch_%1$s_%2$s() returns trigger
            language plpgsql security definer set search_path = pg_catalog, pg_temp %3$s
            as $body$
            declare
                v_rows int;
                v_keys text[];
                v_ms real;
                v_stack text[];
                v_gate bigint;
            begin
                %4$s
                begin
                    %5$s
                exception
                    when no_data_found then
                        return null;
                    when too_many_rows then
                        begin
                            %6$s
                        exception when others then
                            v_rows := 1;
                            v_keys := null;
                        end;
                    when others then
                        v_rows := 1;
                        v_keys := null;
                end;
                %7$s
                return null;
            end
            $body$ $f$,
            p_watch.id, v_op, v_pinned,
            case when p_watch.timing then format($t$
                v_stack := string_to_array(nullif(current_setting(%1$L, true), ''), ',');
                if v_stack is not null then
                    v_ms := 1000 * (extract(epoch from clock_timestamp()) - v_stack[cardinality(v_stack)]::numeric);
                    perform set_config(%1$L, array_to_string(v_stack[:cardinality(v_stack) - 1], ','), true);
                end if;$t$, v_clock) else '' end,
            pipeline.first_statement(p_watch, v_op), pipeline.scan_statement(p_watch, v_op),
            pipeline.write_statements(
                p_watch.durable, format('%s, %L, v_keys, coalesce(v_rows, 1), v_ms, null, null', p_watch.id, left(v_op, 1))));
    end loop;
    execute format($f$
        create or replace function pipeline.watch_%1$s_truncate() returns trigger
        language plpgsql security definer set search_path = pg_catalog, pg_temp
        as $body$
        begin
            perform pipeline.write_event(%1$s, 't', null, 0, null, v_durable => %2$L);
            return null;
        end
        $body$ $f$, p_watch.id, p_watch.durable);
    if p_watch.replicated then
        execute format($f$
            create or replace function pipeline.watch_%1$s_replicated() returns trigger
            language plpgsql security definer set search_path = pg_catalog, pg_temp %2$s
            as $body$
            declare
                v_keys text[];
            begin
                begin
                    if tg_op <> 'DELETE' then
                        v_keys := array_append(v_keys, (select %3$s from (select new.*) n));
                    end if;
                    if tg_op <> 'INSERT' then
                        v_keys := array_append(v_keys, (select %4$s from (select old.*) o));
                    end if;
                    select array_agg(distinct k) into v_keys from unnest(v_keys) k where k is not null;
                exception when others then
                    v_keys := null;
                end;
                perform pipeline.write_event(%1$s, lower(left(tg_op, 1))::"char", nullif(v_keys, '{}'), 1, null,
                                             v_durable => %5$L);
                return null;
            end
            $body$ $f$, p_watch.id, v_pinned, pipeline.key_expression(p_watch.relation, 'n', p_watch.keys),
            pipeline.key_expression(p_watch.relation, 'o', p_watch.keys), p_watch.durable);
    end if;
    for v_op in select unnest(array['insert', 'update', 'delete', 'truncate']
                              || case when p_watch.timing then array['begin'] else '{}' end
                              || case when p_watch.replicated then array['replicated'] else '{}' end)
    loop
        execute format('revoke execute on function pipeline.watch_%s_%s() from public', p_watch.id, v_op);
    end loop;
end
$_$;

CREATE FUNCTION pipeline.create_watch_triggers(p_watch pipeline.watch, p_relation oid, p_enable boolean DEFAULT false) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_row record;
    v_touched int := 0;
begin
    for v_row in
        select t.*, format('pgreflex_%s_%s', p_watch.id, t.suffix) as name, g.tgenabled as enabled
        from pipeline.triggers_of(p_watch, p_relation) t
        left join pg_trigger g on g.tgrelid = p_relation and g.tgname = format('pgreflex_%s_%s', p_watch.id, t.suffix)
        where g.tgenabled is null or (g.tgenabled = 'D' and p_enable)
           or g.tgenabled not in ('D', upper(left(t.mode, 1))::"char")
    loop
        if v_row.enabled is null then
            execute format('create trigger %I ' || v_row.definition || ' execute function pipeline.watch_%s_%s()',
                           v_row.name, p_relation::regclass, p_watch.id, v_row.suffix);
        end if;
        execute format('alter table only %s enable %s trigger %I', p_relation::regclass, v_row.mode, v_row.name);
        v_touched := v_touched + 1;
    end loop;
    return v_touched;
end
$$;

CREATE FUNCTION pipeline.drain_queue(name text) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select pipeline.hold_queue(name, 'draining', coalesce(pg_sequence_last_value('pipeline.job_pos'), 0))
$$;

CREATE FUNCTION pipeline.drain_timings() RETURNS TABLE(name text, labels text, start double precision, ms double precision[])
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_read pg_snapshot;
begin
    if not exists (select from pipeline.timing_inbox_place) then
        insert into pipeline.timing_inbox_place (position) values ('1:1:') on conflict do nothing;
    end if;
    select p.position into v_read from pipeline.timing_inbox_place as p for update;
    -- A place that was restored from another server may lie ahead; then nothing is read once, and it lies right again.
    -- As PgQ reads: what had not begun at the first snapshot is a range of the index, what was under way then a short list.
    return query
    with s as materialized (
        select pg_current_snapshot() as position
    ),
    moved as (
        update pipeline.timing_inbox_place as p set position = s.position from s
    ),
    fresh as (
        select i.* from pipeline.timing_inbox as i where i.xid >= pg_snapshot_xmax(v_read)
        union all
        select i.* from pipeline.timing_inbox as i where i.xid = any(array(select pg_snapshot_xip(v_read)))
    )
    select f.name, f.labels::text, floor(extract(epoch from f.at)::float8 / 5) * 5 as start, array_agg(v.ms)
    from fresh as f
    cross join unnest(f.ms) as v (ms)
    group by f.name, f.labels, 3;
end
$$;

CREATE FUNCTION pipeline.drop_spare_triggers(p_watch pipeline.watch) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_row record;
    v_dropped int := 0;
begin
    for v_row in select * from pipeline.spare_triggers(p_watch) loop
        execute format('drop trigger %I on %s', v_row.name, v_row.relation::regclass);
        v_dropped := v_dropped + 1;
    end loop;
    return v_dropped;
end
$$;

CREATE FUNCTION pipeline.drop_watch(p_watch pipeline.watch) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_row record;
begin
    for v_row in
        select tgrelid, tgname from pg_trigger
        where tgname ~ format('^pgreflex_%s_', p_watch.id) and not tgisinternal
    loop
        execute format('drop trigger %I on %s', v_row.tgname, v_row.tgrelid::regclass);
    end loop;
    for v_row in
        select p.oid::regprocedure as signature from pg_proc p
        where p.pronamespace = 'pipeline'::regnamespace and p.proname ~ format('^watch_%s_', p_watch.id)
    loop
        execute format('drop function %s', v_row.signature);
    end loop;
    insert into pipeline.former_watch (id, tag) values (p_watch.id, p_watch.tag);
    delete from pipeline.watch w where w.id = p_watch.id;
    perform pipeline.write_event(null, 'w', null, 0, null, p_watch.tag);
end
$$;

CREATE FUNCTION pipeline.emit(channel text, payload text DEFAULT NULL::text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if coalesce(channel, '') = '' or octet_length(channel) > 200 then
        raise invalid_parameter_value using
            message = 'a channel has 1 to 200 bytes',
            hint = 'Use a short name such as mail.sent, and put the data into the payload.';
    end if;
    if octet_length(payload) > 1048576 then
        raise program_limit_exceeded using
            message = format('this payload has %s bytes; at most 1048576 can be sent', octet_length(payload)),
            hint = 'Store the data in a table and emit its key.';
    end if;
    perform pipeline.write_event(null, 'e', null, 1, null, channel, payload);
end
$$;

CREATE FUNCTION pipeline.end_jobs(p_ids bigint[], p_state text, p_error text) RETURNS bigint[]
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    with named as materialized (
        select j.id from pipeline.job j where j.id = any(p_ids) order by j.id for update
    ), gone as (
        delete from pipeline.job j using named n where j.id = n.id returning j.*
    ), archived as (
        insert into pipeline.job_archive (
            id, queue, priority, task, args, state, attempt, max_attempts, created_at, run_at, expires_at, timeout,
            key, lost, workflow, finished_at, error
        )
        select
            g.id, g.queue, g.priority, g.task, g.args, p_state, g.attempt, g.max_attempts, g.created_at, g.run_at,
            g.expires_at, g.timeout, g.key, g.lost, g.workflow, (select pipeline.now()), p_error
        from gone g
        returning id
    )
    select coalesce(array_agg(a.id), '{}') from archived a
$$;

CREATE FUNCTION pipeline.enqueue(task text, args jsonb DEFAULT '{}'::jsonb, queue text DEFAULT NULL::text, priority integer DEFAULT NULL::integer, run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, max_attempts integer DEFAULT NULL::integer, timeout interval DEFAULT NULL::interval, key text DEFAULT NULL::text, expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone, unique_key text DEFAULT NULL::text, unique_for interval DEFAULT NULL::interval, unique_states text[] DEFAULT NULL::text[], on_clash text DEFAULT NULL::text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
declare
    v_queue text;
    v_priority int;
    v_max_attempts int;
    v_timeout interval;
    v_now timestamptz;
    v_simple bool;
    v_quiet bool;
    v_id bigint;
begin
    -- Nearly every job takes this way: one look and one insert. Each further statement or expression is prepared anew in
    -- every transaction, for 10,000 to 20,000 instructions, where a whole bare insert costs 120,000.
    select
        coalesce(queue, t.queue, 'default'), coalesce(priority, t.priority, 0), coalesce(max_attempts, t.max_attempts, 5),
        coalesce(timeout, t.timeout), n.now,
        run_at is null and unique_key is null and expires_at is null and t.key is null and t.unique_by is null
        and t.expires is null and task <> '' and jsonb_typeof(args) = 'object' and queue <> '' is not false and length(queue) <= 200 is not false
        and priority between -32768 and 32767 is not false and max_attempts >= 1 is not false
        and timeout > '0' is not false and length(key) <= 200 is not false and length(task) <= 500 and pg_column_size(args) <= 4096,
        exists (
            select from pipeline.lane l
            where l.queue = coalesce(queue, t.queue, 'default') and l.priority = coalesce(priority, t.priority, 0)
                and l.key = coalesce(key, '')
        )
        and pg_try_advisory_xact_lock_shared(1885697640, hashtext(coalesce(queue, t.queue, 'default')))
    into v_queue, v_priority, v_max_attempts, v_timeout, v_now, v_simple, v_quiet
    from (
        -- the call alone would be one expression more to prepare: 8,000 instructions
        select case when current_setting('pipeline.fake_now', true) <> '' then pipeline.now() else statement_timestamp() end as now
    ) n
    left join pipeline.task t on t.name = task;
    if v_simple is not true then
        return pipeline.enqueue_with(
            task, args, queue, priority, run_at, max_attempts, timeout, key, expires_at, unique_key, unique_for,
            unique_states, on_clash
        );
    end if;
    insert into pipeline.job (task, args, queue, priority, max_attempts, timeout, key, run_at, created_at)
    values (task, args, v_queue, v_priority, v_max_attempts, v_timeout, coalesce(key, ''), v_now, v_now)
    returning id into v_id;
    if not v_quiet then
        perform pipeline.request_lane(v_queue, v_priority, coalesce(key, '')), pipeline.wake_workers(v_queue);
    end if;
    return v_id;
end
$$;

CREATE FUNCTION pipeline.enqueue_many(task text, args jsonb[], queue text DEFAULT NULL::text, priority integer DEFAULT NULL::integer, run_at timestamp with time zone DEFAULT NULL::timestamp with time zone, max_attempts integer DEFAULT NULL::integer, timeout interval DEFAULT NULL::interval, expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone, keys text[] DEFAULT NULL::text[]) RETURNS bigint[]
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
declare
    v_bad jsonb;
begin
    if exists (select from pipeline.task t where t.name = task and t.unique_by is not null) then
        return array(
            select pipeline.enqueue(task, a.args, queue, priority, run_at, max_attempts, timeout, a.key, expires_at)
            from unnest(args, keys) with ordinality a (args, key, i) where a.i <= cardinality(args) order by a.i
        );
    end if;
    select a into v_bad from unnest(args) a
    where coalesce(jsonb_typeof(a) <> 'object', true)
        or pg_column_size(a) > 4096 and octet_length(a::text) > pipeline.most_bytes()
    limit 1;
    if found then
        perform pipeline.refuse_job(task, v_bad, queue, priority, max_attempts, timeout, '');
    end if;
    return pipeline.add_jobs(task, args, queue, priority, run_at, max_attempts, timeout, expires_at, keys);
end
$$;

CREATE FUNCTION pipeline.enqueue_notification(p_id uuid, p_channel text) RETURNS bigint
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select pipeline.enqueue(
        'pgreflex.notify', jsonb_build_object('notification', p_id, 'channel', p_channel), queue => 'pgreflex.alerts',
        max_attempts => 10000, key => 'pgreflex.notify:' || p_channel
    )
$$;

CREATE FUNCTION pipeline.enqueue_on(tbl regclass, op text, task text, queue text DEFAULT NULL::text, share double precision DEFAULT 1.0) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_kind "char" := (select c.relkind from pg_class c where c.oid = tbl);
    v_before text := current_setting('lock_timeout');
    v_name text := 'pipeline_enqueue_' || op || '_' || task;
    v_tries int := 0;
begin
    if op is null or op not in ('insert', 'update', 'delete') then
        raise exception 'op must be insert, update or delete, not %', coalesce(op, 'null')
            using errcode = 'invalid_parameter_value';
    elsif coalesce(share > 0 and share <= 1, false) is not true then
        raise exception 'share must be above 0 and at most 1, not %', share using errcode = 'invalid_parameter_value';
    elsif coalesce(task, '') = '' or queue = '' then
        raise exception 'a job needs a task, and its queue a name' using errcode = 'invalid_parameter_value';
    elsif coalesce(v_kind not in ('r', 'p'), true) then
        raise exception '% is not a table', tbl using errcode = 'wrong_object_type';
    end if;
    if octet_length(v_name) > 63 then
        v_name := 'pipeline_enqueue_' || op || '_' || md5(task);
    end if;

    perform set_config('lock_timeout', '50ms', true);
    loop
        begin
            execute format('lock table %s in share row exclusive mode', tbl);
            exit;
        exception when lock_not_available then
            v_tries := v_tries + 1;
            if v_tries = 40 then
                raise exception 'the lock on % could not be had in %', tbl, '10 s' using errcode = 'lock_not_available',
                    hint = 'A transaction that writes to the table has been open for long. End it, or call again later.';
            end if;
            perform pg_sleep(0.15 + random() * 0.1);
        end;
    end loop;
    perform set_config('lock_timeout', v_before, true);

    execute format(
        'create or replace trigger %I after %s on %s referencing %s table as changed '
        'for each statement execute function pipeline.enqueue_rows(%L, %L, %L)',
        v_name, op, tbl, case op when 'delete' then 'old' else 'new' end, task, coalesce(queue, ''), share
    );
    return v_name;
end
$$;

CREATE FUNCTION pipeline.enqueue_rows() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION pipeline.enqueue_run(p_name text, p_at timestamp with time zone) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    s pipeline.schedule;
    v_args jsonb;
begin
    select * into strict s from pipeline.schedule x where x.name = p_name;
    v_args := s.args;
    if v_args -> 'scheduled_for' = 'null' then
        v_args := v_args || jsonb_build_object(
            'scheduled_for', to_char(p_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')
        );
    end if;
    return pipeline.enqueue(s.task, v_args, queue => s.queue, priority => s.priority::int, run_at => p_at);
end
$$;

CREATE FUNCTION pipeline.enqueue_unique(p_task text, p_args jsonb, p_queue text, p_priority integer, p_run_at timestamp with time zone, p_max_attempts integer, p_timeout interval, p_key text, p_expires_at timestamp with time zone, p_unique text, p_for interval, p_states text[], p_on_clash text) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_now timestamptz := pipeline.now();
    v_other pipeline.job_unique;
    v_job pipeline.job;
    v_args jsonb := p_args;
    v_id bigint;
begin
    if p_states is not null or p_on_clash not in ('skip', 'replace', 'reschedule', 'merge') or length(p_unique) > 500 then
        perform pipeline.refuse_unique(p_task, p_unique, p_for, p_states, p_on_clash);
    end if;
    loop
        insert into pipeline.job_unique (key, job) values (p_unique, 0) on conflict do nothing;
        select * into v_other from pipeline.job_unique u where u.key = p_unique for update;
        exit when found; -- else a cleanup has deleted the row between the two
    end loop;
    select * into v_job from pipeline.job j where j.id = v_other.job;

    if not pipeline.is_in(v_other, v_job, p_states) then
        null; -- it holds the key no more
    elsif p_on_clash = 'skip' or v_job.id is null then
        return v_other.job;
    elsif v_job.pos is null then
        if p_on_clash = 'merge' then
            v_args := pipeline.merge_args(v_job.args, p_args);
        end if;
        update pipeline.job j set
            args = case when p_on_clash = 'reschedule' then j.args else v_args end,
            run_at = case when p_on_clash = 'merge' then j.run_at else coalesce(p_run_at, v_now) end
        where j.id = v_job.id and j.pos is null -- it may have been promoted this moment: then it is added anew
            and octet_length(v_args::text) <= pipeline.most_bytes(); -- and so it is when the other one is full
        if found then
            return v_job.id;
        end if;
    end if;

    v_id := pipeline.add_job(p_task, p_args, p_queue, p_priority, p_run_at, p_max_attempts, p_timeout, p_key, p_expires_at);
    update pipeline.job_unique u set job = v_id, kept_until = v_now + p_for where u.key = p_unique;
    return v_id;
end
$$;

CREATE FUNCTION pipeline.enqueue_with(task text, args jsonb, queue text, priority integer, run_at timestamp with time zone, max_attempts integer, timeout interval, key text, expires_at timestamp with time zone, unique_key text, unique_for interval, unique_states text[], on_clash text) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
declare
    v_known pipeline.task;
begin
    select * into v_known from pipeline.task t where t.name = task;
    if v_known.name is not null then
        queue := coalesce(queue, v_known.queue);
        priority := coalesce(priority, v_known.priority);
        max_attempts := coalesce(max_attempts, v_known.max_attempts);
        timeout := coalesce(timeout, v_known.timeout);
        key := coalesce(key, pipeline.render_key(v_known.key, args));
        expires_at := coalesce(expires_at, greatest(run_at, pipeline.now()) + v_known.expires);
        if v_known.unique_by is not null and unique_key is null then
            unique_key := case
                when v_known.unique_by = '*' then '*' else task || ':' || pipeline.render_key(v_known.unique_by, args)
            end;
            unique_for := coalesce(unique_for, v_known.unique_for);
            unique_states := coalesce(unique_states, v_known.unique_states);
            on_clash := coalesce(on_clash, v_known.on_clash);
        end if;
    end if;
    perform pipeline.refuse_job(task, args, queue, priority, max_attempts, timeout, key);
    if unique_key = '*' then
        unique_key := task || ':' || md5(args::text);
    end if;
    if unique_key is not null then
        return pipeline.enqueue_unique(
            task, args, coalesce(queue, 'default'), coalesce(priority, 0), run_at, coalesce(max_attempts, 5), timeout,
            coalesce(key, ''), expires_at, unique_key, unique_for, unique_states, coalesce(on_clash, 'skip')
        );
    end if;
    return pipeline.add_job(
        task, args, coalesce(queue, 'default'), coalesce(priority, 0), run_at, coalesce(max_attempts, 5), timeout,
        coalesce(key, ''), expires_at
    );
end
$$;

CREATE FUNCTION pipeline.epoch() RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select case when exists (select from pipeline.leader)
        then left(md5(pipeline.lineage() || extract(epoch from pg_postmaster_start_time())), 12) end
$$;

CREATE FUNCTION pipeline.expire_jobs(p_limit integer DEFAULT 1000) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_now constant timestamptz := pipeline.now();
    v_ids bigint[];
    v_count bigint;
    v_lane record;
begin
    v_ids := array(
        select j.id from pipeline.job j
        where j.expires_at <= v_now and j.pos is null order by j.expires_at limit p_limit for update skip locked
    );
    v_count := cardinality(pipeline.end_jobs(v_ids, 'expired', 'expired before it began'));
    for v_lane in
        select j.queue, j.priority, j.key, array_agg(j.id) as ids
        from (
            select * from pipeline.job j
            where j.expires_at <= v_now and j.pos is not null order by j.expires_at limit p_limit
        ) j
        group by j.queue, j.priority, j.key
    loop
        perform from pipeline.lane l
        where l.queue = v_lane.queue and l.priority = v_lane.priority and l.key = v_lane.key
        for update skip locked;
        continue when not found;
        v_ids := array(
            select j.id from pipeline.job j
            where j.id = any(v_lane.ids) and j.expires_at <= v_now and j.id not in (
                select unnest(e.ids) from pipeline.lease e
                where e.queue = v_lane.queue and e.priority = v_lane.priority and e.key = v_lane.key
            )
        );
        v_count := v_count + cardinality(pipeline.end_jobs(v_ids, 'expired', 'expired before it began'));
    end loop;
    return v_count;
end
$$;

CREATE FUNCTION pipeline.fake_now() RETURNS timestamp with time zone
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if pg_has_role(session_user, (select n.nspowner from pg_namespace n where n.nspname = 'pipeline'), 'usage') then
        return nullif(current_setting('pipeline.fake_now', true), '')::timestamptz;
    end if;
    return null;
end
$$;

CREATE FUNCTION pipeline.fingerprint_now(p_fingerprint text) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select coalesce((select q.moved_to from pipeline.query as q where q.fingerprint = p_fingerprint), p_fingerprint)
$$;

CREATE FUNCTION pipeline.finish_turn(p_term bigint, p_was_full boolean) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    update pipeline.leader
    set retired_xmax = pg_current_xact_id(), turned_at = clock_timestamp(),
        flush_until = case when p_was_full then pg_current_xact_id() else flush_until end
    where term = p_term and retired_xmax = '18446744073709551615';
end
$$;

CREATE FUNCTION pipeline.first_statement(p_watch pipeline.watch, p_op text) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select case
        when cardinality(p_watch.keys) = 0 or (p_op = 'update' and p_watch.columns is not null) then
            pipeline.scan_statement(p_watch, p_op)
        when p_op = 'update' then format(
            'select case when o.k = n.k then array[o.k] else nullif(array_remove(array[o.k, n.k], null), %L) end'
            ' into strict v_keys from (select %s as k from old_rows o) o, (select %s as k from new_rows n) n;',
            '{}', v_old, v_new)
        else format(
            'select case when r.k is not null then array[r.k] end into strict v_keys from (select %s as k from %s) r;',
            case p_op when 'insert' then v_new else v_old end,
            case p_op when 'insert' then 'new_rows n' else 'old_rows o' end)
    end
    from (select pipeline.key_expression(p_watch.relation, 'o', p_watch.keys),
                 pipeline.key_expression(p_watch.relation, 'n', p_watch.keys)) e(v_old, v_new)
$$;

CREATE FUNCTION pipeline.follow_alert_rules(p_rules jsonb) RETURNS TABLE(name text, problem text)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
    v_rule record;
    v_gone text[];
begin
    perform pg_advisory_xact_lock(1885697639, 32);
    for v_rule in
        select j.*, r.origin
        from jsonb_to_recordset(p_rules) as j (
            name text, metric text, series text, sources text[], labels jsonb, query text, over text, comparison text,
            threshold float8, clear_threshold float8, need int, keep_firing int, hold_max int, min_samples int,
            max_instances int, severity text, message text, runbook text, enabled bool
        )
        left join pipeline.alert_rule as r on r.name = j.name
    loop
        if v_rule.origin = 'user' then
            return query select v_rule.name, 'there is a rule of this name that did not come from a file';
            continue;
        end if;
        begin
            perform pipeline.alert_rule_set(
                v_rule.name, v_rule.metric, v_rule.series, v_rule.threshold, v_rule.comparison, v_rule.over::interval,
                v_rule.need, v_rule.keep_firing, v_rule.hold_max, v_rule.min_samples, v_rule.severity, v_rule.message,
                v_rule.enabled, v_rule.query, v_rule.labels, v_rule.sources, v_rule.clear_threshold, v_rule.runbook,
                v_rule.max_instances, 'file'
            );
        exception when others then
            return query select v_rule.name, sqlerrm;
        end;
    end loop;
    with gone as (
        delete from pipeline.alert_rule as r
        where r.origin = 'file' and not exists (select from jsonb_array_elements(p_rules) as j where j ->> 'name' = r.name)
        returning r.name
    )
    select array_agg(g.name) into v_gone from gone as g;
    delete from pipeline.alert_builtin as b where b.name = any(v_gone);
    if found then
        perform pipeline.seed_alert_rules();
    end if;
end
$$;

CREATE FUNCTION pipeline.follow_ddl() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    -- our own DDL on watched tables needs no look
    if current_setting('pipeline.own_ddl', true) is distinct from 'on' and exists (select from pipeline.watch) then
        perform pipeline.check_watches();
    end if;
exception when others then
    raise warning 'pgreflex could not follow this command at once and will look again: %', sqlerrm;
end
$$;

CREATE FUNCTION pipeline.follow_table(p_watch pipeline.watch) RETURNS SETOF text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_name constant text := pipeline.tag_of(p_watch.relation);
    v_tree oid[];
begin
    if v_name is null then
        perform pipeline.drop_watch(p_watch);
        return next 'dropped';
        return;
    end if;
    if v_name <> p_watch.tag then
        update pipeline.watch w set tag = v_name where w.id = p_watch.id;
        perform pipeline.write_event(null, 'w', null, 0, null, p_watch.tag);
        perform pipeline.write_event(p_watch.id, 'w', null, 0, null, v_name);
        return next format('renamed to %s', v_name);
    end if;
    select array_agg(r order by r) into v_tree from pipeline.relations_of(p_watch.relation) r;
    if v_tree is distinct from p_watch.tree then
        -- a partition came or went with rows that no statement on this table ever wrote
        update pipeline.watch w set tree = v_tree where w.id = p_watch.id;
        perform pipeline.write_event(p_watch.id, 'w', null, 0, null, v_name);
        return next 'partitions changed';
    end if;
end
$$;

CREATE FUNCTION pipeline.foreign_cast(p_relation oid) RETURNS regprocedure
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION pipeline.gauge_timing_inbox(p_full bigint DEFAULT ((128 * 1024) * 1024)) RETURNS bigint
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select case
        when g.last_value < 2 and pg_relation_size(format('pipeline.timing_inbox_%s', g.last_value)::regclass) > p_full
        then setval('pipeline.timing_gate', g.last_value + 2)
        else g.last_value
    end
    from pipeline.timing_gate as g
$$;

CREATE FUNCTION pipeline.hold_queue(p_name text, p_state text, p_last_pos bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    perform pg_advisory_xact_lock(1885697639, 11);
    insert into pipeline.queue (name, state, last_pos, changed_at) values (p_name, p_state, p_last_pos, pipeline.now())
    on conflict (name) do update set
        state = excluded.state, last_pos = excluded.last_pos, changed_at = excluded.changed_at;
    update pipeline.lane l set last_pos = p_last_pos
    where l.queue = p_name and l.last_pos is distinct from p_last_pos;
end
$$;

CREATE FUNCTION pipeline.insert_statement(p_table text, p_values text) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select format('insert into pipeline.%I (xid, id, at, watch, op, keys, rows, ms, name, payload) values'
                  ' (pg_current_xact_id(), nextval(''pipeline.outbox_id''), clock_timestamp(), %s);', p_table, p_values)
$$;

CREATE FUNCTION pipeline.invalidate(tags text[] DEFAULT NULL::text[], prefix text DEFAULT NULL::text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if tags is null and prefix is null then
        raise invalid_parameter_value using
            message = 'nothing is named that is to be invalidated',
            hint = 'Give tags => ''{orders:7}'' or prefix => ''orders:''; the empty prefix means everything.';
    end if;
    perform pipeline.emit('pipeline.invalidate', p.payload)
    from (
        select json_build_object('tags', json_agg(n.name order by n.place))::text as payload
        from (
            select t.name, t.place,
                (sum(octet_length(t.name) + 5) over (order by t.place)) / 4000 as part
            from unnest(invalidate.tags) with ordinality t (name, place)
            where t.name is not null
        ) n
        group by n.part
    ) p;
    if prefix is not null then
        perform pipeline.emit('pipeline.invalidate', json_build_object('prefix', prefix)::text);
    end if;
end
$$;

CREATE SEQUENCE pipeline.job_pos
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE pipeline.job (
    id bigint NOT NULL,
    pos bigint DEFAULT
CASE
    WHEN (pg_current_xact_id() IS NOT NULL) THEN nextval('pipeline.job_pos'::regclass)
    ELSE NULL::bigint
END,
    run_at timestamp with time zone DEFAULT statement_timestamp() NOT NULL,
    created_at timestamp with time zone DEFAULT statement_timestamp() NOT NULL,
    timeout interval,
    max_attempts integer DEFAULT 5 NOT NULL,
    attempt integer DEFAULT 1 NOT NULL,
    priority smallint DEFAULT 0 NOT NULL,
    queue text DEFAULT 'default'::text NOT NULL,
    task text NOT NULL,
    args jsonb DEFAULT '{}'::jsonb NOT NULL,
    error text,
    key text DEFAULT ''::text NOT NULL,
    needs integer DEFAULT 0 NOT NULL,
    lost smallint DEFAULT 0 NOT NULL,
    expires_at timestamp with time zone,
    workflow bigint
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='5000', autovacuum_vacuum_cost_delay='0', autovacuum_analyze_scale_factor='0.1', autovacuum_analyze_threshold='5000', toast.autovacuum_vacuum_scale_factor='0.02', toast.autovacuum_vacuum_cost_delay='0');

COMMENT ON TABLE pipeline.job IS 'Jobs that have not ended. A lower priority number runs first.';

COMMENT ON COLUMN pipeline.job.pos IS 'Place in its lane; null while something holds the job back.';

COMMENT ON COLUMN pipeline.job.run_at IS 'From when the job may run; the wait is measured from here.';

COMMENT ON COLUMN pipeline.job.attempt IS 'The number of the run that is under way or comes next; the first is 1.';

COMMENT ON COLUMN pipeline.job.error IS 'How the attempt before this one ended.';

COMMENT ON COLUMN pipeline.job.key IS 'Whose job it is: jobs of one key share its limits, and keys take turns.';

COMMENT ON COLUMN pipeline.job.needs IS 'How many jobs must end before this one may run.';

COMMENT ON COLUMN pipeline.job.lost IS 'How many workers vanished while they held the job; the third ends it.';

COMMENT ON COLUMN pipeline.job.expires_at IS 'A job that has not begun by then never will.';

CREATE FUNCTION pipeline.is_held(p_job pipeline.job) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select exists (
        select from pipeline.lease e
        where e.queue = p_job.queue and e.priority = p_job.priority and e.key = p_job.key and p_job.id = any(e.ids)
    )
$$;

CREATE TABLE pipeline.job_unique (
    key text NOT NULL,
    job bigint NOT NULL,
    kept_until timestamp with time zone
)
WITH (fillfactor='80');

COMMENT ON TABLE pipeline.job_unique IS 'Which job holds a unique key; stale rows are taken over by the next one, or pruned.';

CREATE FUNCTION pipeline.is_in(p_unique pipeline.job_unique, p_job pipeline.job, p_states text[]) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if p_job.id is null then
        return coalesce(pipeline.now() < p_unique.kept_until, false) and (p_states is null or exists (
            select from pipeline.job_archive a where a.id = p_unique.job and a.state = any(p_states)
        ));
    elsif p_job.needs > 0 then
        return 'blocked' = any(p_states) is not false;
    elsif p_job.pos is null then
        return 'delayed' = any(p_states) is not false;
    elsif 'ready' = any(p_states) = ('running' = any(p_states)) is not false then
        return 'ready' = any(p_states) is not false; -- then it does not matter in which of the two it is
    end if;
    return case when pipeline.is_held(p_job) then 'running' else 'ready' end = any(p_states);
end
$$;

CREATE FUNCTION pipeline.is_read_unlike(p_watch pipeline.watch) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select pipeline.reads_unlike(p_watch) and exists (
        select from pg_proc
        where pronamespace = 'pipeline'::regnamespace and proname = format('watch_%s_insert', p_watch.id)
          and not 'extra_float_digits=1' = any (proconfig))
$$;

CREATE FUNCTION pipeline.keep_timings(p_name text, p_ms double precision[], p_labels jsonb) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_gate bigint := (select last_value from pipeline.timing_gate);
begin
    if random() * 1000 < cardinality(p_ms) then
        v_gate := pipeline.gauge_timing_inbox();
    end if;
    case v_gate
        when 0 then
            insert into pipeline.timing_inbox_0 values (pg_current_xact_id(), pipeline.now(), p_name, p_labels, p_ms);
        when 1 then
            insert into pipeline.timing_inbox_1 values (pg_current_xact_id(), pipeline.now(), p_name, p_labels, p_ms);
        else
            perform nextval('pipeline.timing_dropped') from unnest(p_ms);
    end case;
end
$$;

CREATE FUNCTION pipeline.key_expression(p_relation oid, p_alias text, p_columns text[]) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    -- a join by comma is ambiguous for texts with commas; two keys that look alike are both invalidated
    select case cardinality(p_columns)
        when 0 then 'null::text'
        when 1 then pipeline.text_expression(p_relation, p_alias, p_columns[1])
        else (select 'concat_ws('','', ' || string_agg(pipeline.text_expression(p_relation, p_alias, c), ', ' order by n) || ')'
              from unnest(p_columns) with ordinality u(c, n))
    end
$$;

CREATE FUNCTION pipeline.latency(over interval DEFAULT '01:00:00'::interval) RETURNS TABLE(series text, count bigint, mean double precision, p50 double precision, p95 double precision, p99 double precision, max double precision, errors bigint)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select t.series, t.count, t.mean, t.p50, t.p95, t.p99, t.max, t.errors
    from pipeline.timing_top(latency.over, 'calls', null, 'series', null, null, null, 'latency') as t
    order by t.count desc, t.series
$$;

CREATE FUNCTION pipeline.latency_histogram(series text, over interval DEFAULT '01:00:00'::interval, bounds double precision[] DEFAULT NULL::double precision[], labels jsonb DEFAULT NULL::jsonb) RETURNS TABLE(above double precision, upto double precision, count bigint, share double precision)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
    v_since timestamptz := pipeline.timing_since(latency_histogram.over, 'latency_histogram');
    v_ids int[];
    v_level record := pipeline.timing_level(latency_histogram.over);
    v_edge timestamptz;
begin
    perform pipeline.timing_check_labels(latency_histogram.labels, 'latency_histogram');
    if cardinality(latency_histogram.bounds) = 0 or cardinality(latency_histogram.bounds) > 1000
        or exists (
            select from (
                select b.bound, lag(b.bound) over (order by b.place) as before
                from unnest(latency_histogram.bounds) with ordinality as b (bound, place)
            ) as b
            where b.bound is null or b.bound = 'NaN' or b.bound = 'Infinity' or b.bound < 0 or b.bound <= b.before
        )
    then
        raise exception 'latency_histogram: bounds must be 1 to 1,000 numbers of milliseconds, ascending, not %',
            left(latency_histogram.bounds::text, 100)
            using errcode = '22023', hint = 'Such as ''{10, 100, 1000}''.';
    end if;
    v_ids := pipeline.timing_find(latency_histogram.series, latency_histogram.labels);
    return query
    with part as materialized (
        select p.* from pipeline.timing_span(v_ids, v_since, 'infinity', v_level.level, v_level.edge, true) as p
    ),
    total as (
        select sum(p.count)::bigint as count, min(p.low) as low, max(p.high) as high from part as p having count(*) > 0
    ),
    -- from the greatest bound below every timing to the least one below none
    usual as (
        select array_agg(b.bound order by b.bound) as bounds
        from total as t
        cross join lateral (
            select s.bound, lead(s.bound) over o as next, lag(s.bound) over o as before
            from (
                select (d.digit * power(10::numeric, e.exponent))::float8 as bound
                from generate_series(-3, 13) as e (exponent)
                cross join unnest(array[1, 2, 5]) as d (digit)
            ) as s
            window o as (order by s.bound)
        ) as b
        where (b.next >= t.low or b.next is null) and (b.before < t.high or b.before is null)
    ),
    chosen as (
        select coalesce(latency_histogram.bounds, u.bounds) as bounds from usual as u
    ),
    centroid as (
        select c.weight, sum(c.weight) over ordered as upto, least(greatest(c.mean, t.low), t.high) as value,
            lead(c.weight) over ordered as next_weight,
            least(greatest(coalesce(lead(c.mean) over ordered, t.high), t.low), t.high) as next_value
        from part as p
        cross join total as t
        cross join lateral unnest(p.means, p.weights) as c (mean, weight)
        window ordered as (order by c.mean, c.weight rows unbounded preceding)
    ),
    -- the line of which pipeline.timing_summary reads the quantiles, piece by piece
    piece as (
        select c.upto - c.weight + (c.weight - 1) / 2 as rank, c.value,
            coalesce(c.upto + (c.next_weight - 1) / 2, t.count - 1) as next_rank, c.next_value
        from centroid as c
        cross join total as t
        union all
        select 0, t.low, (c.weight - 1) / 2, c.value
        from centroid as c
        cross join total as t
        where c.upto = c.weight
    ),
    counted as (
        select b.place, b.bound, case
            when b.bound < t.low then 0
            when b.bound >= t.high then t.count
            else floor(p.rank + (b.bound - p.value) / (p.next_value - p.value) * (p.next_rank - p.rank))::bigint + 1
        end as upto
        from chosen as h
        cross join total as t
        cross join lateral unnest(h.bounds) with ordinality as b (bound, place)
        left join piece as p on p.value <= b.bound and b.bound < p.next_value
        union all
        select cardinality(h.bounds) + 1, null, t.count
        from chosen as h
        cross join total as t
        where latency_histogram.bounds is not null
    )
    select r.above, r.bound, r.count, r.count::float8 / t.count
    from (
        select c.place, c.bound, coalesce(lag(c.bound) over o, 0) as above,
            c.upto - coalesce(lag(c.upto) over o, 0) as count
        from counted as c
        window o as (order by c.place)
    ) as r
    cross join total as t
    where latency_histogram.bounds is not null or r.bound >= t.low
    order by r.place;
end
$$;

CREATE FUNCTION pipeline.lineage() RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select concat_ws('-',
        (select system_identifier from pg_control_system()),
        left(pg_walfile_name(pg_current_wal_lsn()), 8),
        (select oid from pg_database where datname = current_database()),
        (select generation from pipeline.leader))
$$;

CREATE FUNCTION pipeline.lock_gently(p_relation oid, p_mode text, p_patience interval DEFAULT '00:00:20'::interval) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_deadline constant timestamptz := clock_timestamp() + p_patience;
    v_before constant text := current_setting('lock_timeout');
    v_one oid;
    v_holders text;
begin
    loop
        begin
            perform set_config('lock_timeout', '100ms', true);
            for v_one in select r from pipeline.relations_of(p_relation) r order by r loop
                execute format('lock table only %s in %s mode', v_one::regclass, p_mode);
            end loop;
            perform set_config('lock_timeout', v_before, true);
            return;
        exception when lock_not_available then
            if clock_timestamp() > v_deadline then
                select string_agg(distinct pid::text, ', ') into v_holders
                from pg_locks
                where relation in (select r from pipeline.relations_of(p_relation) r) and granted
                  and pid <> pg_backend_pid();
                raise lock_not_available using
                    message = format('%s is in use by other transactions (process %s)', p_relation::regclass,
                                     coalesce(v_holders, 'unknown')),
                    hint = 'Nothing was changed and nobody was held up. Try again when they have ended.';
            end if;
        end;
        perform pg_sleep(0.1 + random() * 0.3);
    end loop;
end
$$;

CREATE FUNCTION pipeline.lock_workflows(p_ids bigint[]) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    AS $$
begin
    perform from pipeline.workflow w
    where w.id in (select j.workflow from pipeline.workflow_job j where j.id = any(p_ids))
    order by w.id for no key update;
    return found;
end
$$;

CREATE FUNCTION pipeline.maintain_archive(keep interval DEFAULT '7 days'::interval, ahead integer DEFAULT 3, OUT made integer, OUT dropped integer) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '300ms'
    SET "TimeZone" TO 'UTC'
    AS $$
declare
    v_part record;
begin
    made := 0;
    dropped := 0;
    if not pg_try_advisory_xact_lock(1885697639, 10) then
        return;
    end if;
    for v_part in
        select d.made, d.dropped
        from (values ('job_archive', 'finished_at'), ('job_log', 'at')) t (name, by),
            pipeline.maintain_days(t.name, t.by, keep, ahead) d
    loop
        made := made + v_part.made;
        dropped := dropped + v_part.dropped;
    end loop;
    delete from pipeline.worker w where w.seen_at < pipeline.now() - interval '1 day';
end
$$;

CREATE FUNCTION pipeline.maintain_days(p_table text, p_column text, p_keep interval, p_ahead integer, OUT made integer, OUT dropped integer) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    v_today date := (pipeline.now())::date;
    v_oldest date := (pipeline.now() - p_keep)::date;
    v_day date;
    v_name text;
begin
    made := 0;
    dropped := 0;
    for v_day in select d::date from generate_series(v_today, v_today + p_ahead, interval '1 day') d loop
        v_name := p_table || '_' || to_char(v_day, 'YYYYMMDD');
        continue when to_regclass('pipeline.' || v_name) is not null;
        begin
            execute format('create table pipeline.%I (like pipeline.%I including all)', v_name, p_table);
            execute format('lock table pipeline.%I in access exclusive mode', p_table || '_default');
            execute format(
                'with moved as (delete from pipeline.%I where %I >= %L and %I < %L returning *)'
                ' insert into pipeline.%I select * from moved',
                p_table || '_default', p_column, v_day, p_column, v_day + 1, v_name);
            execute format(
                'alter table pipeline.%I attach partition pipeline.%I for values from (%L) to (%L)',
                p_table, v_name, v_day, v_day + 1);
            made := made + 1;
        exception when lock_not_available then
            return; -- whoever reads the table now will do so for longer than we want others to queue behind us
        end;
    end loop;
    for v_name in
        select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = format('pipeline.%I', p_table)::regclass and c.relname ~ ('^' || p_table || '_\d{8}$')
            and to_date(right(c.relname, 8), 'YYYYMMDD') < v_oldest
    loop
        begin
            execute format('drop table pipeline.%I', v_name);
            dropped := dropped + 1;
        exception when lock_not_available then
            return; -- whoever reads the table now will do so for longer than we want others to queue behind us
        end;
    end loop;
    execute format('delete from pipeline.%I where %I < %L', p_table || '_default', p_column, v_oldest);
end
$_$;

CREATE FUNCTION pipeline.make_runs(p_name text, p_times timestamp with time zone[]) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '2s'
    AS $$
declare
    v_at timestamptz;
    v_made int := 0;
begin
    for v_at in select distinct t from unnest(p_times) t order by t loop
        -- first the row that stands for the run: whoever else is at it waits here, and then makes none
        insert into pipeline.schedule_run (name, at, made_at) values (p_name, v_at, pipeline.now()) on conflict do nothing;
        if found then
            update pipeline.schedule_run r set job = pipeline.enqueue_run(p_name, v_at) where (r.name, r.at) = (p_name, v_at);
            v_made := v_made + 1;
        end if;
    end loop;
    return v_made;
end
$$;

CREATE FUNCTION pipeline.mend_triggers(p_watch pipeline.watch) RETURNS SETOF text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_one oid;
begin
    if pipeline.is_read_unlike(p_watch) then
        perform pipeline.create_watch_functions(p_watch);
        perform pipeline.write_event(p_watch.id, 'w', null, 0, null, p_watch.tag);
        return next 'a column has another type';
    end if;
    for v_one in select r from pipeline.relations_of(p_watch.relation) r loop
        if pipeline.create_watch_triggers(p_watch, v_one) > 0 then
            perform pipeline.write_event(p_watch.id, 'w', null, 0, null, p_watch.tag);
            return next format('triggers created on %s', v_one::regclass);
        end if;
    end loop;
    if pipeline.drop_spare_triggers(p_watch) > 0 then
        return next 'triggers removed';
    end if;
    -- what a disabled trigger does not report is made good by naming the whole table at each check
    if exists (select from pg_trigger t where t.tgenabled = 'D' and t.tgname ~ format('^pgreflex_%s_', p_watch.id)) then
        perform pipeline.write_event(p_watch.id, 'w', null, 0, null, p_watch.tag);
        return next 'triggers are disabled';
    end if;
end
$$;

CREATE FUNCTION pipeline.merge_args(p_old jsonb, p_new jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select p_old || p_new || coalesce((
        select jsonb_object_agg(n.key, (p_old -> n.key) || n.value)
        from jsonb_each(p_new) n
        where jsonb_typeof(n.value) = 'array' and jsonb_typeof(p_old -> n.key) = 'array'
    ), '{}')
$$;

CREATE FUNCTION pipeline.most_bytes() RETURNS integer
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$select 1048576$$;

CREATE FUNCTION pipeline.needs_check(p_watch pipeline.watch) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select pipeline.watch_problem(p_watch) is not null
        or p_watch.tree is distinct from (select array_agg(r order by r) from pipeline.relations_of(p_watch.relation) r)
        or exists (select from pipeline.spare_triggers(p_watch))
        or exists (select from pipeline.relations_of(p_watch.relation) r, pipeline.triggers_of(p_watch, r) t, pg_trigger g
                   where g.tgrelid = r and g.tgname = format('pgreflex_%s_%s', p_watch.id, t.suffix)
                     and g.tgenabled <> upper(left(t.mode, 1))::"char")
        or pipeline.is_read_unlike(p_watch)
$$;

CREATE FUNCTION pipeline.note_ended() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    insert into pipeline.job_ended (job, workflow, state, finished_at, result)
    values (new.id, new.workflow, new.state, new.finished_at, new.result);
    return null;
end
$$;

CREATE FUNCTION pipeline.own_changes() RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
declare
    v_xid constant xid8 := pg_current_xact_id_if_assigned();
    v_events json := '[]';
    v_count bigint := 0;
    v_lost boolean := false;
begin
    if v_xid is not null then
        select count(*), coalesce(json_agg(json_build_array(
                coalesce(e.name, w.tag, (select f.tag from pipeline.former_watch f where f.id = e.watch), ''),
                e.op::text, e.keys, e.payload) order by e.id), '[]')
        into v_count, v_events
        from (select * from pipeline.outbox o where o.xid = v_xid limit 1001) e
        left join pipeline.watch w on w.id = e.watch;
        -- whoever could have written nothing because the outbox was full is below flush_until, once the turn that
        -- emptied it has come to its end (see pipeline.finish_turn)
        v_lost := v_count > 1000 or coalesce(pg_sequence_last_value('pipeline.gate'), 0) & 2 <> 0 or exists (
            select from pipeline.leader
            where flush_until > v_xid or retired_xmax = '18446744073709551615');
    end if;
    return json_build_object(
        'began', extract(epoch from transaction_timestamp())::text,
        'xid', v_xid::text::bigint,
        'lost', v_lost,
        'deferred', v_xid is not null and exists (select from pg_trigger where tgdeferrable and not tgisinternal),
        'events', case when v_lost then '[]' else v_events end);
end
$$;

CREATE FUNCTION pipeline.pause_queue(name text) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select pipeline.hold_queue(name, 'paused', 0)
$$;

CREATE FUNCTION pipeline.pause_schedule(name text) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    update pipeline.schedule s set paused = true where s.name = pause_schedule.name;
    return found;
end
$$;

CREATE FUNCTION pipeline.percentile(series text, q double precision, over interval DEFAULT '01:00:00'::interval, labels jsonb DEFAULT NULL::jsonb) RETURNS double precision
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_since timestamptz := pipeline.timing_since(percentile.over, 'percentile');
    v_ids int[];
begin
    if percentile.q is null or not percentile.q between 0 and 1 then
        raise exception 'percentile: q must lie between 0 and 1, not %', coalesce(percentile.q::text, 'null')
            using errcode = '22023', hint = 'The 99th percentile is 0.99.';
    end if;
    perform pipeline.timing_check_labels(percentile.labels, 'percentile');
    v_ids := pipeline.timing_find(percentile.series, percentile.labels);
    return (
        select s.quantiles[1]
        from pipeline.timing_level(percentile.over) as l
        cross join lateral pipeline.timing_summary(
            v_ids, array_fill(0, array[cardinality(v_ids)]), v_since, 'infinity', l.level, l.edge, array[percentile.q]
        ) as s
    );
end
$$;

CREATE FUNCTION pipeline.plan_changes(over interval DEFAULT '1 day'::interval, most integer DEFAULT 20, fingerprint text DEFAULT NULL::text) RETURNS TABLE(at timestamp with time zone, changed text, query text, plan_before text, plan_after text, calls_before bigint, p50_before double precision, p95_before double precision, calls_after bigint, p50_after double precision, p95_after double precision)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    with change as (
        select p.first_at as at, pipeline.fingerprint_now(p.fingerprint) as fingerprint,
            before.summary as plan_before, p.summary as plan_after,
            greatest(before.first_at, p.first_at - interval '1 day') as since,
            least(next.first_at, p.first_at + interval '1 day', pipeline.now()) as upto
        from pipeline.plan as p
        cross join lateral (
            select b.summary, b.first_at
            from pipeline.plan as b
            where b.fingerprint = p.fingerprint and (b.first_at, b.id) < (p.first_at, p.id)
            order by b.first_at desc, b.id desc
            limit 1
        ) as before
        left join lateral (
            select n.first_at
            from pipeline.plan as n
            where n.fingerprint = p.fingerprint and (n.first_at, n.id) > (p.first_at, p.id)
            order by n.first_at, n.id
            limit 1
        ) as next on true
        where p.first_at > pipeline.timing_since(plan_changes.over, 'plan_changes')
          and (plan_changes.fingerprint is null or p.fingerprint = plan_changes.fingerprint
              or p.fingerprint in (
                  select q.fingerprint from pipeline.query as q where q.moved_to = plan_changes.fingerprint
              ))
        order by p.first_at desc, p.id desc
        limit plan_changes.most
    )
    select c.at, c.fingerprint, q.text, c.plan_before, c.plan_after,
        coalesce(b.count, 0), b.quantiles[1], b.quantiles[2], coalesce(a.count, 0), a.quantiles[1], a.quantiles[2]
    from change as c
    left join pipeline.query as q on q.fingerprint = c.fingerprint
    cross join lateral (
        select pipeline.timing_find('query', jsonb_build_object('fingerprint', c.fingerprint)) as ids
    ) as s
    -- the finest level that is still kept at that distance, so that little of one side counts for the other
    cross join lateral pipeline.timing_level(pipeline.now() - c.since) as l
    left join lateral pipeline.timing_summary(
        s.ids, array_fill(1, array[cardinality(s.ids)]), c.since, c.at, l.edge, l.edge, array[0.5, 0.95]::float8[]
    ) as b on true
    left join lateral pipeline.timing_summary(
        s.ids, array_fill(1, array[cardinality(s.ids)]), c.at, c.upto, l.edge, l.edge, array[0.5, 0.95]::float8[]
    ) as a on true
    order by c.at desc
$$;

CREATE FUNCTION pipeline.prune_lanes(p_idle interval DEFAULT '00:10:00'::interval) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_before constant timestamptz := pipeline.now() - p_idle;
    v_lane record;
    v_pruned bigint := 0;
begin
    perform pg_advisory_xact_lock(1885697639, 11);
    for v_lane in
        select l.queue, l.priority, l.key
        from pipeline.lane l
        -- here as well as below, or the first 5,000 that are in use would hide the others for ever
        cross join lateral (
            select * from pipeline.lane_state s
            where s.queue = l.queue and s.priority = l.priority and s.key = l.key
            order by s.n desc limit 1
        ) s
        where l.key <> '' and s.settled >= s.mark and s.swept_at < v_before
            and not exists (
                select from pipeline.job j where j.queue = l.queue and j.priority = l.priority and j.key = l.key
            )
            and not exists (
                select from pipeline.lease e where e.queue = l.queue and e.priority = l.priority and e.key = l.key
            )
        limit 5000
        for update of l skip locked
    loop
        -- settled: nothing can appear any more at a position that this lane has passed; and a lane made anew begins at 0
        delete from pipeline.lane_state s
        where s.queue = v_lane.queue and s.priority = v_lane.priority and s.key = v_lane.key
            and s.settled >= s.mark and s.swept_at < v_before
            and s.n = (
                select max(n.n) from pipeline.lane_state n
                where n.queue = s.queue and n.priority = s.priority and n.key = s.key
            )
            and not exists (
                select from pipeline.lease e
                where e.queue = v_lane.queue and e.priority = v_lane.priority and e.key = v_lane.key
            )
            and not exists (
                select from pipeline.job j
                where j.queue = v_lane.queue and j.priority = v_lane.priority and j.key = v_lane.key and j.pos is not null
            );
        if found then
            delete from pipeline.lane l
            where l.queue = v_lane.queue and l.priority = v_lane.priority and l.key = v_lane.key;
            v_pruned := v_pruned + 1;
        end if;
    end loop;
    return v_pruned;
end
$$;

CREATE FUNCTION pipeline.prune_workflows(p_keep interval DEFAULT '7 days'::interval, p_limit integer DEFAULT 10000) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_flow record;
    v_count int := 0;
    v_jobs int := 0;
begin
    for v_flow in
        select w.id, w.total from pipeline.workflow w
        where w.finished_at < pipeline.now() - p_keep
        order by w.finished_at limit 1000
        for update skip locked
    loop
        exit when v_jobs > 0 and v_jobs + v_flow.total > p_limit;
        delete from pipeline.job_need n using pipeline.workflow_job j where j.workflow = v_flow.id and n.needed = j.id;
        delete from pipeline.workflow_job j where j.workflow = v_flow.id;
        delete from pipeline.workflow w where w.id = v_flow.id;
        v_jobs := v_jobs + v_flow.total;
        v_count := v_count + 1;
    end loop;
    return v_count;
end
$$;

CREATE FUNCTION pipeline.query_plans(fingerprint text, most integer DEFAULT 20) RETURNS TABLE(first_at timestamp with time zone, last_at timestamp with time zone, times integer, kind text, shape text, summary text, plan json, settings jsonb, slowest double precision)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select p.first_at, p.last_at, p.times, p.kind, p.shape, p.summary, p.plan, p.settings, p.slowest_ms
    from pipeline.plan as p
    where p.fingerprint = query_plans.fingerprint or p.fingerprint in (
        select q.fingerprint from pipeline.query as q where q.moved_to = query_plans.fingerprint
    )
    order by p.first_at desc, p.id desc
    limit query_plans.most
$$;

CREATE FUNCTION pipeline.query_problem(p_query text) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
    AS $_$
declare
    v_cursor refcursor;
begin
    if p_query is null then
        return null;
    end if;
    open v_cursor for execute format(
        E'select pg_catalog.to_jsonb(q) from (\n%s\n) as q limit 1', regexp_replace(p_query, '[\s;]+$', '')
    );
    close v_cursor;
    return null;
exception when others then
    return sqlerrm;
end
$_$;

CREATE FUNCTION pipeline.query_texts(fingerprints text[]) RETURNS TABLE(fingerprint text, query text)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select q.fingerprint, q.text from pipeline.query as q where q.fingerprint = any(query_texts.fingerprints)
$$;

CREATE FUNCTION pipeline.raise_alert(name text, message text, severity text DEFAULT 'warning'::text, labels jsonb DEFAULT '{}'::jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if (
        raise_alert.severity in ('info', 'warning', 'critical') and raise_alert.name <> '' and length(raise_alert.name) <= 200
        and (raise_alert.labels is null or jsonb_typeof(raise_alert.labels) = 'object' and length(raise_alert.labels::text) <= 1000)
    ) is not true then
        perform pipeline.refuse_alert(raise_alert.name, raise_alert.labels, raise_alert.severity);
    end if;
    insert into pipeline.alert_inbox (at, raised, name, labels, message, severity)
    values (
        case when current_setting('pipeline.fake_now', true) <> '' then pipeline.now() else statement_timestamp() end,
        true, raise_alert.name, coalesce(raise_alert.labels, '{}'), left(coalesce(raise_alert.message, ''), 4000),
        raise_alert.severity
    );
    if abs(date_part('epoch', clock_timestamp()) * 1000 - coalesce(pg_sequence_last_value('pipeline.alert_bell'), 0)) > 100 then
        perform pipeline.wake_alerts(raise_alert.name);
    end if;
end
$$;

CREATE FUNCTION pipeline.rate_limit(key text, "limit" integer, "window" interval DEFAULT '00:00:01'::interval) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_name text := 'user:' || rate_limit.key;
    v_seconds double precision := extract(epoch from rate_limit."window")::double precision;
begin
    if coalesce(rate_limit."limit" < 1 or v_seconds <= 0 or rate_limit.key = '', true) then
        raise exception 'rate_limit needs a key, a limit of at least 1 and a window above 0'
            using errcode = 'invalid_parameter_value';
    end if;
    loop
        insert into pipeline.limiter (name) values (v_name) on conflict do nothing;
        perform from pipeline.limiter m where m.name = v_name for update;
        exit when found; -- else a cleanup has deleted the row between the two
    end loop;
    if pipeline.allowance(v_name, rate_limit."limit", v_seconds) < 1 then
        return false;
    end if;
    perform pipeline.charge(v_name, 1, v_seconds);
    return true;
end
$$;

CREATE FUNCTION pipeline.reads_unlike(p_watch pipeline.watch) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select exists (
        select from pg_attribute a join pg_type t on t.oid = a.atttypid
        where a.attrelid = p_watch.relation and a.attname = any (p_watch.keys || coalesce(p_watch.columns, '{}'))
          and t.typtype <> 'e'
          and a.atttypid <> all (array[
              'int2', 'int4', 'int8', 'numeric', 'text', 'varchar', 'bpchar', 'name', 'uuid', 'bool', 'json', 'jsonb',
              'inet', 'cidr', 'oid']::regtype[]))
$$;

CREATE FUNCTION pipeline.record_timing(name text, ms double precision, labels jsonb DEFAULT '{}'::jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if record_timing.ms between 0 and 1e12 and record_timing.name <> '' and length(record_timing.name) <= 200
        and (
            record_timing.labels is null or record_timing.labels = '{}'
            or jsonb_typeof(record_timing.labels) = 'object' and length(record_timing.labels::text) <= 2000
        )
        and not current_setting('transaction_read_only')::bool
    then
        perform pipeline.keep_timings(record_timing.name, array[record_timing.ms], record_timing.labels);
    else
        perform pipeline.reject_timing(
            'record_timing', record_timing.name, record_timing.labels, record_timing.ms, 1
        );
    end if;
end
$$;

CREATE FUNCTION pipeline.record_timings(name text, ms double precision[], labels jsonb DEFAULT '{}'::jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_good double precision[];
    v_bad double precision;
    v_many bigint;
begin
    if cardinality(record_timings.ms) = 0 then
        return;
    end if;
    if record_timings.ms is not null and record_timings.name <> '' and length(record_timings.name) <= 200
        and (
            record_timings.labels is null
            or jsonb_typeof(record_timings.labels) = 'object' and length(record_timings.labels::text) <= 2000
        )
        and not current_setting('transaction_read_only')::bool
    then
        select array_agg(v) filter (where v between 0 and 1e12),
            max(v) filter (where not v between 0 and 1e12), count(*) filter (where v between 0 and 1e12 is not true)
        into v_good, v_bad, v_many
        from unnest(record_timings.ms) as v;
        if v_good is not null then
            perform pipeline.keep_timings(record_timings.name, v_good, record_timings.labels);
        end if;
    else
        v_many := coalesce(cardinality(record_timings.ms), 1);
    end if;
    if v_many > 0 then
        perform pipeline.reject_timing('record_timings', record_timings.name, record_timings.labels, v_bad, v_many);
    end if;
end
$$;

CREATE FUNCTION pipeline.refuse_alert(p_name text, p_labels jsonb, p_severity text DEFAULT 'info'::text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if coalesce(p_severity, '') not in ('info', 'warning', 'critical') then
        raise exception 'raise_alert: there is no severity %', coalesce(p_severity, 'null')
            using errcode = '22023', hint = 'Severities are info, warning and critical.';
    end if;
    if coalesce(p_name, '') = '' or length(p_name) > 200 then
        raise exception 'an alert needs a name of 1 to 200 characters' using errcode = '22023';
    end if;
    if jsonb_typeof(p_labels) <> 'object' then
        raise exception 'alert %: labels must be a JSON object', p_name
            using errcode = '22023', hint = 'For example {"region": "eu"}.';
    end if;
    raise exception 'alert %: its labels are longer than 1000 characters', p_name
        using errcode = '22023', hint = 'Labels tell instances apart; put details into the message.';
end
$$;

CREATE FUNCTION pipeline.refuse_cycle(p_names text[], p_job integer[], p_need integer[]) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_left int[] := array_fill(0, array[cardinality(p_names)]);
    v_first int[] := array_fill(0, array[cardinality(p_names)]);
    v_to int[];
    v_from int[];
    v_free int[] := array_fill(0, array[cardinality(p_names)]);
    v_taken int := 0;
    v_found int := 0;
    v_one int;
    v_edge int;
    v_path int[] := '{}';
begin
    if not exists (select from unnest(p_job, p_need) e (job, need) where e.need >= e.job) then
        return; -- every job comes after what it needs
    end if;
    select array_agg(e.job order by e.need), array_agg(e.need order by e.need) into v_to, v_from
    from unnest(p_job, p_need) e (job, need);
    for v_edge in reverse cardinality(v_to)..1 loop
        v_left[v_to[v_edge]] := v_left[v_to[v_edge]] + 1;
        v_first[v_from[v_edge]] := v_edge;
    end loop;
    for v_one in 1..cardinality(p_names) loop
        if v_left[v_one] = 0 then
            v_found := v_found + 1;
            v_free[v_found] := v_one;
        end if;
    end loop;
    while v_taken < v_found loop
        v_taken := v_taken + 1;
        v_one := v_free[v_taken];
        v_edge := v_first[v_one];
        while v_edge > 0 and v_from[v_edge] = v_one loop
            v_left[v_to[v_edge]] := v_left[v_to[v_edge]] - 1;
            if v_left[v_to[v_edge]] = 0 then
                v_found := v_found + 1;
                v_free[v_found] := v_to[v_edge];
            end if;
            v_edge := v_edge + 1;
        end loop;
    end loop;
    if v_found = cardinality(p_names) then
        return;
    end if;

    v_first := array_fill(0, array[cardinality(p_names)]); -- from now on: of each job that is left, a need that is left
    for v_edge in 1..cardinality(p_job) loop
        if v_left[p_job[v_edge]] > 0 and v_left[p_need[v_edge]] > 0 then
            v_first[p_job[v_edge]] := p_need[v_edge];
            v_one := p_job[v_edge];
        end if;
    end loop;
    while v_first[v_one] > 0 loop
        v_path := v_path || v_one;
        v_edge := v_first[v_one];
        v_first[v_one] := -cardinality(v_path); -- seen, as this step of the path
        v_one := v_edge;
    end loop;
    v_path := v_path[-v_first[v_one]:] || v_one;
    raise exception 'the workflow has a cycle: %', (
            select string_agg(p_names[p.one], ' needs ' order by p.i)
            from unnest(v_path[:20]) with ordinality p (one, i)
        ) || case when cardinality(v_path) > 20 then format(' needs ... (%s jobs)', cardinality(v_path) - 1) else '' end
        using errcode = 'invalid_parameter_value', hint = 'Leave one of these needs out.';
end
$$;

CREATE FUNCTION pipeline.refuse_job(p_task text, p_args jsonb, p_queue text, p_priority integer, p_max_attempts integer, p_timeout interval, p_key text) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if coalesce(p_task, '') = '' or length(p_task) > 500 then
        raise exception 'a job needs the name of its task' using errcode = 'invalid_parameter_value',
            hint = 'A name has 1 to 500 characters.';
    elsif p_queue = '' or length(p_queue) > 200 then
        raise exception 'a job needs a queue' using errcode = 'invalid_parameter_value',
            hint = 'Leave queue out to use the task''s own; a name has 1 to 200 characters.';
    elsif jsonb_typeof(p_args) is distinct from 'object' then
        raise exception 'args of task % must be a JSON object', p_task using errcode = 'invalid_parameter_value',
            hint = 'Give the task''s named arguments, as in ''{"order_id": 42}''.';
    elsif pg_column_size(p_args) > 4096 and octet_length(p_args::text) > pipeline.most_bytes() then
        raise exception 'args of task % are % bytes of JSON; a job takes %', p_task, octet_length(p_args::text), pipeline.most_bytes()
            using errcode = 'invalid_parameter_value', hint = 'Put the data in a table and pass its id.';
    elsif p_priority not between -32768 and 32767 then
        raise exception 'priority % is out of range', p_priority using errcode = 'invalid_parameter_value',
            hint = 'Use -32768 to 32767; the lower number runs first.';
    elsif p_max_attempts < 1 then
        raise exception 'max_attempts must be at least 1' using errcode = 'invalid_parameter_value';
    elsif p_timeout <= '0' then
        raise exception 'timeout must be above 0' using errcode = 'invalid_parameter_value';
    elsif length(p_key) > 200 then
        raise exception 'the key of a job may have 200 characters, not %', length(p_key)
            using errcode = 'invalid_parameter_value';
    end if;
end
$$;

CREATE FUNCTION pipeline.refuse_plan(p_fingerprint text, p_outcome text, p_reason text) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    update pipeline.plan_turn set outcome = p_outcome, reason = left(p_reason, 500) where fingerprint = p_fingerprint
$$;

CREATE FUNCTION pipeline.refuse_unique(p_task text, p_unique text, p_for interval, p_states text[], p_on_clash text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    c_live constant text[] := '{blocked,delayed,ready,running}';
    c_ended constant text[] := '{finished,failed,cancelled,expired}';
begin
    if p_on_clash not in ('skip', 'replace', 'reschedule', 'merge') or length(p_unique) > 500 then
        raise exception 'a unique job of task % has an option that is not known', p_task
            using errcode = 'invalid_parameter_value',
            hint = 'on_clash is skip, replace, reschedule or merge; a key has 500 characters.';
    elsif cardinality(p_states) = 0 or not p_states <@ (c_live || c_ended) then
        raise exception 'unique_states of task % are not states of a job', p_task using errcode = 'invalid_parameter_value',
            hint = 'Name some of ' || array_to_string(c_live || c_ended, ', ') || '; leave it out for all of them.';
    elsif p_states && c_ended and p_for is null then
        raise exception 'unique_states of task % name one that has ended, and there is no unique_for', p_task
            using errcode = 'invalid_parameter_value', hint = 'Say for how long after it was added such a job counts.';
    elsif not p_states && c_ended and p_for is not null then
        raise exception 'unique_for of task % means nothing: no state that has ended is named', p_task
            using errcode = 'invalid_parameter_value', hint = 'Name some of them too, or leave one of the two out.';
    end if;
end
$$;

CREATE FUNCTION pipeline.reject_timing(p_asker text, p_name text, p_labels jsonb, p_ms double precision, p_many bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if not current_setting('transaction_read_only')::bool then
        perform nextval('pipeline.timing_rejected') from generate_series(1, p_many);
    end if;
    raise warning '% ignored % of %: %', p_asker, case p_many when 1 then 'a timing' else p_many || ' timings' end,
        coalesce(left(p_name, 200), 'null'),
        case
            when current_setting('transaction_read_only')::bool then 'the transaction is read-only'
            when coalesce(p_name, '') = '' then 'it has no name'
            when length(p_name) > 200 then 'its name is longer than 200 characters'
            when jsonb_typeof(p_labels) <> 'object' then 'its labels are not a JSON object'
            when length(p_labels::text) > 2000 then 'its labels are longer than 2000 characters'
            when p_ms is null then 'it has no value'
            else format('%s is no duration in milliseconds', p_ms)
        end;
end
$$;

CREATE FUNCTION pipeline.rejoin_workflow(p_ids bigint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    AS $$
begin
    if not pipeline.lock_workflows(p_ids) then
        return;
    end if;
    delete from pipeline.job_ended d where d.job = any(p_ids);
    with again as (
        update pipeline.workflow_job w set state = null, finished_at = null, result = null
        from pipeline.workflow_job was
        where w.id = any(p_ids) and was.id = w.id
        returning w.workflow, (was.state is not null)::int as ended, coalesce(was.state <> 'finished', false)::int as failed
    )
    update pipeline.workflow f
    set pending = f.pending + a.ended, failed = f.failed - a.failed, finished_at = null,
        state = case f.state when 'cancelling' then 'cancelling' else 'running' end
    from (select a.workflow, sum(a.ended) as ended, sum(a.failed) as failed from again a group by a.workflow) a
    where f.id = a.workflow;
    update pipeline.job j
    set needs = n.count, pos = null
    from (
        select e.job, count(*)::int from pipeline.job_need e where e.job = any(p_ids) and not e.met group by e.job
    ) n
    where j.id = n.job;
end
$$;

CREATE FUNCTION pipeline.relation_named(p_name text) RETURNS oid
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'public', 'pg_temp'
    AS $$
begin
    return to_regclass(p_name);
exception when others then
    return to_regclass(quote_ident(p_name));
end
$$;

CREATE FUNCTION pipeline.relations_of(p_relation oid) RETURNS SETOF oid
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    with recursive tree as (
        select p_relation as relation
        union
        select i.inhrelid from pg_inherits i join tree t on i.inhparent = t.relation
    )
    select t.relation from tree t join pg_class c on c.oid = t.relation where c.relkind in ('r', 'p')
$$;

CREATE FUNCTION pipeline.release_dependents(p_needed bigint[], p_job bigint[], p_what text[], OUT released integer, OUT queues text[]) RETURNS record
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    with edge as materialized (
        select e.needed, e.job from unnest(p_needed, p_job, p_what) e (needed, job, what) where e.what = 'release'
    ), met as (
        update pipeline.job_need n set met = true from edge e where n.needed = e.needed and n.job = e.job
    ), waiting as materialized (
        select j.id, e.count
        from (select e.job, count(*)::int from edge e group by e.job) e
        join pipeline.job j on j.id = e.job
        where j.needs > 0
        order by j.id for update of j
    ), lowered as (
        update pipeline.job j
        set needs = greatest(j.needs - w.count, 0),
            pos = case when j.needs <= w.count and j.run_at <= t.now then nextval('pipeline.job_pos') end,
            run_at = case when j.needs <= w.count then greatest(j.run_at, t.now) else j.run_at end,
            expires_at = case when j.needs <= w.count
                then coalesce(j.expires_at, greatest(j.run_at, t.now) + (
                    select k.expires from pipeline.task k where k.name = j.task
                ))
                else j.expires_at end
        from waiting w, (select pipeline.now() as now) t
        where j.id = w.id
        returning j.queue, j.priority, j.key, j.needs, j.pos
    ), asked as (
        insert into pipeline.lane_request (queue, priority, key)
        select distinct l.queue, l.priority, l.key from lowered l
        where l.needs = 0 and not exists (
            select from pipeline.lane k where k.queue = l.queue and k.priority = l.priority and k.key = l.key
        )
    ), told as materialized (
        select distinct l.queue from lowered l where l.pos is not null
    )
    select
        (select count(*)::int from lowered l where l.needs = 0),
        (select array_agg(t.queue) from told t, lateral (select pipeline.ring_workers(t.queue)) w)
$$;

CREATE FUNCTION pipeline.remember_queries(p_fingerprints text[], p_version integer, p_kinds text[], p_texts text[]) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION pipeline.render_key(p_template text, p_args jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select string_agg(case when i % 2 = 1 then part else coalesce(p_args ->> part, '') end, '' order by i)
    from regexp_split_to_table(p_template, '[{}]') with ordinality as p (part, i)
$$;

CREATE FUNCTION pipeline.request_lane(p_queue text, p_priority integer, p_key text DEFAULT ''::text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if not exists (
        select from pipeline.lane l where l.queue = p_queue and l.priority = p_priority::smallint and l.key = p_key
    ) then
        insert into pipeline.lane_request (queue, priority, key) values (p_queue, p_priority, p_key);
    end if;
end
$$;

CREATE FUNCTION pipeline.resolve_alert(name text, labels jsonb DEFAULT '{}'::jsonb) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if (
        resolve_alert.name <> '' and length(resolve_alert.name) <= 200
        and (resolve_alert.labels is null or jsonb_typeof(resolve_alert.labels) = 'object' and length(resolve_alert.labels::text) <= 1000)
    ) is not true then
        perform pipeline.refuse_alert(resolve_alert.name, resolve_alert.labels);
    end if;
    insert into pipeline.alert_inbox (at, raised, name, labels)
    values (
        case when current_setting('pipeline.fake_now', true) <> '' then pipeline.now() else statement_timestamp() end,
        false, resolve_alert.name, coalesce(resolve_alert.labels, '{}')
    );
    if abs(date_part('epoch', clock_timestamp()) * 1000 - coalesce(pg_sequence_last_value('pipeline.alert_bell'), 0)) > 100 then
        perform pipeline.wake_alerts(resolve_alert.name);
    end if;
end
$$;

CREATE FUNCTION pipeline.resolve_workflows(p_above bigint, p_notes integer, p_edges integer) RETURNS TABLE(notes integer, released integer, cancelled integer, queues text[], last bigint)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
    v_flows bigint[];
    v_notes bigint[];
    v_done_to bigint;
    v_needed bigint[];
    v_job bigint[];
    v_what text[];
begin
    if not pg_try_advisory_xact_lock(1885697639, 14) then
        return;
    end if;
    notes := 0; released := 0; cancelled := 0; last := p_above;
    if not exists (select from pipeline.job_ended d where d.n > p_above)
        and not exists (select from pipeline.workflow w where w.state = 'cancelling')
    then
        return next;
        return;
    end if;
    -- the lock in one statement, and all that depends on it in later ones, under newer snapshots
    v_flows := array(
        select w.id from pipeline.workflow w
        where w.id = any(array(
            select d.workflow from pipeline.job_ended d where d.n > p_above order by d.n limit p_notes
        ))
        order by w.id for no key update skip locked
    );
    -- of a workflow that is gone nobody waits for anything
    delete from pipeline.job_ended d
    where d.n = any(array(select e.n from pipeline.job_ended e where e.n > p_above order by e.n limit p_notes))
        and not exists (select from pipeline.workflow w where w.id = d.workflow);

    select array_agg(t.n order by t.n), max(t.n) into v_notes, last
    from (
        select d.n, sum(coalesce(w.dependents, 0)) over (order by d.n) as so_far, row_number() over (order by d.n) as place
        from (
            select * from pipeline.job_ended d
            where d.n > p_above and d.workflow = any(v_flows) order by d.n limit p_notes
        ) d
        left join pipeline.workflow_job w on w.id = d.job
    ) t
    where t.so_far <= p_edges or t.place = 1;
    notes := coalesce(cardinality(v_notes), 0);
    last := coalesce(last, p_above);

    perform pipeline.count_ended(v_notes);
    select
        array_agg(e.needed order by e.n, e.job), array_agg(e.job order by e.n, e.job),
        array_agg(
            case
                when f.state = 'cancelling' or e.met then 'nothing'
                when e.state = 'finished' or e.policy = 'ignore' then 'release'
                when e.policy = 'cancel' then 'cancel'
                else 'nothing'
            end order by e.n, e.job
        ),
        case when notes = 1 and count(*) >= p_edges then max(e.job) end
    into v_needed, v_job, v_what, v_done_to
    from (
        select d.n, d.workflow, d.state, e.*
        from unnest(v_notes) x (n)
        join pipeline.job_ended d on d.n = x.n
        cross join lateral (
            select e.needed, e.job, e.policy, e.met from pipeline.job_need e
            where e.needed = d.job and e.job > d.done_to
            order by e.job limit p_edges
        ) e
    ) e
    join pipeline.workflow f on f.id = e.workflow;

    cancelled := pipeline.cancel_dependents(v_needed, v_job, v_what) + pipeline.cancel_workflows(p_edges);
    select r.released, r.queues into released, queues from pipeline.release_dependents(v_needed, v_job, v_what) r;

    update pipeline.job_ended d set done_to = v_done_to where v_done_to is not null and d.n = v_notes[1];
    delete from pipeline.job_ended d where v_done_to is null and d.n = any(v_notes);
    update pipeline.workflow f
    set finished_at = pipeline.now(), state = case
        when f.state = 'cancelling' then 'cancelled' when f.failed > 0 then 'failed' else 'finished'
    end
    where f.id = any(v_flows) and f.pending <= 0 and f.finished_at is null;
    return next;
end
$$;

CREATE FUNCTION pipeline.resume_queue(name text) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select pipeline.hold_queue(name, 'running', null);
    select pipeline.wake_workers(name)
$$;

CREATE FUNCTION pipeline.resume_schedule(name text) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    update pipeline.schedule s
    set paused = false, next_at = null, problem = null,
        until = case when s.paused then greatest(s.until, pipeline.now()) else s.until end
    where s.name = resume_schedule.name;
    return found;
end
$$;

CREATE FUNCTION pipeline.retry_jobs(ids bigint[]) RETURNS bigint[]
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_now constant timestamptz := pipeline.now();
    v_these bigint[];
    v_back bigint[];
    v_leases bigint[];
    v_lane record;
begin
    perform pg_current_xact_id(); -- before a position is drawn
    perform pipeline.lock_workflows(ids); -- before the jobs, as a resolver does
    -- Before the jobs, too, as a worker does that writes. Those that come to list one meanwhile are few, and locked below. A
    -- subquery without `exists` is hashed; `&&` and `= any` would compare each id with each.
    v_these := array(
        select a.id from pipeline.job_archive a where a.id = any(ids) and a.state <> 'finished'
        union all
        select j.id from pipeline.job j where j.id = any(ids) and j.pos is null and j.needs = 0
    );
    perform from pipeline.lease e
    where (select bool_or(i in (select t from unnest(v_these) t)) from unnest(e.ids) i)
    order by e.id for no key update;
    perform from pipeline.job_archive a where a.id = any(ids) and a.state <> 'finished' order by a.id for update;
    perform from pipeline.job j where j.id = any(ids) and j.pos is null and j.needs = 0 order by j.id for update;
    with ended as (
        delete from pipeline.job_archive a
        where a.id = any(ids) and a.state <> 'finished'
        returning a.*
    ), again as (
        insert into pipeline.job (
            id, task, args, queue, priority, key, workflow, run_at, created_at, max_attempts, timeout, error
        )
        overriding system value
        select
            e.id, e.task, e.args, e.queue, e.priority, e.key, e.workflow, v_now, e.created_at, e.max_attempts, e.timeout,
            e.error
        from ended e
        returning id
    ), sooner as (
        update pipeline.job j set run_at = v_now, pos = nextval('pipeline.job_pos')
        where j.id = any(ids) and j.pos is null and j.needs = 0
        returning id
    )
    select array(select id from again union all select id from sooner) into v_back;
    -- Whoever held one of them before holds it no more: a lease lists also what has ended, until all of it has.
    v_leases := array(
        select e.id from pipeline.lease e
        where (select bool_or(i in (select b from unnest(v_back) b)) from unnest(e.ids) i)
        order by e.id for no key update
    );
    update pipeline.lease e
    set ids = array(select i from unnest(e.ids) i where i not in (select b from unnest(v_back) b))
    where e.id = any(v_leases);
    perform pipeline.rejoin_workflow(v_back);
    for v_lane in
        select distinct j.queue, j.priority, j.key from pipeline.job j where j.id = any(v_back)
    loop
        perform pipeline.request_lane(v_lane.queue, v_lane.priority, v_lane.key), pipeline.wake_workers(v_lane.queue);
    end loop;
    return v_back;
end
$$;

CREATE FUNCTION pipeline.retry_workflow(id bigint) RETURNS integer
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select cardinality(pipeline.retry_jobs(array(
        select w.id from pipeline.workflow_job w
        where w.workflow = retry_workflow.id and w.state <> 'finished' order by w.id
    )))
$$;

CREATE FUNCTION pipeline.ring(p_gate bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if p_gate & 4 = 0 and not pg_try_advisory_xact_lock_shared(1885697639, 3) then
        perform pg_notify('pipeline_bell', '');
    end if;
    if p_gate & 2 = 0 then
        perform pipeline.close_if_full(p_gate);
    end if;
end
$$;

CREATE FUNCTION pipeline.ring_workers(p_queue text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if not pg_try_advisory_xact_lock_shared(1885697640, hashtext(p_queue)) then
        perform pipeline.wake_workers(p_queue);
    end if;
end
$$;

CREATE FUNCTION pipeline.rotate(p_term bigint, p_seq bigint, p_position pg_snapshot, p_turn_bytes bigint, p_turn_after interval) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_leader pipeline.leader;
    v_gate bigint;
    v_bytes bigint;
    v_resting_seq bigint;
begin
    perform pipeline.assert_leader(p_term);
    select * into v_leader from pipeline.leader where term = p_term;
    select last_value into v_gate from pipeline.gate;
    v_bytes := case when v_gate & 1 = 0
        then pg_relation_size('pipeline.outbox_0') + pg_relation_size('pipeline.ring_0')
        else pg_relation_size('pipeline.outbox_1') + pg_relation_size('pipeline.ring_1') end;
    if v_gate & 2 = 0 and v_bytes < p_turn_bytes
       and (v_bytes = 0 or v_leader.turned_at > clock_timestamp() - p_turn_after)
    then
        return false;
    end if;
    -- also as long as a turn has not come to its end: then it is the greatest number
    if pg_snapshot_xmin(p_position) < v_leader.retired_xmax then
        return false;
    end if;
    v_resting_seq := (select max(seq) from pipeline.ring_0);
    if v_gate & 1 = 0 then
        v_resting_seq := (select max(seq) from pipeline.ring_1);
    end if;
    -- a consumer that nobody has run for ten minutes must not keep the tables for ever
    if v_gate & 2 = 0
       and exists (select from pipeline.consumer
                   where lineage = v_leader.lineage and seq < v_resting_seq
                     and saved_at > clock_timestamp() - interval '10 minutes') then
        return false;
    end if;
    -- the last word: with the tables locked, nothing in them may be unread; whoever reads them is not waited for
    if v_gate & 1 = 0 then
        lock table pipeline.outbox_1, pipeline.ring_1 in access exclusive mode nowait;
        if exists (select from pipeline.outbox_1 where not pg_visible_in_snapshot(xid, p_position)) then
            return false;
        end if;
        truncate pipeline.outbox_1, pipeline.ring_1;
    else
        lock table pipeline.outbox_0, pipeline.ring_0 in access exclusive mode nowait;
        if exists (select from pipeline.outbox_0 where not pg_visible_in_snapshot(xid, p_position)) then
            return false;
        end if;
        truncate pipeline.outbox_0, pipeline.ring_0;
    end if;
    -- unknown until pipeline.finish_turn has set it; setval is not undone by a rollback, so it has a transaction of its own
    update pipeline.leader
    set retired_xmax = '18446744073709551615', seq = p_seq, position = p_position::text
    where term = p_term;
    return true;
exception when lock_not_available then
    return false;
end
$$;

CREATE FUNCTION pipeline.row_expression(p_alias text, p_columns text[]) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    -- the text of a row calls the output functions of its columns
    select coalesce('row(' || string_agg(format('%s.%I', p_alias, c), ', ' order by n) || ')::text', '''''')
    from unnest(p_columns) with ordinality u(c, n)
$$;

CREATE TABLE pipeline.alert_rule (
    id bigint NOT NULL,
    name text NOT NULL,
    metric text NOT NULL,
    series text,
    over interval DEFAULT '00:01:00'::interval NOT NULL,
    comparison text DEFAULT '>'::text NOT NULL,
    threshold double precision,
    need integer DEFAULT 3 NOT NULL,
    keep_firing integer DEFAULT 2 NOT NULL,
    hold_max integer DEFAULT 3 NOT NULL,
    min_samples integer DEFAULT 1 NOT NULL,
    severity text DEFAULT 'warning'::text NOT NULL,
    message text DEFAULT '{rule}: {instance} is {value}, the threshold is {threshold}'::text NOT NULL,
    enabled boolean DEFAULT true NOT NULL,
    revision text NOT NULL,
    origin text DEFAULT 'user'::text NOT NULL,
    sources text[],
    labels jsonb DEFAULT '{}'::jsonb NOT NULL,
    query text,
    clear_threshold double precision,
    max_instances integer DEFAULT 500 NOT NULL,
    runbook text,
    CONSTRAINT alert_rule_clear CHECK (((clear_threshold > '-Infinity'::double precision) AND (clear_threshold < 'Infinity'::double precision))),
    CONSTRAINT alert_rule_comparison CHECK ((comparison = ANY (ARRAY['>'::text, '>='::text, '<'::text, '<='::text]))),
    CONSTRAINT alert_rule_counts CHECK ((((need >= 1) AND (need <= 1000)) AND ((keep_firing >= 1) AND (keep_firing <= 1000)) AND ((hold_max >= 1) AND (hold_max <= 1000)))),
    CONSTRAINT alert_rule_labels CHECK ((jsonb_typeof(labels) = 'object'::text)),
    CONSTRAINT alert_rule_max_instances CHECK (((max_instances >= 1) AND (max_instances <= 100000))),
    CONSTRAINT alert_rule_min_samples CHECK ((min_samples >= 1)),
    CONSTRAINT alert_rule_name CHECK (((name <> ''::text) AND (length(name) <= 200))),
    CONSTRAINT alert_rule_origin CHECK ((origin = ANY (ARRAY['user'::text, 'file'::text, 'builtin'::text]))),
    CONSTRAINT alert_rule_over CHECK (((over >= '00:00:05'::interval) AND (over <= '1 day'::interval))),
    CONSTRAINT alert_rule_query CHECK (((metric = 'sql'::text) = (query IS NOT NULL))),
    CONSTRAINT alert_rule_series CHECK ((series <> ''::text)),
    CONSTRAINT alert_rule_severity CHECK ((severity = ANY (ARRAY['info'::text, 'warning'::text, 'critical'::text]))),
    CONSTRAINT alert_rule_threshold CHECK (((threshold > '-Infinity'::double precision) AND (threshold < 'Infinity'::double precision)))
);

COMMENT ON TABLE pipeline.alert_rule IS 'Rules. Insert, update and delete as you like: a change counts from the next window. Queries run with the rights of the daemon.';

COMMENT ON COLUMN pipeline.alert_rule.metric IS 'One of pipeline.alert_metrics(), or sql for a query.';

COMMENT ON COLUMN pipeline.alert_rule.series IS 'A series; with % in it a LIKE pattern, and each series that matches is an instance of its own.';

COMMENT ON COLUMN pipeline.alert_rule.over IS 'The length of a window: 5 s to 1 day; below a minute a multiple of 5 s, else whole minutes.';

COMMENT ON COLUMN pipeline.alert_rule.threshold IS 'Null, for a query: each row that it returns is bad.';

COMMENT ON COLUMN pipeline.alert_rule.need IS 'How many bad windows in succession make it fire.';

COMMENT ON COLUMN pipeline.alert_rule.keep_firing IS 'How many good windows in succession resolve it.';

COMMENT ON COLUMN pipeline.alert_rule.hold_max IS 'How many windows without data a streak survives; a firing alert then says that it has no data.';

COMMENT ON COLUMN pipeline.alert_rule.origin IS 'file: follows the configuration of the daemon. builtin: came with pgreflex, and is yours to change.';

COMMENT ON COLUMN pipeline.alert_rule.sources IS 'Only series of these sources, such as query or http; null for all.';

COMMENT ON COLUMN pipeline.alert_rule.labels IS 'Only instances whose labels contain these.';

COMMENT ON COLUMN pipeline.alert_rule.query IS 'Each row is an instance that is bad; its columns are the labels, but for value and detail.';

COMMENT ON COLUMN pipeline.alert_rule.clear_threshold IS 'While it fires, a value counts as good only beyond this one.';

COMMENT ON COLUMN pipeline.alert_rule.max_instances IS 'How many instances may be pending or firing at once; the rule says when there are more.';

COMMENT ON COLUMN pipeline.alert_rule.runbook IS 'A link that tells what to do.';

CREATE FUNCTION pipeline.rule_definition(p_rule pipeline.alert_rule) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select jsonb_build_array(
        p_rule.metric, p_rule.series, p_rule.sources, p_rule.over, p_rule.comparison, p_rule.threshold, p_rule.clear_threshold,
        p_rule.need, p_rule.keep_firing, p_rule.min_samples, p_rule.severity, p_rule.message
    )::text
$$;

CREATE FUNCTION pipeline.run_schedule(name text) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_now timestamptz := pipeline.now();
    v_job bigint;
begin
    if exists (select from pipeline.schedule s where s.name = run_schedule.name) then
        v_job := pipeline.enqueue_run(run_schedule.name, v_now);
        insert into pipeline.schedule_run (name, at, job, made_at) values (run_schedule.name, v_now, v_job, v_now)
        on conflict do nothing;
    end if;
    return v_job;
end
$$;

CREATE FUNCTION pipeline.running(p_queue text) RETURNS bigint
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select coalesce(sum(cardinality(e.ids)), 0) from pipeline.lease e where e.queue = p_queue
$$;

CREATE FUNCTION pipeline.save_plan(p_fingerprint text, p_shape text, p_summary text, p_kind text, p_plan json, p_settings jsonb, p_ms double precision) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_now constant timestamptz := pipeline.now();
    v_last pipeline.plan;
begin
    update pipeline.plan_turn set outcome = 'planned', reason = '' where fingerprint = p_fingerprint;
    select p.* into v_last
    from pipeline.plan as p
    where p.fingerprint = p_fingerprint
    order by p.first_at desc, p.id desc
    limit 1
    for update;
    if v_last.shape = p_shape then
        update pipeline.plan as p
        set last_at = greatest(p.last_at, v_now), times = p.times + 1, slowest_ms = greatest(p.slowest_ms, p_ms),
            kind = case when p_kind = 'analyzed' then p_kind else p.kind end,
            plan = case when p_kind = 'analyzed' then p_plan else p.plan end
        where p.id = v_last.id;
        return null;
    end if;
    insert into pipeline.plan (fingerprint, shape, summary, kind, plan, settings, first_at, last_at, slowest_ms)
    values (p_fingerprint, p_shape, p_summary, p_kind, p_plan, p_settings, v_now, v_now, p_ms);
    return v_last.summary;
end
$$;

CREATE FUNCTION pipeline.scan_statement(p_watch pipeline.watch, p_op text) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    v_old constant text := pipeline.key_expression(p_watch.relation, 'o', p_watch.keys);
    v_new constant text := pipeline.key_expression(p_watch.relation, 'n', p_watch.keys);
    v_count constant text := 'select count(*)::int as n from '
        || case p_op when 'delete' then 'old_rows' else 'new_rows' end;
    v_checks constant text := $c$
                        if v_rows = 0 then
                            return null;
                        end if;
                        if cardinality(v_keys) > 256 then
                            v_keys := null;
                        end if;$c$;
    v_keys text;
begin
    if p_op = 'update' and p_watch.columns is not null then
        -- rows whose key or declared columns differ, in either direction; as text, since not every type compares
        v_keys := format(
            '(select %1$s as k, %2$s as c from new_rows n except all select %3$s, %4$s from old_rows o)'
            ' union all (select %3$s, %4$s from old_rows o except all select %1$s, %2$s from new_rows n)',
            v_new, pipeline.row_expression('n', p_watch.columns),
            v_old, pipeline.row_expression('o', p_watch.columns));
        return format(
            'with d as materialized (%s) select'
            ' case when r.n > 10000 then r.n else (select ((count(*) + 1) / 2)::int from d) end,'
            ' case when r.n <= 10000 then (select array_agg(k) from (select distinct k from d'
            ' where k is not null limit 257) u) end into v_rows, v_keys from (%s) r;',
            v_keys, v_count) || v_checks;
    end if;
    if cardinality(p_watch.keys) = 0 then
        return format('select r.n into v_rows from (%s) r;', v_count) || v_checks;
    end if;
    v_keys := case p_op
        when 'insert' then format('select %s as k from new_rows n', v_new)
        when 'delete' then format('select %s as k from old_rows o', v_old)
        else format('select %s as k from old_rows o union all select %s from new_rows n', v_old, v_new)
    end;
    return format(
        'select r.n, case when r.n <= 10000 then (select array_agg(k) from (select distinct k from (%s) d'
        ' where k is not null limit 257) u) end into v_rows, v_keys from (%s) r;',
        v_keys, v_count) || v_checks;
end
$_$;

CREATE FUNCTION pipeline.schedule(name text, cron text, task text, args jsonb DEFAULT '{}'::jsonb, timezone text DEFAULT 'UTC'::text, missed text DEFAULT 'one'::text, queue text DEFAULT NULL::text, priority integer DEFAULT NULL::integer, max_missed integer DEFAULT 100) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
    v_now timestamptz := pipeline.now();
begin
    if coalesce(schedule.name, '') = '' or length(schedule.name) > 200 then
        raise exception 'a schedule needs a name of 1 to 200 characters' using errcode = 'invalid_parameter_value';
    elsif coalesce(schedule.task, '') = '' then
        raise exception 'schedule % needs the name of its task', schedule.name using errcode = 'invalid_parameter_value';
    elsif jsonb_typeof(schedule.args) is distinct from 'object' then
        raise exception 'args of schedule % must be a JSON object', schedule.name
            using errcode = 'invalid_parameter_value', hint = 'Give the task''s named arguments, as in ''{"shop": 42}''.';
    elsif pg_column_size(schedule.args) > 4096 and octet_length(schedule.args::text) > pipeline.most_bytes() then
        raise exception 'args of schedule % are % bytes of JSON; a job takes %',
            schedule.name, octet_length(schedule.args::text), pipeline.most_bytes()
            using errcode = 'invalid_parameter_value', hint = 'Put the data in a table and pass its id.';
    elsif coalesce(schedule.missed not in ('skip', 'one', 'all'), true) then
        raise exception 'missed must be skip, one or all, not %', coalesce(schedule.missed, 'null')
            using errcode = 'invalid_parameter_value';
    elsif coalesce(schedule.max_missed not between 1 and 10000, true) then
        raise exception 'max_missed must be 1 to 10000, not %', coalesce(schedule.max_missed::text, 'null')
            using errcode = 'invalid_parameter_value';
    elsif schedule.queue = '' then
        raise exception 'the queue of schedule % has no name', schedule.name
            using errcode = 'invalid_parameter_value', hint = 'Leave queue out to use the queue of the task.';
    elsif schedule.priority not between -32768 and 32767 then
        raise exception 'priority % is out of range', schedule.priority using errcode = 'invalid_parameter_value',
            hint = 'Use -32768 to 32767; the lower number runs first.';
    end if;
    perform pipeline.check_cron(schedule.cron, schedule.timezone);

    insert into pipeline.schedule as s (
        name, task, args, queue, priority, cron, timezone, missed, max_missed, source, until, created_at, seen_at
    )
    values (
        schedule.name, schedule.task, schedule.args, schedule.queue, schedule.priority, schedule.cron, schedule.timezone,
        schedule.missed, schedule.max_missed, 'sql', v_now, v_now, v_now
    )
    on conflict (name) do update set
        task = excluded.task, args = excluded.args, queue = excluded.queue, priority = excluded.priority,
        cron = excluded.cron, timezone = excluded.timezone, missed = excluded.missed, max_missed = excluded.max_missed,
        -- other times count from now; what is due by the old ones stays due if they are the same
        until = case when (s.cron, s.timezone) = (excluded.cron, excluded.timezone) then s.until
                     else greatest(s.until, excluded.until) end,
        next_at = null, problem = null
    where s.source = 'sql';
    if not found then
        raise exception 'schedule % is defined in code', schedule.name using errcode = 'object_not_in_prerequisite_state',
            hint = 'Change it there, pause it, or choose another name.';
    end if;
end
$$;

CREATE FUNCTION pipeline.seed_alert_rules() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION pipeline.series_name(p_name text, p_labels jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select p_name || coalesce(
        (
            select '{' || string_agg(format('%s="%s"', l.key, l.value), ',' order by l.key collate "C") || '}'
            from jsonb_each_text(p_labels) as l
        ),
        ''
    )
$$;

CREATE FUNCTION pipeline.set_key_rule(name text, concurrency integer DEFAULT NULL::integer, rate integer DEFAULT NULL::integer, per interval DEFAULT '00:00:01'::interval) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if coalesce(set_key_rule.name, '') = '' or set_key_rule.name ~ ':' or set_key_rule.concurrency < 1
        or set_key_rule.rate < 1 or coalesce(set_key_rule.per <= '0', true)
    then
        raise exception 'the keys of % cannot have these limits', coalesce(set_key_rule.name, 'null')
            using errcode = 'invalid_parameter_value', hint = 'Limits are at least 1, per is above 0, and no name holds a colon.';
    end if;
    if set_key_rule.concurrency is null and set_key_rule.rate is null then
        delete from pipeline.key_rule r where r.name = set_key_rule.name;
        return;
    end if;
    insert into pipeline.key_rule (name, concurrency, rate, rate_seconds)
    values (
        set_key_rule.name, set_key_rule.concurrency, set_key_rule.rate,
        case when set_key_rule.rate is not null then extract(epoch from set_key_rule.per) end
    )
    on conflict on constraint key_rule_pkey do update set
        concurrency = excluded.concurrency, rate = excluded.rate, rate_seconds = excluded.rate_seconds;
end
$$;

CREATE FUNCTION pipeline.set_queue(name text, concurrency integer DEFAULT NULL::integer, rate integer DEFAULT NULL::integer, per interval DEFAULT '00:00:01'::interval, slots integer DEFAULT NULL::integer, weight integer DEFAULT NULL::integer) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if coalesce(set_queue.name, '') = '' or set_queue.concurrency < 0 or set_queue.rate < 0 or set_queue.slots < 0
        or coalesce(set_queue.per <= '0', true) or set_queue.weight not between 1 and 1000
    then
        raise exception 'queue % cannot have these settings', coalesce(set_queue.name, 'null')
            using errcode = 'invalid_parameter_value',
            hint = 'Limits are whole numbers, 0 for none; per is above 0, weight from 1 to 1000.';
    end if;
    perform pg_advisory_xact_lock(1885697639, 11);
    insert into pipeline.queue as q (name, concurrency, rate, rate_seconds, slots, weight, changed_at)
    values (
        set_queue.name, nullif(set_queue.concurrency, 0), nullif(set_queue.rate, 0),
        case when set_queue.rate > 0 then extract(epoch from set_queue.per) end,
        nullif(set_queue.slots, 0), coalesce(set_queue.weight, 1), pipeline.now()
    )
    on conflict on constraint queue_pkey do update set
        concurrency = case when set_queue.concurrency is null then q.concurrency else excluded.concurrency end,
        rate = case when set_queue.rate is null then q.rate else excluded.rate end,
        rate_seconds = case when set_queue.rate is null then q.rate_seconds else excluded.rate_seconds end,
        slots = case when set_queue.slots is null then q.slots else excluded.slots end,
        weight = coalesce(set_queue.weight, q.weight),
        changed_at = excluded.changed_at;
    update pipeline.lane l
    set limited = q.concurrency is not null or q.rate is not null
    from pipeline.queue q
    where q.name = set_queue.name and l.queue = q.name
        and l.limited <> (q.concurrency is not null or q.rate is not null);
end
$$;

CREATE FUNCTION pipeline.silence(matchers jsonb, reason text, duration interval DEFAULT NULL::interval, until timestamp with time zone DEFAULT NULL::timestamp with time zone, by text DEFAULT SESSION_USER) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_now timestamptz := pipeline.now();
    v_end timestamptz := coalesce(silence.until, v_now + silence.duration);
    v_id bigint;
begin
    if v_end is null or (silence.until is not null and silence.duration is not null) then
        raise exception 'silence: it needs an end'
            using errcode = '22023', hint = 'Give either duration => ''2 hours'' or until => a time.';
    end if;
    if v_end <= v_now or not isfinite(v_end) then
        raise exception 'silence: its end, %, does not lie ahead', v_end using errcode = '22023';
    end if;
    if coalesce(btrim(silence.reason), '') = '' then
        raise exception 'silence: it needs a reason' using errcode = '22023', hint = 'Say why, for whoever wonders later.';
    end if;
    insert into pipeline.alert_silence (matchers, starts_at, ends_at, reason, made_by, made_at)
    values (silence.matchers, v_now, v_end, left(silence.reason, 4000), left(coalesce(silence.by, session_user), 200), v_now)
    returning id into v_id;
    insert into pipeline.alert_note (at, rule, action, made_by, note)
    values (
        v_now, coalesce(silence.matchers ->> 'rule', '*'), 'silence', left(coalesce(silence.by, session_user), 200),
        format('silence %s until %s: %s', v_id, v_end, left(silence.reason, 4000))
    );
    return v_id;
end
$$;

CREATE FUNCTION pipeline.silence_bell(p_silent boolean) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    perform pg_advisory_xact_lock(1885697639, 4);
    perform setval('pipeline.gate', case when p_silent then last_value | 4 else last_value & ~4::bigint end)
    from pipeline.gate;
end
$$;

CREATE TABLE pipeline.slo (
    name text NOT NULL,
    series text NOT NULL,
    labels jsonb DEFAULT '{}'::jsonb NOT NULL,
    objective double precision NOT NULL,
    latency_ms double precision,
    min_events integer DEFAULT 100 NOT NULL,
    period interval DEFAULT '30 days'::interval NOT NULL,
    enabled boolean DEFAULT true NOT NULL,
    CONSTRAINT slo_labels CHECK ((jsonb_typeof(labels) = 'object'::text)),
    CONSTRAINT slo_latency CHECK (((latency_ms > (0)::double precision) AND (latency_ms < 'Infinity'::double precision))),
    CONSTRAINT slo_min_events CHECK ((min_events >= 1)),
    CONSTRAINT slo_name CHECK (((name <> ''::text) AND (length(name) <= 200))),
    CONSTRAINT slo_objective CHECK (((objective > (0)::double precision) AND (objective < (1)::double precision))),
    CONSTRAINT slo_period CHECK (((period >= '1 day'::interval) AND (period <= '90 days'::interval))),
    CONSTRAINT slo_series CHECK ((series <> ''::text))
);

COMMENT ON TABLE pipeline.slo IS 'Objectives; the built-in rules on slo.burn.* judge them.';

COMMENT ON COLUMN pipeline.slo.series IS 'A series, or a name, of which all label sets are taken together; with % in it a LIKE pattern.';

COMMENT ON COLUMN pipeline.slo.objective IS 'The share of events that has to be good: 0.999.';

COMMENT ON COLUMN pipeline.slo.latency_ms IS 'An event that took longer is bad, as one that failed is; null: only one that failed.';

COMMENT ON COLUMN pipeline.slo.min_events IS 'With fewer events in the longer of two windows no burn rate is told.';

CREATE FUNCTION pipeline.slo_burn(p_slo pipeline.slo, p_over interval, OUT burn double precision, OUT events double precision) RETURNS record
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select e.bad / nullif(e.events, 0) / (1 - p_slo.objective), e.events
    from pipeline.slo_events(p_slo, p_over) as e
$$;

CREATE FUNCTION pipeline.slo_events(p_slo pipeline.slo, p_over interval, OUT events double precision, OUT bad double precision) RETURNS record
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select coalesce(sum(w.count), 0), coalesce(sum(least(w.count, w.errors + case
        when p_slo.latency_ms is null or w.high <= p_slo.latency_ms then 0
        when w.low > p_slo.latency_ms then w.count
        else (
            select coalesce(sum(c.weight), 0) from unnest(w.means, w.weights) as c (mean, weight)
            where c.mean > p_slo.latency_ms
        )
    end)), 0)
    from pipeline.timing_level(p_over) as l
    cross join lateral pipeline.timing_span(
        (
            select array_agg(k.id)
            from pipeline.timing_series as k
            where (k.series = p_slo.series or k.name = p_slo.series or (strpos(p_slo.series, '%') > 0 and k.series like p_slo.series))
              and k.labels @> p_slo.labels
        ),
        pipeline.now() - p_over, 'infinity', l.level, l.edge, p_slo.latency_ms is not null
    ) as w
$$;

CREATE FUNCTION pipeline.slo_set(name text, series text, objective double precision, latency_ms double precision DEFAULT NULL::double precision, labels jsonb DEFAULT '{}'::jsonb, min_events integer DEFAULT 100, period interval DEFAULT '30 days'::interval, enabled boolean DEFAULT true) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
begin
    if not coalesce(slo_set.objective > 0 and slo_set.objective < 1, false) then
        raise exception 'objective %: the share of good events lies between 0 and 1, not at %',
            slo_set.name, coalesce(slo_set.objective::text, 'null')
            using errcode = '22023', hint = 'Three nines are 0.999.';
    elsif coalesce(slo_set.name, '') = '' or coalesce(slo_set.series, '') = '' then
        raise exception 'an objective needs a name and a series' using errcode = '22023';
    elsif not coalesce(slo_set.period between interval '1 day' and interval '90 days', false) then
        raise exception 'objective %: its period lies between 1 and 90 days', slo_set.name using errcode = '22023';
    elsif slo_set.latency_ms <= 0 or slo_set.latency_ms in ('NaN', 'Infinity') then
        raise exception 'objective %: latency_ms must be above 0', slo_set.name using errcode = '22023';
    end if;
    insert into pipeline.slo as s (name, series, objective, latency_ms, labels, min_events, period, enabled)
    values ($1, $2, $3, $4, $5, $6, $7, $8)
    on conflict on constraint slo_pkey do update set
        series = excluded.series, objective = excluded.objective, latency_ms = excluded.latency_ms,
        labels = excluded.labels, min_events = excluded.min_events, period = excluded.period, enabled = excluded.enabled;
end
$_$;

CREATE FUNCTION pipeline.slo_status() RETURNS TABLE(name text, series text, objective double precision, period interval, events double precision, bad double precision, good double precision, budget_left double precision, burn_1h double precision, burn_6h double precision, burn_1d double precision, burn_3d double precision)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select s.name, s.series, s.objective, s.period, e.events, e.bad, 1 - e.bad / nullif(e.events, 0),
        1 - e.bad / nullif(e.events, 0) / (1 - s.objective), b1.burn, b2.burn, b3.burn, b4.burn
    from pipeline.slo as s
    cross join lateral pipeline.slo_events(s, s.period) as e
    cross join lateral pipeline.slo_burn(s, interval '1 hour') as b1
    cross join lateral pipeline.slo_burn(s, interval '6 hours') as b2
    cross join lateral pipeline.slo_burn(s, interval '1 day') as b3
    cross join lateral pipeline.slo_burn(s, interval '3 days') as b4
    where s.enabled
    order by s.name
$$;

CREATE FUNCTION pipeline.slot_now(p_newest bigint, p_seconds double precision) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_now timestamptz := clock_timestamp();
begin
    if current_setting('pipeline.fake_now', true) <> '' then
        v_now := coalesce(pipeline.fake_now(), v_now);
    end if;
    return greatest(p_newest, floor(extract(epoch from v_now)::double precision / p_seconds)::bigint);
end
$$;

CREATE FUNCTION pipeline.slot_of(p_newest bigint, p_place integer) RETURNS bigint
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select p_newest - ((p_newest - p_place) % 65 + 65) % 65
$$;

CREATE FUNCTION pipeline.slow_queries(over interval DEFAULT '01:00:00'::interval, by text DEFAULT 'total'::text, most integer DEFAULT 20, labels jsonb DEFAULT NULL::jsonb) RETURNS TABLE(fingerprint text, query text, calls bigint, total double precision, mean double precision, p50 double precision, p95 double precision, p99 double precision, max double precision, errors bigint, rows bigint, share double precision)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select f.fingerprint, q.text, t.count, t.total, t.mean, t.p50, t.p95, t.p99, t.max, t.errors, t.rows, t.share
    from pipeline.timing_top(
        slow_queries.over, slow_queries.by, slow_queries.most, 'fingerprint', 'query', 'query', slow_queries.labels,
        'slow_queries'
    ) with ordinality as t (
        series, source, name, labels, count, total, mean, p50, p95, p99, max, errors, slow, rows, share, first_at, place
    )
    cross join lateral (
        select coalesce(pipeline.fingerprint_now(t.labels ->> 'fingerprint'), 'other') as fingerprint
    ) as f
    left join pipeline.query as q on q.fingerprint = f.fingerprint
    order by t.place
$$;

CREATE FUNCTION pipeline.spare_triggers(p_watch pipeline.watch) RETURNS TABLE(relation oid, name name)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select g.tgrelid, g.tgname from pg_trigger g
    where g.tgname ~ format('^pgreflex_%s_', p_watch.id) and not g.tgisinternal
      and not exists (
          select from pipeline.relations_of(p_watch.relation) r, pipeline.triggers_of(p_watch, r) t
          where r = g.tgrelid and g.tgname = format('pgreflex_%s_%s', p_watch.id, t.suffix))
$$;

CREATE FUNCTION pipeline.start_alert_rule() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    insert into pipeline.alert_progress as p (rule_id, judged_until) values (new.id, pipeline.now())
    on conflict (rule_id) do update set
        judged_until = greatest(p.judged_until, excluded.judged_until), problem = null, counters = '{}', counted_at = null;
    return null;
end
$$;

CREATE FUNCTION pipeline.start_workflow(name text, jobs jsonb, on_failure text DEFAULT 'cancel'::text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_now constant timestamptz := pipeline.now();
    v_names text[];
    v_needs int[];
    v_edge_job int[];
    v_edge_need int[];
    v_edge_policy text[];
    v_ids bigint[];
    v_flow bigint;
    v_queue text;
begin
    perform pipeline.check_workflow(name, jobs, on_failure);
    select array_agg(coalesce(j.one ->> 'name', j.one ->> 'task') order by j.i) into v_names
    from jsonb_array_elements(jobs) with ordinality j (one, i);
    select
        coalesce(array_agg(e.job order by e.job, e.need), '{}'), coalesce(array_agg(e.need order by e.job, e.need), '{}'),
        coalesce(array_agg(e.policy order by e.job, e.need), '{}')
    into v_edge_job, v_edge_need, v_edge_policy
    from pipeline.workflow_edges(jobs, v_names, on_failure) e;
    perform pipeline.refuse_cycle(v_names, v_edge_job, v_edge_need);

    perform pipeline.refuse_job(k.task, '{}', null, null, null, null, k.key)
    from (
        select t.name as task, pipeline.render_key(t.key, coalesce(j.one -> 'args', '{}')) as key
        from jsonb_array_elements(jobs) j (one)
        join pipeline.task t on t.name = j.one ->> 'task' and t.key is not null
        where j.one ->> 'key' is null
    ) k
    where length(k.key) > 200;
    perform pg_current_xact_id(); -- before a position is drawn
    insert into pipeline.workflow (name, on_failure, total, pending, created_at)
    values (start_workflow.name, start_workflow.on_failure, cardinality(v_names), cardinality(v_names), v_now)
    returning workflow.id into v_flow;
    select array_agg(coalesce(n.count, 0) order by i) into v_needs
    from generate_series(1, cardinality(v_names)) i
    left join (select e.job, count(*)::int from unnest(v_edge_job) e (job) group by e.job) n on n.job = i;

    with given as materialized (
        select
            j.i, j.one ->> 'task' as task, coalesce(j.one -> 'args', '{}') as args, v_needs[j.i] as needs,
            coalesce(j.one ->> 'queue', t.queue, 'default') as queue,
            coalesce((j.one ->> 'priority')::int, t.priority, 0) as priority,
            coalesce((j.one ->> 'max_attempts')::int, t.max_attempts, 5) as max_attempts,
            coalesce(make_interval(secs => (j.one ->> 'timeout')::float8), t.timeout) as timeout,
            coalesce(j.one ->> 'key', pipeline.render_key(t.key, coalesce(j.one -> 'args', '{}')), '') as key,
            greatest((j.one ->> 'run_at')::timestamptz, v_now) as run_at,
            -- where the task says how long a job may wait, that begins when the job may run
            coalesce(
                (j.one ->> 'expires_at')::timestamptz,
                case when v_needs[j.i] = 0 then greatest((j.one ->> 'run_at')::timestamptz, v_now) + t.expires end
            ) as expires_at
        from jsonb_array_elements(jobs) with ordinality j (one, i)
        left join pipeline.task t on t.name = j.one ->> 'task'
    ), made as (
        insert into pipeline.job (
            task, args, queue, priority, pos, run_at, created_at, max_attempts, timeout, key, expires_at, needs, workflow
        )
        select
            g.task, g.args, g.queue, g.priority,
            case when g.needs = 0 and g.run_at <= v_now then nextval('pipeline.job_pos') end,
            g.run_at, v_now, g.max_attempts, g.timeout, g.key, g.expires_at, g.needs, v_flow
        from given g order by g.i
        returning id
    ), asked as (
        insert into pipeline.lane_request (queue, priority, key)
        select l.queue, l.priority, l.key from (select distinct g.queue, g.priority::smallint, g.key from given g) l
        where not exists (
            select from pipeline.lane k where k.queue = l.queue and k.priority = l.priority and k.key = l.key
        )
    )
    select array_agg(m.id order by m.id) into v_ids from made m;

    insert into pipeline.workflow_job (id, workflow, name, task, dependents)
    select v_ids[j.i], v_flow, v_names[j.i], j.one ->> 'task', coalesce(d.count, 0)
    from jsonb_array_elements(jobs) with ordinality j (one, i)
    left join (select e.need, count(*)::int from unnest(v_edge_need) e (need) group by e.need) d on d.need = j.i
    order by j.i;
    insert into pipeline.job_need (needed, job, policy)
    select v_ids[e.need], v_ids[e.job], e.policy
    from unnest(v_edge_job, v_edge_need, v_edge_policy) e (job, need, policy)
    order by 1, 2;
    for v_queue in
        select distinct coalesce(j.one ->> 'queue', t.queue, 'default')
        from jsonb_array_elements(jobs) with ordinality j (one, i)
        left join pipeline.task t on t.name = j.one ->> 'task'
        where v_needs[j.i] = 0
    loop
        perform pipeline.ring_workers(v_queue);
    end loop;
    return v_flow;
end
$$;

CREATE FUNCTION pipeline.statement_counters() RETURNS TABLE(userid oid, queryid bigint, toplevel boolean, since double precision, max_since double precision, max_ms double precision, counters double precision[])
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    v_schema text;
    v_names text[];
begin
    select n.nspname, p.proargnames into v_schema, v_names
    from pg_extension as e
    join pg_namespace as n on n.oid = e.extnamespace
    join pg_proc as p on p.pronamespace = n.oid and p.proname = 'pg_stat_statements'
    -- the extension's own: others may have one of this name in the same schema
    join pg_depend as d on d.classid = 'pg_proc'::regclass and d.objid = p.oid
        and d.refclassid = 'pg_extension'::regclass and d.refobjid = e.oid and d.deptype = 'e'
    where e.extname = 'pg_stat_statements';
    return query execute format(
        $sql$
        select s.userid, s.queryid, s.toplevel, %2$s, %3$s, s.max_exec_time, array[
            s.calls, s.total_exec_time, s.rows,
            s.shared_blks_hit, s.shared_blks_read, s.shared_blks_dirtied, s.shared_blks_written,
            s.temp_blks_read, s.temp_blks_written, %4$s, %5$s,
            s.wal_bytes, s.plans, s.total_plan_time]::float8[]
        from %1$I.pg_stat_statements(false) as s
        where s.dbid = (select oid from pg_database where datname = current_database())
        $sql$,
        v_schema,
        case when 'stats_since' = any (v_names) then 'extract(epoch from s.stats_since)::float8'
            else 'null::float8' end,
        case when 'minmax_stats_since' = any (v_names) then 'extract(epoch from s.minmax_stats_since)::float8'
            else 'null::float8' end,
        case when 'shared_blk_read_time' = any (v_names) then 's.shared_blk_read_time + s.local_blk_read_time'
            else 's.blk_read_time' end,
        case when 'shared_blk_write_time' = any (v_names) then 's.shared_blk_write_time + s.local_blk_write_time'
            else 's.blk_write_time' end);
end
$_$;

CREATE FUNCTION pipeline.statement_source() RETURNS TABLE(loaded boolean, version text, offered text, track text, query_ids text, reads_all boolean, role_name text)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select exists (select from pg_settings as s where s.name = 'pg_stat_statements.max'),
        (select e.extversion from pg_extension as e where e.extname = 'pg_stat_statements'),
        (select a.default_version from pg_available_extensions as a where a.name = 'pg_stat_statements'),
        current_setting('pg_stat_statements.track', true),
        current_setting('compute_query_id', true),
        pg_has_role(current_user, 'pg_read_all_stats', 'usage'),
        current_user::text
$$;

CREATE FUNCTION pipeline.statement_store() RETURNS TABLE(name text, reset_at double precision, read_at double precision, deallocs bigint)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    v_schema constant text := (
        select n.nspname from pg_extension as e join pg_namespace as n on n.oid = e.extnamespace
        where e.extname = 'pg_stat_statements'
    );
begin
    return query execute format(
        $sql$
        select concat_ws('-',
                (select system_identifier from pg_control_system()),
                left(pg_walfile_name(pg_current_wal_lsn()), 8),
                (select oid from pg_database where datname = current_database()),
                case when pg_has_role(current_user, 'pg_read_all_stats', 'usage') then 'all'
                    else (select oid from pg_roles where rolname = current_user)::text end),
            extract(epoch from i.stats_reset)::float8, extract(epoch from clock_timestamp())::float8, i.dealloc
        from %I.pg_stat_statements_info as i
        $sql$, v_schema);
end
$_$;

CREATE FUNCTION pipeline.statement_texts(p_queryids bigint[]) RETURNS TABLE(userid oid, queryid bigint, toplevel boolean, query text)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    v_schema constant text := (
        select n.nspname from pg_extension as e join pg_namespace as n on n.oid = e.extnamespace
        where e.extname = 'pg_stat_statements'
    );
begin
    return query execute format(
        $sql$
        select s.userid, s.queryid, s.toplevel, left(s.query, 65536)
        from %I.pg_stat_statements(true) as s
        where s.queryid = any ($1) and s.dbid = (select oid from pg_database where datname = current_database())
        $sql$, v_schema) using p_queryids;
end
$_$;

CREATE FUNCTION pipeline.statements(over interval DEFAULT '01:00:00'::interval, most integer DEFAULT 100) RETURNS TABLE(fingerprint text, queryids bigint[], text text, calls bigint, total_ms double precision, mean_ms double precision, max_ms double precision, rows bigint, share double precision, shared_hit bigint, shared_read bigint, shared_dirtied bigint, shared_written bigint, temp_read bigint, temp_written bigint, read_ms double precision, write_ms double precision, wal_bytes bigint, plans bigint, plan_ms double precision, seconds double precision, lost boolean)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
    v_level constant int := case
        when statements.over <= interval '3 hours' then 60
        when statements.over <= interval '1 day' then 300
        when statements.over <= interval '7 days' then 3600
        else 86400
    end;
    v_from constant timestamptz := date_bin(
        make_interval(secs => v_level), pipeline.now() - statements.over, timestamptz 'epoch');
    v_database constant oid := (select d.oid from pg_database as d where d.datname = current_database());
begin
    return query
    with round as materialized (
        select r.seconds, r.start, r.covered, r.deallocs + r.vanished + r.rebased + r.gaps > 0 as lost
        from pipeline.statement_round as r
        where r.start >= v_from
          and (r.seconds = v_level or (r.seconds < v_level and not r.rolled))
          -- what one look made up for after a long pause belongs to no short span
          and r.since >= v_from - make_interval(secs => v_level + 60)
    ),
    span as (
        select sum(r.covered) as seconds, bool_or(r.lost) as lost from round as r
    ),
    entry as (
        select w.queryid, w.userid, w.toplevel, sum(w.calls) as calls, sum(w.total_ms) as total_ms,
            sum(w.rows) as rows, sum(w.shared_hit) as shared_hit, sum(w.shared_read) as shared_read,
            sum(w.shared_dirtied) as shared_dirtied, sum(w.shared_written) as shared_written,
            sum(w.temp_read) as temp_read, sum(w.temp_written) as temp_written, sum(w.read_ms) as read_ms,
            sum(w.write_ms) as write_ms, sum(w.wal_bytes) as wal_bytes, sum(w.plans) as plans,
            sum(w.plan_ms) as plan_ms, max(w.low_max) as low_max, max(w.high_max) as high_max
        from round as r
        join pipeline.statement_window as w on w.seconds = r.seconds and w.start = r.start
        group by w.queryid, w.userid, w.toplevel
    ),
    named as (
        select e.*, pipeline.fingerprint_now(i.fingerprint) as fingerprint
        from entry as e
        left join pipeline.query_id as i on i.dbid = v_database and i.userid = e.userid and i.queryid = e.queryid
            and i.toplevel = e.toplevel
    )
    select n.fingerprint, array_agg(distinct n.queryid) filter (where n.queryid <> 0), q.text,
        sum(n.calls)::bigint, sum(n.total_ms), sum(n.total_ms) / nullif(sum(n.calls)::float8, 0),
        case when max(n.low_max) = max(n.high_max) and sum(n.calls) > 0 then max(n.high_max) end,
        sum(n.rows)::bigint, sum(n.total_ms) / nullif(sum(sum(n.total_ms)) over (), 0),
        sum(n.shared_hit)::bigint, sum(n.shared_read)::bigint, sum(n.shared_dirtied)::bigint,
        sum(n.shared_written)::bigint, sum(n.temp_read)::bigint, sum(n.temp_written)::bigint, sum(n.read_ms),
        sum(n.write_ms), sum(n.wal_bytes)::bigint, sum(n.plans)::bigint, sum(n.plan_ms), s.seconds, s.lost
    from named as n
    cross join span as s
    left join pipeline.query as q on q.fingerprint = n.fingerprint
    group by n.fingerprint, case when n.fingerprint is null then n.queryid end, q.text, s.seconds, s.lost
    order by bool_and(n.queryid = 0), sum(n.total_ms) desc, min(n.queryid)
    limit statements.most;
end
$$;

CREATE FUNCTION pipeline.sweep(p_queue text, p_limit bigint, p_worker bigint, p_every double precision, p_search_every double precision) RETURNS TABLE(lease bigint, id bigint, task text, args jsonb, queue text, priority smallint, attempt integer, max_attempts integer, timeout double precision, created_at double precision, run_at double precision, waited double precision, key text, lost smallint, expires_in double precision, workflow bigint)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
    v_now constant timestamptz := pipeline.now();
    v_room bigint := p_limit;
    v_taken bigint;
    v_ids bigint[];
    v_oldest xid8;
    v_lane record;
    v_state pipeline.lane_state;
    v_first_lease bigint;
    v_all bool;
begin
    for v_lane in
        select
            l.priority, l.key, l.limited or l.key <> '' as limited, s.mark, s.oldest_lease,
            s.searched_at <= v_now - make_interval(secs => p_search_every) as whole,
            case when s.searched_at <= v_now - make_interval(secs => p_search_every) then 0 else s.settled end as above
        from pipeline.lane l
        cross join lateral (
            select * from pipeline.lane_state s
            where s.queue = l.queue and s.priority = l.priority and s.key = l.key
            order by s.n desc limit 1
        ) s
        where l.queue = p_queue and l.last_pos is distinct from 0 and (
            (s.settled < s.mark and s.swept_at <= v_now - make_interval(secs => p_every))
            or s.searched_at <= v_now - make_interval(secs => p_search_every)
        )
        order by s.swept_at, l.priority -- or the first 200 would be swept for ever while a transaction stays open
        limit 200
    loop
        exit when v_room <= 0;
        -- A hint, because a claim may be under way; and the oldest transaction that was running at that moment.
        select
            array(
                select j.id
                from pipeline.job j
                where j.queue = p_queue and j.priority = v_lane.priority and j.key = v_lane.key
                    and j.pos <= v_lane.mark and j.pos > v_lane.above
                    -- a hashed set: probing arrays row by row would be quadratic
                    and j.id not in (
                        select unnest(e.ids) from pipeline.lease e
                        where e.queue = p_queue and e.priority = v_lane.priority and e.key = v_lane.key
                            and e.id >= v_lane.oldest_lease
                    )
                order by j.pos
                limit v_room
            ),
            pg_snapshot_xmin(pg_current_snapshot())
        into v_ids, v_oldest;
        v_all := cardinality(v_ids) < v_room;

        -- The lock in one statement and the look in the next, under a newer snapshot: in one statement the lock sees the
        -- newest mark and the look an older set of leases, and jobs are handed out twice.
        perform from pipeline.lane l
        where l.queue = p_queue and l.priority = v_lane.priority and l.key = v_lane.key and l.last_pos is distinct from 0
            and (v_lane.limited or not l.limited)
        for update skip locked;
        continue when not found;
        select s.* into v_state
        from pipeline.lane_state s
        where s.queue = p_queue and s.priority = v_lane.priority and s.key = v_lane.key
        order by s.n desc limit 1;
        v_first_lease := coalesce((
            select min(e.id) from pipeline.lease e
            where e.queue = p_queue and e.priority = v_lane.priority and e.key = v_lane.key
                and e.id >= v_state.oldest_lease
        ), pg_sequence_last_value('pipeline.lease_id_seq'), v_state.oldest_lease);

        if cardinality(v_ids) > 0 and v_lane.limited then
            update pipeline.job j
            set pos = nextval('pipeline.job_pos')
            where j.id = any(v_ids) and j.queue = p_queue and j.priority = v_lane.priority and j.key = v_lane.key
                and j.pos <= v_state.mark
                and j.id not in (
                    select unnest(e.ids) from pipeline.lease e
                    where e.queue = p_queue and e.priority = v_lane.priority and e.key = v_lane.key
                        and e.id >= v_state.oldest_lease
                );
        elsif cardinality(v_ids) > 0 then
            return query
            with named as materialized (
                select j.* from pipeline.job j where j.id = any(v_ids) -- apart, or a planner misled would read the whole lane
            ), picked as materialized (
                select j.*
                from named j
                where j.queue = p_queue and j.priority = v_lane.priority and j.key = v_lane.key and j.pos <= v_state.mark
                    and j.id not in (
                        select unnest(e.ids) from pipeline.lease e
                        where e.queue = p_queue and e.priority = v_lane.priority and e.key = v_lane.key
                            and e.id >= v_state.oldest_lease
                    )
            ), leased as (
                insert into pipeline.lease (worker, queue, priority, key, made_at, ids)
                select p_worker, p_queue, v_lane.priority, v_lane.key, v_now, array_agg(p.id)
                from picked p having count(*) > 0
                returning id
            )
            select
                (select l.id from leased l), p.id, p.task, p.args, p.queue, p.priority, p.attempt, p.max_attempts,
                extract(epoch from p.timeout)::float8, extract(epoch from p.created_at)::float8,
                extract(epoch from p.run_at)::float8, extract(epoch from v_now - p.run_at)::float8,
                p.key, p.lost, extract(epoch from p.expires_at - v_now)::float8, p.workflow
            from picked p
            order by p.pos;
            get diagnostics v_taken = row_count;
            v_room := v_room - v_taken;
        end if;

        delete from pipeline.lane_state s
        where s.queue = p_queue and s.priority = v_lane.priority and s.key = v_lane.key and s.n = v_state.n;
        insert into pipeline.lane_state (
            queue, priority, key, n, mark, oldest_lease, swept_at, searched_at, settled, settling, settling_xid
        )
        select
            p_queue, v_lane.priority, v_lane.key, v_state.n + 1, v_state.mark, v_first_lease, v_now,
            case when v_all and v_lane.whole then v_now else v_state.searched_at end,
            -- never beyond what this look covered: another sweep may have moved the line since
            case when v_all and v_state.settling_xid < v_oldest and v_state.settling <= v_lane.mark
                then greatest(v_state.settled, v_state.settling) else v_state.settled end,
            -- The mark that was seen before this transaction had an id, not the newest: whoever drew a position below it had
            -- an id before us. With several lanes ours is the older the later the lane.
            case when v_state.settling_xid >= v_oldest or not v_all then v_state.settling else v_lane.mark end,
            case when v_state.settling_xid >= v_oldest or not v_all
                then v_state.settling_xid else pg_current_xact_id() end;
    end loop;
end
$$;

CREATE FUNCTION pipeline.tag_of(p_relation oid) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select case n.nspname when 'public' then c.relname::text else n.nspname || '.' || c.relname end
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.oid = p_relation
$$;

CREATE FUNCTION pipeline.take_over() RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_term constant bigint := nextval('pipeline.term');
begin
    insert into pipeline.leader as l (generation, term, pid, since, retired_xmax, turned_at)
    values (v_term, v_term, pg_backend_pid(), clock_timestamp(), '0', clock_timestamp())
    on conflict (one) do update
        set term = excluded.term, pid = excluded.pid, since = excluded.since;
    if (select lineage from pipeline.leader) is distinct from pipeline.lineage() then
        -- A crash loses what a prepared transaction reported, and it may still commit.
        update pipeline.leader
        set generation = v_term, position = '1:1:',
            retired_xmax = case when lineage is null then '0'::xid8 else '18446744073709551615' end,
            flush_until = case when exists (select from pg_prepared_xacts where database = current_database())
                               then pg_current_xact_id() else '0' end;
        update pipeline.leader set lineage = pipeline.lineage();
    end if;
    -- in a logged table: a standby that shows this epoch has replayed the log of this history up to here
    insert into pipeline.setting as s (name, value) values ('feed_epoch', pipeline.epoch())
    on conflict (name) do update set value = excluded.value where s.value is distinct from excluded.value;
    return v_term;
end
$$;

CREATE FUNCTION pipeline.tell_ddl() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if current_setting('pipeline.own_ddl', true) = 'on' then
        return;
    end if;
    if tg_event = 'sql_drop' then
        if not exists (
            select from pg_event_trigger_dropped_objects() d
            where not d.is_temporary and d.schema_name is distinct from 'pipeline'
              and d.object_type not in ('index', 'trigger', 'table constraint', 'default value', 'toast table',
                                        'statistics object', 'sequence', 'publication', 'publication relation')
        ) then
            return;
        end if;
    elsif tg_tag in ('COMMENT', 'CREATE INDEX', 'ALTER INDEX', 'REINDEX', 'CREATE STATISTICS', 'ALTER STATISTICS',
                     'SECURITY LABEL', 'CREATE TRIGGER', 'ALTER TRIGGER', 'CREATE PUBLICATION', 'ALTER PUBLICATION',
                     'CREATE SUBSCRIPTION', 'ALTER SUBSCRIPTION', 'REFRESH MATERIALIZED VIEW', 'ALTER SEQUENCE',
                     'CREATE EVENT TRIGGER', 'ALTER EVENT TRIGGER')
          or not exists (
              select from pg_event_trigger_ddl_commands() c
              where c.schema_name is null or c.schema_name not in ('pg_temp', 'pipeline')
          )
    then
        return;
    end if;
    perform pipeline.write_event(null, 'w', null, 0, null, 'pipeline.ddl');
exception when others then
    raise warning 'pgreflex could not tell caches of this command: %', sqlerrm;
end
$$;

CREATE FUNCTION pipeline.tell_schema_changes() RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_seen text;
begin
    if exists (select from pg_event_trigger where evtname = 'pgreflex_tell' and evtenabled in ('A', 'O'))
       or not exists (select from pipeline.watch)
    then
        return false;
    end if;
    select md5(string_agg(s.part || ':' || s.total, ',' order by s.part)) into v_seen from (
        select 'class' as part, sum(hashtextextended(concat_ws(' ', c.oid, c.relname, c.relnamespace, c.relkind, c.relrowsecurity,
                                                     c.relnatts, c.relacl::text), 0)) as total
        from pg_class c where c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relpersistence <> 't' and c.oid >= 16384
        union all
        select 'proc', sum(hashtextextended(concat_ws(' ', p.oid, p.xmin), 0)) from pg_proc p
        join pg_namespace n on n.oid = p.pronamespace
        where p.oid >= 16384 and n.nspname <> 'pipeline' and n.nspname !~ '^pg_temp_'
        union all
        select 'rewrite', sum(hashtextextended(concat_ws(' ', r.oid, r.xmin), 0))
        from pg_rewrite r join pg_class c on c.oid = r.ev_class where r.oid >= 16384 and c.relpersistence <> 't'
        union all
        select 'type', sum(hashtextextended(concat_ws(' ', t.oid, t.typname, t.typnamespace, t.typtype), 0))
        from pg_type t where t.oid >= 16384 and t.typtype <> 'c' and t.typcategory <> 'A'
        union all
        select 'enum', sum(hashtextextended(concat_ws(' ', e.oid, e.xmin), 0)) from pg_enum e
        union all
        select 'operator', sum(hashtextextended(concat_ws(' ', o.oid, o.xmin), 0)) from pg_operator o where o.oid >= 16384
        union all
        select 'cast', sum(hashtextextended(concat_ws(' ', c.oid, c.xmin), 0)) from pg_cast c where c.oid >= 16384
        union all
        select 'schema', sum(hashtextextended(concat_ws(' ', n.oid, n.nspname, n.nspacl::text), 0))
        from pg_namespace n where n.nspname !~ '^pg_(toast_)?temp_'
        union all
        select 'search', sum(hashtextextended(concat_ws(' ', m.mapcfg, m.xmin), 0)) from pg_ts_config_map m
        union all
        select 'inherits', sum(hashtextextended(concat_ws(' ', i.inhrelid, i.inhparent), 0)) from pg_inherits i
        union all
        select 'column', sum(hashtextextended(concat_ws(' ', a.attrelid, a.attnum, a.attname, a.atttypid, a.attisdropped), 0))
        from pipeline.watch w, unnest(w.tree) t join pg_attribute a on a.attrelid = t where a.attnum > 0
    ) s;
    if exists (select from pipeline.setting s where s.name = 'schema_seen' and s.value = v_seen) then
        return false;
    end if;
    insert into pipeline.setting as s (name, value) values ('schema_seen', v_seen)
    on conflict on constraint setting_pkey do update set value = excluded.value;
    perform pipeline.write_event(null, 'w', null, 0, null, 'pipeline.ddl');
    return true;
end
$$;

CREATE FUNCTION pipeline.text_expression(p_relation oid, p_alias text, p_column text) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
    select coalesce((
        select case
            when a.atttypid = any (array['bool', 'inet', 'cidr', 'bpchar']::regtype[]) then
                format('case when pg_typeof(%1$s) = %2$L::regtype then %1$s::text else concat(%1$s) end', x, a.atttypid::regtype)
            when a.attnotnull then format('concat(%s)', x)
        end
        from pg_attribute a where a.attrelid = p_relation and a.attname = p_column and not a.attisdropped
    ), format('case when %1$s is not null then concat(%1$s) end', x))
    from (select format('%s.%I', p_alias, p_column)) e(x)
$_$;

CREATE FUNCTION pipeline.text_of(p_queryid bigint) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select q.text
    from pipeline.query_id as i
    join pipeline.query as q on q.fingerprint = pipeline.fingerprint_now(i.fingerprint)
    where i.dbid = (select d.oid from pg_database as d where d.datname = current_database()) and i.queryid = p_queryid
    order by q.last_at desc
    limit 1
$$;

CREATE FUNCTION pipeline.timing_check_labels(p_labels jsonb, p_asker text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if jsonb_typeof(p_labels) <> 'object' then
        raise exception '%: labels must be a JSON object, not %', p_asker, left(p_labels::text, 50)
            using errcode = '22023', hint = 'Such as ''{"region": "eu"}''.';
    end if;
end
$$;

CREATE FUNCTION pipeline.timing_find(p_series text, p_labels jsonb) RETURNS integer[]
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select coalesce(array_agg(s.id), '{}')
    from pipeline.timing_series as s
    where (
            p_series is null or s.series = p_series or s.name = p_series
            or s.series = left(p_series, -2) and right(p_series, 2) = '{}'
        )
        and (
            p_labels is null or s.labels @> p_labels
            or s.labels @> (p_labels - 'fingerprint') and s.labels ->> 'fingerprint' in (
                select q.fingerprint from pipeline.query as q where q.moved_to = p_labels ->> 'fingerprint'
            )
        )
$$;

CREATE FUNCTION pipeline.timing_history(series text, over interval DEFAULT '01:00:00'::interval, step interval DEFAULT NULL::interval, labels jsonb DEFAULT NULL::jsonb) RETURNS TABLE(at timestamp with time zone, count bigint, errors bigint, mean double precision, p50 double precision, p95 double precision, p99 double precision, max double precision)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
    v_since timestamptz := pipeline.timing_since(timing_history.over, 'timing_history');
    v_step record := pipeline.timing_step(timing_history.over, timing_history.step);
    v_ids int[];
begin
    perform pipeline.timing_check_labels(timing_history.labels, 'timing_history');
    v_ids := pipeline.timing_find(timing_history.series, timing_history.labels);
    return query
    select p.at, coalesce(p.count, 0), coalesce(p.errors, 0), p.sum / p.count, p.quantiles[1], p.quantiles[2],
        p.quantiles[3], p.high
    from pipeline.timing_points(v_ids, array_fill(0, array[cardinality(v_ids)]), v_since, v_step.step, v_step.level) as p
    order by p.at;
end
$$;

CREATE FUNCTION pipeline.timing_ids(p_series text[], p_sources text[], p_names text[], p_labels text[]) RETURNS TABLE(series text, id integer)
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    with given as (
        select g.*, k.id, k.last_at
        from unnest(p_series, p_sources, p_names, p_labels) as g (series, source, name, labels)
        left join pipeline.timing_series as k on k.series = g.series
    ),
    new as (
        insert into pipeline.timing_series as t (series, source, name, labels, first_at, last_at)
        select g.series, g.source, g.name, g.labels::jsonb, pipeline.now(), pipeline.now()
        from given as g
        where g.id is null
        order by g.series collate "C"
        on conflict (series) do update set last_at = greatest(t.last_at, excluded.last_at)
        returning t.id, t.series
    ),
    touched as (
        update pipeline.timing_series as t
        set last_at = pipeline.now()
        where t.id in (
            select o.id
            from pipeline.timing_series as o
            where o.id in (select g.id from given as g where g.last_at < pipeline.now() - interval '1 hour')
            for update skip locked
        )
    )
    select g.series, g.id from given as g where g.id is not null
    union all
    select n.series, n.id from new as n
$$;

CREATE FUNCTION pipeline.timing_in_batches(p_ids integer[], p_from timestamp with time zone, p_to timestamp with time zone, p_open boolean) RETURNS TABLE(start timestamp with time zone, digest pipeline.timing_digest)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
begin
    if cardinality(p_ids) <= 8 then
        return query
        select b.start, b.digests[p.place]
        from pipeline.timing_batch as b
        cross join lateral (
            select s.place from unnest(b.series) with ordinality as s (id, place) where s.id = any(p_ids)
        ) as p
        where b.start >= p_from and b.start < p_to and not (p_open and b.rolled);
    else
        return query
        select b.start, d::pipeline.timing_digest
        from pipeline.timing_batch as b
        cross join unnest(b.digests) as d
        where b.start >= p_from and b.start < p_to and not (p_open and b.rolled) and d.series = any(p_ids);
    end if;
end
$$;

CREATE FUNCTION pipeline.timing_level(p_over interval, OUT level integer, OUT edge integer) RETURNS record
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select l.level, l.edge
    from (
        values (interval '3 minutes', 5, 5), ('15 minutes', 60, 5), ('3 hours', 300, 60), ('40 hours', 3600, 300),
            ('29 days', 86400, 3600), (p_over, 86400, 86400)
    ) as l (upto, level, edge)
    where p_over <= l.upto
    order by l.level, l.edge
    limit 1
$$;

CREATE FUNCTION pipeline.timing_parts(p_ids integer[], p_from timestamp with time zone, p_to timestamp with time zone, p_level integer) RETURNS TABLE(series integer, start timestamp with time zone, count bigint, sum double precision, low double precision, high double precision, errors bigint, over_count bigint, row_count bigint, means double precision[], weights double precision[])
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
begin
    return query
    select p.series, p.start, p.count, p.sum, p.low, p.high, p.errors, p.over_count, p.row_count,
        (
            select array_agg(
                least(
                    greatest(
                        case
                            when u.code = -32768 then 0
                            else (1024 + ((u.code + 32768) & 1023)) * power(2::float8, ((u.code + 32768) >> 10) - 32)
                        end,
                        p.low
                    ),
                    p.high
                )
            )
            from unnest(p.centroids[2 : 1 + n.size]) as u (code)
        ),
        case p.centroids[1]
            when 0 then array_fill(1::float8, array[n.size])
            when 1 then (
                select array_agg(case when w.weight < 0 then w.weight * -32768::float8 else w.weight end)
                from unnest(p.centroids[2 + n.size :]) as w (weight)
            )
            else (
                select array_agg(
                    (((p.centroids[2 + n.size + i / 2]::int + 32768) >> (8 * (i % 2))) & 255)::float8
                )
                from generate_series(0, n.size - 1) as i
            )
        end
    from pipeline.timing_stored(p_ids, p_from, p_to, p_level) as p
    cross join lateral (
        select case p.centroids[1]
            when 0 then cardinality(p.centroids) - 1
            when 1 then (cardinality(p.centroids) - 1) / 2
            else (cardinality(p.centroids) - 1) * 2 / 3
        end as size
    ) as n;
end
$$;

CREATE FUNCTION pipeline.timing_points(p_ids integer[], p_groups integer[], p_since timestamp with time zone, p_step integer, p_level integer) RETURNS TABLE(grp integer, at timestamp with time zone, count bigint, sum double precision, high double precision, errors bigint, quantiles double precision[])
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    with step as (
        select n
        from generate_series(
            floor(extract(epoch from p_since) / p_step)::bigint, floor(extract(epoch from pipeline.now()) / p_step)::bigint
        ) as n
    ),
    found as (
        select s.*
        from pipeline.timing_summary(
            p_ids, p_groups, to_timestamp(floor(extract(epoch from p_since) / p_step) * p_step), 'infinity', p_level, p_level,
            array[0.5, 0.95, 0.99], make_interval(secs => p_step)
        ) as s
    )
    select g.grp, to_timestamp(step.n * p_step), f.count, f.sum, f.high, f.errors, f.quantiles
    from step
    cross join (select distinct grp from unnest(p_groups) as u (grp)) as g
    left join found as f on f.slot = step.n and f.grp = g.grp
    order by g.grp, step.n
$$;

CREATE FUNCTION pipeline.timing_series_list(only_name text DEFAULT NULL::text) RETURNS TABLE(series text, source text, name text, labels jsonb, first_at timestamp with time zone, last_at timestamp with time zone)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select s.series, s.source, s.name, s.labels, s.first_at, s.last_at
    from pipeline.timing_series as s
    where only_name is null or s.name = only_name or s.series = only_name
    order by s.series
$$;

CREATE FUNCTION pipeline.timing_since(p_over interval, p_asker text) RETURNS timestamp with time zone
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if p_over is null or p_over <= interval '0' then
        raise exception '%: over must be longer than nothing, not %', p_asker, coalesce(p_over::text, 'null')
            using errcode = '22023', hint = 'The last hour is interval ''1 hour''.';
    end if;
    return pipeline.now() - least(p_over, interval '401 days');
end
$$;

CREATE FUNCTION pipeline.timing_span(p_ids integer[], p_from timestamp with time zone, p_to timestamp with time zone, p_level integer, p_edge integer, p_digests boolean) RETURNS TABLE(series integer, start timestamp with time zone, count bigint, sum double precision, low double precision, high double precision, errors bigint, over_count bigint, row_count bigint, means double precision[], weights double precision[])
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
    v_begin timestamptz := date_bin(make_interval(secs => p_level), p_from, timestamptz 'epoch');
    v_span record;
begin
    if p_edge < p_level and v_begin < p_from then
        v_begin := v_begin + make_interval(secs => p_level);
    end if;
    for v_span in
        select p_from as since, least(v_begin, p_to) as upto, p_edge as level where p_from < v_begin
        union all
        select v_begin, p_to, p_level where v_begin < p_to
    loop
        if p_digests then
            return query select * from pipeline.timing_parts(p_ids, v_span.since, v_span.upto, v_span.level);
        else
            return query
            select s.series, s.start, s.count, s.sum, s.low, s.high, s.errors, s.over_count, s.row_count,
                null::float8[], null::float8[]
            from pipeline.timing_stored(p_ids, v_span.since, v_span.upto, v_span.level) as s;
        end if;
    end loop;
end
$$;

CREATE FUNCTION pipeline.timing_step(p_over interval, p_step interval, OUT step integer, OUT level integer) RETURNS record
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_over double precision := extract(epoch from p_over);
    v_step double precision := extract(epoch from p_step);
    v_kept text;
begin
    -- a level that ends up beside the step: what it is kept for, less what a roll-up may be behind
    select s.step, l.level
    into step, level
    from (
        values (5, 15 * 60), (60, 47 * 3600), (300, 6.9 * 86400), (3600, 29.9 * 86400), (86400, 401 * 86400)
    ) as l (level, kept)
    join unnest(
        case
            when v_step is not null then array[v_step]
            else array[5, 10, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400, 172800, 604800]
        end
    ) as s (step) on s.step between 1 and 401 * 86400 and mod(s.step::numeric, l.level) = 0
    where least(v_over, 400 * 86400) <= l.kept and least(v_over, 400 * 86400) / s.step <= case when v_step is null then 60 else 1500 end
    order by s.step, l.level desc
    limit 1;
    if step is null then
        v_kept := case
            when v_over <= 15 * 60 then '5 seconds'
            when v_over <= 47 * 3600 then '1 minute'
            when v_over <= 6.9 * 86400 then '5 minutes'
            when v_over <= 29.9 * 86400 then '1 hour'
            else '1 day'
        end;
        raise exception 'timing_history: a step of % does not fit a span of %', p_step, p_over
            using errcode = '22023',
            hint = format('For this span it is a multiple of %s, and there are at most 1,500 of them.', v_kept);
    end if;
end
$$;

CREATE FUNCTION pipeline.timing_stored(p_ids integer[], p_from timestamp with time zone, p_to timestamp with time zone, p_level integer) RETURNS TABLE(series integer, start timestamp with time zone, count bigint, sum double precision, low double precision, high double precision, errors bigint, over_count bigint, row_count bigint, centroids smallint[])
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
    v_step constant interval := make_interval(secs => p_level);
    v_from constant timestamptz :=
        date_bin(v_step, greatest(p_from, pipeline.now() - interval '402 days'), timestamptz 'epoch');
    -- what a clock that was set back has left ahead counts when its time comes
    v_to constant timestamptz := least(p_to, pipeline.now() + interval '1 minute');
    v_starts constant timestamptz[] := array(
        select g.start
        from generate_series(v_from, v_to, v_step) as g (start)
        where g.start < v_to and p_level > 5
    );
begin
    return query
    -- of a few series each window is looked up, of many whole windows are read
    select p.series, p.start, p.count, p.sum, p.low, p.high, p.errors, p.over_count, p.row_count, p.centroids
    from pipeline.timing_part as p
    where cardinality(p_ids) <= 8 and p.seconds = p_level and p.start = any(v_starts) and p.series = any(p_ids)
    union all
    select p.series, p.start, p.count, p.sum, p.low, p.high, p.errors, p.over_count, p.row_count, p.centroids
    from pipeline.timing_part as p
    where cardinality(p_ids) > 8 and p.seconds = p_level and p.start >= v_from and p.start < v_to
      and p.series + 0 = any(p_ids)
    union all
    select p.series, p.start, p.count, p.sum, p.low, p.high, p.errors, p.over_count, p.row_count, p.centroids
    from pipeline.timing_roll as r
    join pipeline.timing_part as p on p.seconds = r.seconds and p.start = r.start and p.part = r.part
    where r.seconds < p_level and not r.rolled and r.start >= v_from and r.start < v_to and p.series = any(p_ids)
    union all
    select (b.digest).series, b.start, (b.digest).count, (b.digest).sum, (b.digest).low, (b.digest).high,
        (b.digest).errors, (b.digest).over_count, (b.digest).row_count, (b.digest).centroids
    from pipeline.timing_in_batches(p_ids, v_from, v_to, p_level > 5) as b;
end
$$;

CREATE FUNCTION pipeline.timing_summary(p_ids integer[], p_groups integer[], p_from timestamp with time zone, p_to timestamp with time zone, p_level integer, p_edge integer, p_quantiles double precision[], p_step interval DEFAULT NULL::interval) RETURNS TABLE(grp integer, slot bigint, count bigint, sum double precision, low double precision, high double precision, errors bigint, over_count bigint, row_count bigint, quantiles double precision[])
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_custom_plan'
    AS $$
#variable_conflict use_column
declare
    v_step double precision := extract(epoch from p_step);
begin
    return query
    with part as materialized (
        select g.grp, coalesce(floor(extract(epoch from f.start)::float8 / v_step), 0)::bigint as slot,
            f.count, f.sum, f.low, f.high, f.errors, f.over_count, f.row_count, f.means, f.weights
        from pipeline.timing_span(p_ids, p_from, p_to, p_level, p_edge, cardinality(p_quantiles) > 0) as f
        join unnest(p_ids, p_groups) as g (series, grp) on g.series = f.series
    ),
    total as (
        -- dividing what is next to nothing is an error in Postgres, and one absurd value must not hide a series
        select p.grp, p.slot, sum(p.count)::bigint as count,
            sum(case when p.sum < 1e-290 then 0 else p.sum end) as sum, min(p.low) as low, max(p.high) as high,
            sum(p.errors)::bigint as errors, sum(p.over_count)::bigint as over_count,
            sum(p.row_count)::bigint as row_count
        from part as p
        group by p.grp, p.slot
    ),
    centroid as (
        select p.grp, p.slot, c.mean, c.weight, sum(c.weight) over ordered as upto,
            lead(c.mean) over ordered as next_mean, lead(c.weight) over ordered as next_weight
        from part as p
        cross join lateral unnest(p.means, p.weights) as c (mean, weight)
        window ordered as (partition by p.grp, p.slot order by c.mean, c.weight rows unbounded preceding)
    ),
    -- the centroid that stands just before the rank that is asked for, or the first one
    nearest as (
        select t.grp, t.slot, q.place, q.q * (t.count - 1) as target, t.low, t.high, t.count,
            c.upto - c.weight + (c.weight - 1) / 2 as rank, least(greatest(c.mean, t.low), t.high) as value,
            coalesce(c.upto + (c.next_weight - 1) / 2, t.count - 1) as next_rank,
            least(greatest(coalesce(c.next_mean, t.high), t.low), t.high) as next_value
        from centroid as c
        join total as t on t.grp = c.grp and t.slot = c.slot
        cross join unnest(p_quantiles) with ordinality as q (q, place)
        where (c.upto - c.weight + (c.weight - 1) / 2 <= q.q * (t.count - 1) or c.upto = c.weight)
          and (q.q * (t.count - 1) < c.upto + (c.next_weight - 1) / 2 or c.next_weight is null)
    ),
    answer as (
        select n.grp, n.slot, array_agg(
            case
                when n.next_value - n.low < 1e-290 then n.next_value
                when n.target < n.rank then least(n.low + (n.value - n.low) * (n.target / n.rank), n.value)
                when n.target >= n.next_rank then n.next_value
                else least(
                    n.value + (n.next_value - n.value) * ((n.target - n.rank) / (n.next_rank - n.rank)), n.next_value
                )
            end
            order by n.place
        ) as quantiles
        from nearest as n
        group by n.grp, n.slot
    )
    select t.grp, t.slot, t.count, t.sum, t.low, t.high, t.errors, t.over_count, t.row_count, a.quantiles
    from total as t
    left join answer as a on a.grp = t.grp and a.slot = t.slot;
end
$$;

CREATE FUNCTION pipeline.timing_top(p_over interval, p_by text, p_most integer, p_per text, p_source text, p_name text, p_labels jsonb, p_asker text) RETURNS TABLE(series text, source text, name text, labels jsonb, count bigint, total double precision, mean double precision, p50 double precision, p95 double precision, p99 double precision, max double precision, errors bigint, slow bigint, rows bigint, share double precision, first_at timestamp with time zone)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
    v_since timestamptz := pipeline.timing_since(p_over, p_asker);
    v_level record := pipeline.timing_level(p_over);
    v_ranked bool := p_by in ('p50', 'p95', 'p99');
    v_qs double precision[] := array[0.5, 0.95, 0.99];
    v_found int[];
    v_ids int[];
    v_groups int[];
begin
    perform pipeline.timing_check_labels(p_labels, p_asker);
    if p_by is null or p_by not in ('total', 'calls', 'errors', 'mean', 'max', 'p50', 'p95', 'p99') then
        raise exception '%: cannot order by %', p_asker, coalesce(left(p_by, 50), 'null')
            using errcode = '22023', hint = 'One of total, calls, errors, mean, max, p50, p95, p99.';
    end if;
    if p_most < 1 then
        raise exception '%: most must be 1 or more, not %', p_asker, p_most using errcode = '22023';
    end if;
    if p_name is not null or p_labels is not null then
        v_found := pipeline.timing_find(p_name, p_labels);
    end if;
    select array_agg(s.id order by s.id), array_agg(s.grp order by s.id)
    into v_ids, v_groups
    from (
        select s.id, min(s.id) over (
            partition by s.source, s.name, case p_per
                when 'series' then s.series
                when 'fingerprint' then coalesce(q.moved_to, s.labels ->> 'fingerprint', 'other')
            end
        ) as grp
        from pipeline.timing_series as s
        left join pipeline.query as q on p_per = 'fingerprint' and q.fingerprint = s.labels ->> 'fingerprint'
        where s.last_at >= v_since - interval '65 minutes'  -- it is up to an hour behind
          and (p_source is null or s.source = p_source)
          and (v_found is null or s.id = any(v_found))
    ) as s;
    return query
    with counted as (
        select t.*, t.sum / nullif(sum(t.sum) over (), 0) as share
        from pipeline.timing_summary(
            v_ids, v_groups, v_since, 'infinity', v_level.level, v_level.edge,
            case when v_ranked then v_qs else '{}' end
        ) as t
    ),
    chosen as materialized (
        select t.*
        from counted as t
        order by case p_by
            when 'total' then t.sum
            when 'calls' then t.count
            when 'errors' then t.errors
            when 'mean' then t.sum / t.count
            when 'max' then t.high
            else t.quantiles[array_position(array['p50', 'p95', 'p99'], p_by)]
        end desc, t.sum desc, t.grp
        limit p_most
    ),
    measured as (
        select t.grp, t.quantiles
        from chosen as t
        where v_ranked
        union all
        select q.grp, q.quantiles
        from (
            select array_agg(i.id) as ids, array_agg(i.grp) as groups
            from unnest(v_ids, v_groups) as i (id, grp)
            where i.grp in (select t.grp from chosen as t)
        ) as i
        cross join lateral pipeline.timing_summary(
            i.ids, i.groups, v_since, 'infinity', v_level.level, v_level.edge, v_qs
        ) as q
        where not v_ranked
    ),
    seen as (
        select i.grp, min(s.first_at) as first_at
        from unnest(v_ids, v_groups) as i (id, grp)
        join pipeline.timing_series as s on s.id = i.id
        group by i.grp
    )
    select case when p_per = 'series' then s.series else s.name end, s.source, s.name,
        case when p_per <> 'name' then s.labels end, t.count, t.sum, t.sum / t.count,
        m.quantiles[1], m.quantiles[2], m.quantiles[3], t.high, t.errors, t.over_count, t.row_count, t.share,
        n.first_at
    from chosen as t
    join pipeline.timing_series as s on s.id = t.grp
    join measured as m on m.grp = t.grp
    join seen as n on n.grp = t.grp
    order by case p_by
        when 'total' then t.sum
        when 'calls' then t.count
        when 'errors' then t.errors
        when 'mean' then t.sum / t.count
        when 'max' then t.high
        else m.quantiles[array_position(array['p50', 'p95', 'p99'], p_by)]
    end desc, t.sum desc, t.grp;
end
$$;

CREATE FUNCTION pipeline.timing_totals(series text, over interval DEFAULT '01:00:00'::interval, labels jsonb DEFAULT NULL::jsonb) RETURNS TABLE(count bigint, total double precision, mean double precision, p50 double precision, p95 double precision, p99 double precision, min double precision, max double precision, errors bigint, slow bigint, rows bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
    v_since timestamptz := pipeline.timing_since(timing_totals.over, 'timing_totals');
    v_ids int[];
begin
    perform pipeline.timing_check_labels(timing_totals.labels, 'timing_totals');
    v_ids := pipeline.timing_find(timing_totals.series, timing_totals.labels);
    return query
    select s.count, s.sum, s.sum / s.count, s.quantiles[1], s.quantiles[2], s.quantiles[3], s.low, s.high, s.errors,
        s.over_count, s.row_count
    from pipeline.timing_level(timing_totals.over) as l
    cross join lateral pipeline.timing_summary(
        v_ids, array_fill(0, array[cardinality(v_ids)]), v_since, 'infinity', l.level, l.edge, array[0.5, 0.95, 0.99]
    ) as s;
end
$$;

CREATE FUNCTION pipeline.top_series(over interval DEFAULT '01:00:00'::interval, by text DEFAULT 'total'::text, most integer DEFAULT 20, only_source text DEFAULT NULL::text, only_name text DEFAULT NULL::text, only_labels jsonb DEFAULT NULL::jsonb, per text DEFAULT 'series'::text) RETURNS TABLE(series text, source text, name text, labels jsonb, count bigint, total double precision, mean double precision, p50 double precision, p95 double precision, p99 double precision, max double precision, errors bigint, slow bigint, rows bigint, share double precision, first_at timestamp with time zone)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if top_series.per is null or top_series.per not in ('series', 'name') then
        raise exception 'top_series: per must be series or name, not %', coalesce(left(top_series.per, 50), 'null')
            using errcode = '22023';
    end if;
    return query select t.* from pipeline.timing_top(
        top_series.over, top_series.by, top_series.most, top_series.per, top_series.only_source,
        top_series.only_name, top_series.only_labels, 'top_series'
    ) as t;
end
$$;

CREATE FUNCTION pipeline.triggers_of(p_watch pipeline.watch, p_relation oid) RETURNS TABLE(suffix text, definition text, mode text)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select * from (values
        ('insert', 'after insert on %s referencing new table as new_rows for each statement', 'always'),
        ('update', 'after update on %s referencing old table as old_rows new table as new_rows for each statement',
         'always'),
        ('delete', 'after delete on %s referencing old table as old_rows for each statement', 'always'),
        ('truncate', 'after truncate on %s for each statement', 'always'),
        ('begin', 'before insert or update or delete on %s for each statement', 'always'),
        ('replicated', 'after insert or update or delete on %s for each row', 'replica')
    ) t (suffix, definition, mode)
    where (suffix <> 'begin' or p_watch.timing)
      and (suffix <> 'replicated'
           or p_watch.replicated and (select relkind from pg_class where oid = p_relation) = 'r')
$$;

CREATE FUNCTION pipeline.turn(p_term bigint) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_gate bigint;
begin
    perform pipeline.assert_leader(p_term);
    perform pg_advisory_xact_lock(1885697639, 4);
    select last_value into v_gate from pipeline.gate;
    perform setval('pipeline.gate', (v_gate # 1) & ~2::bigint);
    return v_gate & 2 <> 0;
end
$$;

CREATE FUNCTION pipeline.turn_timing_inbox(p_turn_bytes bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    v_gate constant bigint := (select last_value from pipeline.timing_gate);
    v_active constant regclass := format('pipeline.timing_inbox_%s', v_gate & 1);
    v_resting constant regclass := format('pipeline.timing_inbox_%s', 1 - (v_gate & 1));
    v_read constant pg_snapshot := coalesce((select p.position from pipeline.timing_inbox_place as p), '1:1:');
    v_unread bool;
begin
    if pg_relation_size(v_resting) > 0 then
        begin
            execute format('lock table %s in access exclusive mode nowait', v_resting);
            execute format('select exists (select from %s where xid >= $1 or xid = any($2))', v_resting)
            into v_unread
            using pg_snapshot_xmax(v_read), array(select pg_snapshot_xip(v_read));
            if not v_unread then
                execute format('truncate table %s', v_resting);
            end if;
        exception
            when lock_not_available then null;  -- a transaction that wrote here is still open; or a dump reads it
        end;
    end if;
    -- A table that cannot be emptied is written again when the other has grown to twice its size, so that this one can be.
    if pg_relation_size(v_active) >= greatest(p_turn_bytes, 2 * pg_relation_size(v_resting)) then
        perform setval('pipeline.timing_gate', 1 - (v_gate & 1));
    elsif v_gate >= 2 and pg_relation_size(v_active) < p_turn_bytes then
        perform setval('pipeline.timing_gate', v_gate & 1);
    end if;
end
$_$;

CREATE FUNCTION pipeline.turns(p_queue text, p_after text, p_room bigint) RETURNS TABLE(priority smallint, key text, quota bigint)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    -- where a look that gave up goes on: priority, length of the key where it began, that key and the last one seen;
    -- anybody's key may look like this, and must not end in an error
    v_goes_on constant text[] := regexp_match(p_after, '^\x01(-?\d{1,5}):(\d{1,5}):(.*)$');
    v_after constant text := coalesce(left(v_goes_on[3], v_goes_on[2]::int), p_after);
    v_priority smallint := least(greatest(v_goes_on[1]::int, -32768), 32767);
    v_key text := coalesce(substr(v_goes_on[3], v_goes_on[2]::int + 1), p_after);
    v_round int := case when v_goes_on is null or v_key > v_after then 1 else 2 end;
    v_priorities smallint[] := '{}';
    v_keys text[] := '{}';
    v_seen int := 0;
    v_spent double precision;
    v_ask_ms bigint;
begin
    if v_priority is null then
        v_priority := (
            select j.priority from pipeline.job j where j.queue = p_queue and j.pos is not null order by j.priority limit 1
        );
    end if;
    while v_priority is not null and v_seen < 500 and cardinality(v_keys) < p_room loop
        loop -- first the keys beyond v_after, then those from the beginning up to it
            v_key := (
                select j.key from pipeline.job j
                where j.queue = p_queue and j.priority = v_priority and j.pos is not null and j.key > v_key
                order by j.key limit 1
            );
            if v_round = 1 and v_key is null then
                v_round := 2;
                v_key := (
                    select j.key from pipeline.job j
                    where j.queue = p_queue and j.priority = v_priority and j.pos is not null
                    order by j.key limit 1
                );
            end if;
            exit when v_key is null or (v_round = 2 and v_key > v_after);
            v_seen := v_seen + 1;
            if pipeline.claimable(p_queue, v_priority, v_key) then
                v_spent := case when v_key <> '' then (
                    select r.rate_seconds from pipeline.key_rule r
                    where r.name = split_part(v_key, ':', 1)
                        and pipeline.allowance('key:' || v_key, r.rate, r.rate_seconds) < 1
                ) end;
                if v_spent is null then
                    v_priorities := v_priorities || v_priority;
                    v_keys := v_keys || v_key;
                else
                    v_ask_ms := least(v_ask_ms, greatest(10, least(1000, (v_spent * 1000 / 64)::bigint)));
                end if;
            end if;
            exit when v_seen >= 500 or cardinality(v_keys) >= p_room;
        end loop;
        exit when v_seen >= 500 or cardinality(v_keys) >= p_room;
        v_priority := (
            select j.priority from pipeline.job j
            where j.queue = p_queue and j.pos is not null and j.priority > v_priority order by j.priority limit 1
        );
        v_key := v_after;
        v_round := 1;
    end loop;
    return query
    select t.priority, t.key, (p_room + cardinality(v_keys) - 1) / cardinality(v_keys)
    from unnest(v_priorities, v_keys) t (priority, key);
    if v_seen >= 500 and cardinality(v_keys) < p_room then
        return query select
            null::smallint, E'\x01' || v_priority || ':' || length(v_after) || ':' || v_after || v_key,
            least(v_ask_ms, case when cardinality(v_keys) > 0 then 0 else 20 end);
    elsif v_ask_ms is not null or v_goes_on is not null and cardinality(v_keys) = 0 then
        -- once all the way round: the next look begins at the highest priority again
        return query select null::smallint, v_after, least(v_ask_ms, 1000);
    end if;
end
$_$;

CREATE FUNCTION pipeline.unschedule(name text) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    delete from pipeline.schedule s where s.name = unschedule.name;
    return found;
end
$$;

CREATE FUNCTION pipeline.unsilence(id bigint, by text DEFAULT SESSION_USER) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_rule text;
begin
    update pipeline.alert_silence as s
    set starts_at = least(s.starts_at, pipeline.now() - interval '1 microsecond'), ends_at = pipeline.now(),
        ended_by = left(coalesce(unsilence.by, session_user), 200)
    where s.id = unsilence.id and s.ends_at > pipeline.now()
    returning coalesce(s.matchers ->> 'rule', '*') into v_rule;
    if v_rule is null then
        return false;
    end if;
    insert into pipeline.alert_note (at, rule, action, made_by, note)
    values (pipeline.now(), v_rule, 'unsilence', left(coalesce(unsilence.by, session_user), 200), format('silence %s', unsilence.id));
    return true;
end
$$;

CREATE FUNCTION pipeline.unwatch(relation text) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_relation oid := pipeline.relation_named(relation);
    v_watch pipeline.watch;
begin
    if v_relation is null then
        perform pipeline.check_watchable(relation, v_relation);
    end if;
    select w.* into v_watch from pipeline.watch w where w.relation = v_relation;
    if not found then
        return false;
    end if;
    perform pipeline.lock_gently(v_relation, 'access exclusive');
    perform set_config('pipeline.own_ddl', 'on', true);
    perform pipeline.drop_watch(v_watch);
    perform set_config('pipeline.own_ddl', 'off', true);
    return true;
end
$$;

CREATE FUNCTION pipeline.waits(over interval DEFAULT '01:00:00'::interval, most integer DEFAULT 100) RETURNS TABLE(wait_type text, wait_event text, fingerprint text, text text, samples bigint, sessions double precision, share double precision)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
    v_from constant timestamptz := date_trunc('minute', pipeline.now() - waits.over);
    v_looks constant bigint := (select sum(m.samples) from pipeline.activity_minute as m where m.start >= v_from);
    v_database constant oid := (select d.oid from pg_database as d where d.datname = current_database());
begin
    return query
    with seen as (
        select w.wait_type, w.wait_event, w.queryid, sum(w.samples) as samples
        from pipeline.activity_window as w
        where w.start >= v_from
        group by w.wait_type, w.wait_event, w.queryid
    ),
    named as (
        select s.*, pipeline.fingerprint_now(
            (select min(i.fingerprint) from pipeline.query_id as i
                where i.dbid = v_database and i.queryid = s.queryid and s.queryid <> 0)) as fingerprint
        from seen as s
    )
    select case n.wait_type when '' then 'running' else n.wait_type end, nullif(n.wait_event, ''), n.fingerprint,
        q.text, sum(n.samples)::bigint, sum(n.samples)::float8 / v_looks,
        sum(n.samples)::float8 / sum(sum(n.samples)) over ()
    from named as n
    left join pipeline.query as q on q.fingerprint = n.fingerprint
    group by n.wait_type, n.wait_event, n.fingerprint, q.text
    order by sum(n.samples) desc, n.wait_type, n.wait_event, n.fingerprint
    limit waits.most;
end
$$;

CREATE FUNCTION pipeline.wake_alerts(p_name text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    perform setval('pipeline.alert_bell', (date_part('epoch', clock_timestamp()) * 1000)::bigint);
    perform pipeline.write_event(null, 'e', null, 1, null, 'pipeline.alert', p_name);
end
$$;

CREATE FUNCTION pipeline.wake_workers(p_queue text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_told text := pg_current_xact_id()::text || ':' || p_queue;
begin
    if current_setting('pipeline.told_workers', true) is distinct from v_told then
        perform pipeline.emit('pipeline.jobs', p_queue);
        perform set_config('pipeline.told_workers', v_told, true);
    end if;
end
$$;

CREATE FUNCTION pipeline.watch(relation text, keys text[] DEFAULT NULL::text[], columns text[] DEFAULT NULL::text[], timing boolean DEFAULT false, durable boolean DEFAULT false, replicated boolean DEFAULT false) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_relation oid := pipeline.relation_named(relation);
    v_keys text[] := keys;
    v_watch pipeline.watch;
    v_fewer boolean;
    v_one oid;
begin
    perform pipeline.check_watchable(relation, v_relation);
    if v_keys is null then
        select coalesce(array_agg(a.attname::text order by k.n), '{}') into v_keys
        from pg_index i, unnest(i.indkey) with ordinality k(attnum, n)
        join pg_attribute a on a.attnum = k.attnum
        where i.indrelid = v_relation and i.indisprimary and a.attrelid = v_relation;
    end if;
    perform pipeline.check_columns(v_relation, v_keys || coalesce(columns, '{}'));
    v_fewer := exists (
        select from pipeline.watch w where w.relation = v_relation
        and (w.timing and not watch.timing or w.replicated and not watch.replicated));
    perform pipeline.lock_gently(v_relation, case when v_fewer then 'access exclusive' else 'share row exclusive' end);
    insert into pipeline.watch as w (relation, tag, keys, columns, timing, durable, replicated)
    values (v_relation, pipeline.tag_of(v_relation), v_keys, watch.columns, watch.timing, watch.durable,
            watch.replicated)
    on conflict on constraint watch_relation_key do update
        set keys = excluded.keys, columns = excluded.columns, timing = excluded.timing,
            durable = excluded.durable, replicated = excluded.replicated
    returning w.* into v_watch;
    perform set_config('pipeline.own_ddl', 'on', true);
    perform pipeline.create_watch_functions(v_watch);
    for v_one in select r from pipeline.relations_of(v_relation) r loop
        perform pipeline.create_watch_triggers(v_watch, v_one, p_enable => true);
    end loop;
    perform pipeline.drop_spare_triggers(v_watch);
    perform set_config('pipeline.own_ddl', 'off', true);
    update pipeline.watch w
        set tree = (select array_agg(r order by r) from pipeline.relations_of(v_relation) r)
        where w.id = v_watch.id;
    -- what happened before this moment was not reported to anybody
    perform pipeline.write_event(v_watch.id, 'w', null, 0, null, v_watch.tag);
    perform pipeline.tell_schema_changes();  -- so that the next check has something to compare with
    return v_watch.tag;
end
$$;

CREATE FUNCTION pipeline.watch_problem(p_watch pipeline.watch) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    v_bad text;
begin
    if not exists (select from pg_class where oid = p_watch.relation) then
        return 'the table was dropped';
    end if;
    if pipeline.tag_of(p_watch.relation) <> p_watch.tag then
        return format('the table was renamed from %s', p_watch.tag);
    end if;
    select c into v_bad from unnest(p_watch.keys || coalesce(p_watch.columns, '{}')) c
    where not exists (select from pg_attribute where attrelid = p_watch.relation and attname = c
                      and attnum > 0 and not attisdropped)
    limit 1;
    if v_bad is not null then
        return format('column %s is gone; every change counts for the whole table', quote_ident(v_bad));
    end if;
    select string_agg(distinct r::regclass::text, ', ') into v_bad
    from pipeline.relations_of(p_watch.relation) r, pipeline.triggers_of(p_watch, r) t
    where not exists (select from pg_trigger where tgrelid = r
                      and tgname = format('pgreflex_%s_%s', p_watch.id, t.suffix));
    if v_bad is not null then
        return format('triggers are missing on %s', v_bad);
    end if;
    select string_agg(distinct r::regclass::text, ', ') into v_bad
    from pipeline.relations_of(p_watch.relation) r, pg_trigger t
    where t.tgrelid = r and t.tgname ~ format('^pgreflex_%s_', p_watch.id) and t.tgenabled = 'D';
    if v_bad is not null then
        return format('triggers are disabled on %s', v_bad);
    end if;
    return null;
end
$$;

CREATE FUNCTION pipeline.watched() RETURNS TABLE(relation text, keys text[], columns text[], timing boolean, durable boolean, problem text)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select coalesce(pipeline.tag_of(w.relation), w.tag), w.keys, w.columns, w.timing, w.durable,
           pipeline.watch_problem(w)
    from pipeline.watch w
    order by 1
$$;

CREATE FUNCTION pipeline.watched_over(p_relations oid[]) RETURNS TABLE(relation oid, name text, top text, tag text, keys integer[], columns integer[], problem text)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION pipeline.workflow_edges(p_jobs jsonb, p_names text[], p_on_failure text) RETURNS TABLE(job integer, need integer, policy text)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_mergejoin TO 'off'
    AS $$
#variable_conflict use_column
declare
    v_job text;
    v_need text;
    v_count bigint;
begin
    return query
    select distinct e.job, n.i::int, e.policy
    from (
        select j.i::int as job, a.name, coalesce(j.one ->> 'on_failure', p_on_failure) as policy
        from jsonb_array_elements(p_jobs) with ordinality j (one, i)
        cross join lateral jsonb_array_elements_text(coalesce(j.one -> 'after', '[]')) a (name)
    ) e
    left join unnest(p_names) with ordinality n (name, i) on n.name = e.name;
    get diagnostics v_count = row_count;
    if v_count > 1000000 then
        raise exception 'a workflow may have 1,000,000 needs, not %', v_count using errcode = 'invalid_parameter_value',
            hint = 'Put a job between many and many: it needs the first ones, and the others need only it.';
    end if;
    select p_names[j.i], a.name into v_job, v_need
    from jsonb_array_elements(p_jobs) with ordinality j (one, i)
    cross join lateral jsonb_array_elements_text(coalesce(j.one -> 'after', '[]')) a (name)
    where a.name not in (select n from unnest(p_names) n)
    limit 1;
    if v_need is not null then
        raise exception 'job % needs %, which is not in the workflow', v_job, v_need
            using errcode = 'invalid_parameter_value', hint = 'Names are compared exactly.';
    end if;
end
$$;

CREATE FUNCTION pipeline.write_event(v_watch integer, v_op "char", v_keys text[], v_rows integer, v_ms real, v_name text DEFAULT NULL::text, v_payload text DEFAULT NULL::text, v_durable boolean DEFAULT false) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
        declare
            v_gate bigint;
        begin
            -- the id before the gate: whoever may write into the tables of the last turn has an id that the turn's end
            -- saw in progress (see pipeline.rotate); a watched statement has got one by writing its rows
            perform pg_current_xact_id();
            if v_durable then
        v_gate := coalesce(pg_sequence_last_value('pipeline.gate'), 0);
        insert into pipeline.outbox_durable (xid, id, at, watch, op, keys, rows, ms, name, payload) values (pg_current_xact_id(), nextval('pipeline.outbox_id'), clock_timestamp(), v_watch, v_op, v_keys, v_rows, v_ms, v_name, v_payload);
        if v_gate & 4 = 0 and not pg_try_advisory_xact_lock_shared(1885697639, 3)
           or date_part('microseconds', clock_timestamp())::int & 255 = 0
        then
            perform pipeline.ring(v_gate);
        end if;
            else
        v_gate := coalesce(pg_sequence_last_value('pipeline.gate'), 0);

        if v_gate & 3 = 0 then
            insert into pipeline.outbox_0 (xid, id, at, watch, op, keys, rows, ms, name, payload) values (pg_current_xact_id(), nextval('pipeline.outbox_id'), clock_timestamp(), v_watch, v_op, v_keys, v_rows, v_ms, v_name, v_payload);
        elsif v_gate & 3 = 1 then
            insert into pipeline.outbox_1 (xid, id, at, watch, op, keys, rows, ms, name, payload) values (pg_current_xact_id(), nextval('pipeline.outbox_id'), clock_timestamp(), v_watch, v_op, v_keys, v_rows, v_ms, v_name, v_payload);
        end if;
        if v_gate & 4 = 0 and not pg_try_advisory_xact_lock_shared(1885697639, 3)
           or date_part('microseconds', clock_timestamp())::int & 255 = 0
        then
            perform pipeline.ring(v_gate);
        end if;
            end if;
        end
        $$;

CREATE FUNCTION pipeline.write_statements(p_durable boolean, p_values text) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
    -- few statements, because plpgsql prepares each expression anew in every transaction; and a function that tells a
    -- sequence's value, because a query on the sequence costs five times as much
    select format($f$
        v_gate := coalesce(pg_sequence_last_value('pipeline.gate'), 0);
        %s
        if v_gate & 4 = 0 and not pg_try_advisory_xact_lock_shared(1885697639, 3)
           or date_part('microseconds', clock_timestamp())::int & 255 = 0
        then
            perform pipeline.ring(v_gate);
        end if;$f$,
        case when p_durable then pipeline.insert_statement('outbox_durable', p_values) else format($f$
        if v_gate & 3 = 0 then
            %s
        elsif v_gate & 3 = 1 then
            %s
        end if;$f$, pipeline.insert_statement('outbox_0', p_values), pipeline.insert_statement('outbox_1', p_values)) end)
$_$;

CREATE FUNCTION pipeline.write_timings(p_writer text, p_number bigint, p_start double precision, p_series integer[], p_counts bigint[], p_sums double precision[], p_lows double precision[], p_highs double precision[], p_errors bigint[], p_overs bigint[], p_rows bigint[], p_sizes integer[], p_centroids smallint[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if (
        select p_start between 0 and 1e10
            and sum(d.size) = cardinality(p_centroids) and array_position(p_centroids, null) is null
            and bool_and(coalesce(
                d.series is not null and d.count between 1 and 1e12 and d.sum between 0 and 1e24
                and d.low between 0 and d.high and d.high <= 1e12
                and d.errors between 0 and d.count and d.over_count between 0 and d.count
                and d.row_count between -1e15 and 1e15
                and d.size >= 2 and p_centroids[d.upto - d.size + 1] between 0 and 2
                -- of the kinds of pipeline/core/centroids.py the second has a weight of its own for each mean
                and not (p_centroids[d.upto - d.size + 1] = 1 and d.size % 2 = 0)
                and not (p_centroids[d.upto - d.size + 1] = 2 and d.size < 3),
                false))
        from (
            select u.*, sum(u.size) over (order by u.place)::int as upto
            from unnest(p_series, p_counts, p_sums, p_lows, p_highs, p_errors, p_overs, p_rows, p_sizes)
                with ordinality as u (series, count, sum, low, high, errors, over_count, row_count, size, place)
        ) as d
    ) is not true then
        raise exception 'a batch of timings cannot be read' using errcode = 'invalid_parameter_value';
    end if;
    insert into pipeline.timing_batch (writer, number, start, written_at, series, digests)
    select p_writer::uuid, p_number, to_timestamp(p_start), pipeline.now(),
        array_agg(d.series order by d.place),
        array_agg(
            row(
                d.series, d.count, d.sum, d.low, d.high, d.errors, d.over_count, d.row_count,
                p_centroids[d.upto - d.size + 1 : d.upto]
            )::pipeline.timing_digest
            order by d.place
        )
    from (
        select u.*, sum(u.size) over (order by u.place)::int as upto
        from unnest(p_series, p_counts, p_sums, p_lows, p_highs, p_errors, p_overs, p_rows, p_sizes)
            with ordinality as u (series, count, sum, low, high, errors, over_count, row_count, size, place)
    ) as d
    on conflict do nothing;
end
$$;

CREATE TABLE pipeline.activity_minute (
    start timestamp with time zone NOT NULL,
    samples integer NOT NULL,
    active bigint NOT NULL,
    blocked_most integer NOT NULL,
    longest_transaction_seconds double precision,
    longest_idle_seconds double precision
);

COMMENT ON TABLE pipeline.activity_minute IS 'One row a minute: how often sessions were looked at, and what was found.';

COMMENT ON COLUMN pipeline.activity_minute.samples IS 'How many looks there were.';

COMMENT ON COLUMN pipeline.activity_minute.active IS 'How many active sessions they saw together.';

CREATE TABLE pipeline.activity_window (
    start timestamp with time zone NOT NULL,
    queryid bigint NOT NULL,
    wait_type text NOT NULL COLLATE pg_catalog."C",
    wait_event text NOT NULL COLLATE pg_catalog."C",
    samples bigint NOT NULL
);

COMMENT ON TABLE pipeline.activity_window IS 'How many active sessions were seen at what, by minute.';

COMMENT ON COLUMN pipeline.activity_window.queryid IS '0: none was known.';

COMMENT ON COLUMN pipeline.activity_window.wait_type IS 'Empty: it ran. `other`: all beyond the most frequent ones.';

CREATE TABLE pipeline.alert_ack (
    kind text NOT NULL,
    rule text NOT NULL,
    instance text NOT NULL,
    episode bigint NOT NULL,
    made_by text NOT NULL,
    note text DEFAULT ''::text NOT NULL,
    at timestamp with time zone NOT NULL
);

CREATE SEQUENCE pipeline.alert_bell
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE pipeline.alert_builtin (
    name text NOT NULL,
    definition text NOT NULL
);

CREATE TABLE pipeline.alert_channel (
    name text NOT NULL,
    kind text NOT NULL,
    definition text NOT NULL,
    seen_at timestamp with time zone NOT NULL,
    tokens double precision NOT NULL,
    refilled_at timestamp with time zone NOT NULL,
    problem text
);

COMMENT ON TABLE pipeline.alert_channel IS 'Who is told: what a daemon was configured with during the last seven days. Holds no secrets.';

COMMENT ON COLUMN pipeline.alert_channel.definition IS 'What it is told; when that changes, all that was passed over is looked at again.';

COMMENT ON COLUMN pipeline.alert_channel.tokens IS 'How many notifications it may be sent at once; refilled with time.';

COMMENT ON COLUMN pipeline.alert_channel.problem IS 'Why it does not accept, once that has gone on for five minutes or cannot pass.';

CREATE TABLE pipeline.alert_group (
    channel text NOT NULL,
    name text NOT NULL,
    told_at timestamp with time zone,
    open uuid
);

CREATE TABLE pipeline.alert_history (
    id bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    kind text NOT NULL,
    rule text NOT NULL,
    instance text NOT NULL,
    episode bigint NOT NULL,
    before text NOT NULL,
    after text NOT NULL,
    value double precision,
    message text NOT NULL,
    reason text NOT NULL,
    labels jsonb DEFAULT '{}'::jsonb NOT NULL
);

ALTER TABLE pipeline.alert_history ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME pipeline.alert_history_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE pipeline.alert_inbox (
    id bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    raised boolean NOT NULL,
    name text NOT NULL,
    instance text,
    message text DEFAULT ''::text NOT NULL,
    severity text DEFAULT 'warning'::text NOT NULL,
    labels jsonb DEFAULT '{}'::jsonb NOT NULL
);

ALTER TABLE pipeline.alert_inbox ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME pipeline.alert_inbox_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE pipeline.alert_inhibition (
    name text NOT NULL,
    source jsonb NOT NULL,
    target jsonb NOT NULL,
    equal text[] DEFAULT '{}'::text[] NOT NULL,
    origin text DEFAULT 'user'::text NOT NULL,
    enabled boolean DEFAULT true NOT NULL,
    CONSTRAINT alert_inhibition_origin_check CHECK ((origin = ANY (ARRAY['user'::text, 'builtin'::text])))
);

COMMENT ON TABLE pipeline.alert_inhibition IS 'While an alert that matches source fires, those that match target and agree in the labels of equal are not told.';

CREATE SEQUENCE pipeline.alert_losses
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE pipeline.alert_maintenance (
    name text NOT NULL,
    matchers jsonb NOT NULL,
    cron text NOT NULL,
    length interval NOT NULL,
    zone text DEFAULT 'UTC'::text NOT NULL,
    reason text NOT NULL,
    made_by text NOT NULL,
    enabled boolean DEFAULT true NOT NULL,
    CONSTRAINT alert_maintenance_length_check CHECK (((length >= '00:01:00'::interval) AND (length <= '7 days'::interval))),
    CONSTRAINT alert_maintenance_reason_check CHECK ((reason <> ''::text))
);

COMMENT ON TABLE pipeline.alert_maintenance IS 'Windows that come again, in which what matches is not told.';

CREATE TABLE pipeline.alert_note (
    id bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    rule text NOT NULL,
    instance text,
    episode bigint,
    action text NOT NULL,
    made_by text NOT NULL,
    note text DEFAULT ''::text NOT NULL,
    CONSTRAINT alert_note_action_check CHECK ((action = ANY (ARRAY['note'::text, 'ack'::text, 'unack'::text, 'resolve'::text, 'silence'::text, 'unsilence'::text])))
);

COMMENT ON TABLE pipeline.alert_note IS 'What people did and said; kept as long as the history.';

ALTER TABLE pipeline.alert_note ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME pipeline.alert_note_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE pipeline.alert_notification (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    channel text NOT NULL,
    groups text[] NOT NULL,
    reason text NOT NULL,
    body jsonb NOT NULL,
    members jsonb NOT NULL,
    at timestamp with time zone NOT NULL,
    state text DEFAULT 'open'::text NOT NULL,
    ended_at timestamp with time zone,
    job bigint,
    attempts integer DEFAULT 0 NOT NULL,
    problem text,
    CONSTRAINT alert_notification_reason_check CHECK ((reason = ANY (ARRAY['new'::text, 'resolved'::text, 'repeat'::text, 'test'::text]))),
    CONSTRAINT alert_notification_state_check CHECK ((state = ANY (ARRAY['open'::text, 'told'::text, 'failed'::text])))
);

COMMENT ON TABLE pipeline.alert_notification IS 'What is or was sent. The id is the same on every attempt, so that a receiver can tell a repetition.';

COMMENT ON COLUMN pipeline.alert_notification.members IS 'The instances it speaks of, with episode and change; noted in alert_told when it was accepted.';

CREATE TABLE pipeline.alert_progress (
    rule_id bigint NOT NULL,
    judged_until timestamp with time zone NOT NULL,
    problem text,
    judged_at timestamp with time zone,
    took_ms double precision,
    instances integer,
    counters jsonb DEFAULT '{}'::jsonb NOT NULL,
    counted_at timestamp with time zone
);

COMMENT ON COLUMN pipeline.alert_progress.instances IS 'How many instances the last window had.';

COMMENT ON COLUMN pipeline.alert_progress.counters IS 'What the counters of the metric said at counted_at, by instance.';

ALTER TABLE pipeline.alert_rule ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME pipeline.alert_rule_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE pipeline.alert_silence (
    id bigint NOT NULL,
    matchers jsonb NOT NULL,
    starts_at timestamp with time zone NOT NULL,
    ends_at timestamp with time zone NOT NULL,
    reason text NOT NULL,
    made_by text NOT NULL,
    made_at timestamp with time zone NOT NULL,
    ended_by text,
    CONSTRAINT alert_silence_check CHECK ((ends_at > starts_at)),
    CONSTRAINT alert_silence_reason_check CHECK ((reason <> ''::text))
);

ALTER TABLE pipeline.alert_silence ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME pipeline.alert_silence_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE pipeline.alert_state (
    kind text NOT NULL,
    rule text NOT NULL,
    instance text NOT NULL,
    state text NOT NULL,
    bad integer NOT NULL,
    good integer NOT NULL,
    silent integer NOT NULL,
    nodata boolean NOT NULL,
    episode bigint NOT NULL,
    active_at timestamp with time zone,
    fired_at timestamp with time zone,
    resolved_at timestamp with time zone,
    severity text NOT NULL,
    message text NOT NULL,
    value double precision,
    threshold double precision,
    revision text NOT NULL,
    labels jsonb DEFAULT '{}'::jsonb NOT NULL,
    CONSTRAINT alert_state_kind_check CHECK ((kind = ANY (ARRAY['metric'::text, 'raised'::text]))),
    CONSTRAINT alert_state_state_check CHECK ((state = ANY (ARRAY['pending'::text, 'firing'::text, 'resolved'::text])))
)
WITH (fillfactor='60', autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_threshold='1000');

CREATE TABLE pipeline.alert_told (
    channel text NOT NULL,
    kind text NOT NULL,
    rule text NOT NULL,
    instance text NOT NULL,
    episode bigint NOT NULL,
    change text NOT NULL,
    severity text DEFAULT 'warning'::text NOT NULL,
    told_at timestamp with time zone NOT NULL,
    CONSTRAINT alert_told_change_check CHECK ((change = ANY (ARRAY['firing'::text, 'passed'::text])))
);

COMMENT ON COLUMN pipeline.alert_told.change IS 'firing: it was told. passed: this channel is not told of this episode.';

CREATE UNLOGGED TABLE pipeline.cache_0 (
    role oid NOT NULL,
    key bytea NOT NULL,
    version bigint NOT NULL,
    namespace text NOT NULL,
    epoch text NOT NULL,
    snapshot pg_snapshot NOT NULL,
    upper pg_snapshot NOT NULL,
    tags text[] NOT NULL,
    value bytea NOT NULL,
    load_ms real NOT NULL,
    expires_at timestamp with time zone,
    raised_at timestamp with time zone NOT NULL
)
WITH (autovacuum_enabled='false', fillfactor='70', toast_tuple_target='256');
ALTER TABLE ONLY pipeline.cache_0 ALTER COLUMN value SET STORAGE EXTERNAL;

CREATE UNLOGGED TABLE pipeline.cache_1 (
    role oid CONSTRAINT cache_0_role_not_null NOT NULL,
    key bytea CONSTRAINT cache_0_key_not_null NOT NULL,
    version bigint CONSTRAINT cache_0_version_not_null NOT NULL,
    namespace text CONSTRAINT cache_0_namespace_not_null NOT NULL,
    epoch text CONSTRAINT cache_0_epoch_not_null NOT NULL,
    snapshot pg_snapshot CONSTRAINT cache_0_snapshot_not_null NOT NULL,
    upper pg_snapshot CONSTRAINT cache_0_upper_not_null NOT NULL,
    tags text[] CONSTRAINT cache_0_tags_not_null NOT NULL,
    value bytea CONSTRAINT cache_0_value_not_null NOT NULL,
    load_ms real CONSTRAINT cache_0_load_ms_not_null NOT NULL,
    expires_at timestamp with time zone,
    raised_at timestamp with time zone CONSTRAINT cache_0_raised_at_not_null NOT NULL
)
WITH (autovacuum_enabled='false', fillfactor='70', toast_tuple_target='256');
ALTER TABLE ONLY pipeline.cache_1 ALTER COLUMN value SET STORAGE EXTERNAL;

CREATE SEQUENCE pipeline.cache_half
    START WITH 0
    INCREMENT BY 1
    MINVALUE 0
    MAXVALUE 1
    CACHE 1
    CYCLE;

CREATE UNLOGGED TABLE pipeline.cache_lease (
    role oid NOT NULL,
    key bytea NOT NULL,
    owner bigint NOT NULL,
    until timestamp with time zone NOT NULL
);

CREATE TABLE pipeline.consumer (
    name text NOT NULL,
    lineage text NOT NULL,
    seq bigint NOT NULL,
    saved_at timestamp with time zone NOT NULL
);

CREATE TABLE pipeline.former_watch (
    id integer NOT NULL,
    tag text NOT NULL
);

CREATE SEQUENCE pipeline.gate
    START WITH 0
    INCREMENT BY 1
    MINVALUE 0
    MAXVALUE 7
    CACHE 1;

CREATE TABLE pipeline.job_archive (
    id bigint NOT NULL,
    queue text NOT NULL,
    priority smallint NOT NULL,
    task text NOT NULL,
    args jsonb NOT NULL,
    state text NOT NULL,
    attempt integer NOT NULL,
    max_attempts integer NOT NULL,
    created_at timestamp with time zone NOT NULL,
    run_at timestamp with time zone NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone NOT NULL,
    ms double precision,
    worker bigint,
    result jsonb,
    error text,
    key text DEFAULT ''::text NOT NULL,
    lost smallint DEFAULT 0 NOT NULL,
    workflow bigint,
    expires_at timestamp with time zone,
    timeout interval,
    CONSTRAINT job_archive_state_check CHECK ((state = ANY (ARRAY['finished'::text, 'failed'::text, 'cancelled'::text, 'expired'::text])))
)
PARTITION BY RANGE (finished_at);

COMMENT ON TABLE pipeline.job_archive IS 'Jobs that have ended, one partition a day (UTC); see pipeline.maintain_archive().';

COMMENT ON COLUMN pipeline.job_archive.ms IS 'How long the last attempt ran.';

CREATE TABLE pipeline.job_archive_default (
    id bigint CONSTRAINT job_archive_id_not_null NOT NULL,
    queue text CONSTRAINT job_archive_queue_not_null NOT NULL,
    priority smallint CONSTRAINT job_archive_priority_not_null NOT NULL,
    task text CONSTRAINT job_archive_task_not_null NOT NULL,
    args jsonb CONSTRAINT job_archive_args_not_null NOT NULL,
    state text CONSTRAINT job_archive_state_not_null NOT NULL,
    attempt integer CONSTRAINT job_archive_attempt_not_null NOT NULL,
    max_attempts integer CONSTRAINT job_archive_max_attempts_not_null NOT NULL,
    created_at timestamp with time zone CONSTRAINT job_archive_created_at_not_null NOT NULL,
    run_at timestamp with time zone CONSTRAINT job_archive_run_at_not_null NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone CONSTRAINT job_archive_finished_at_not_null NOT NULL,
    ms double precision,
    worker bigint,
    result jsonb,
    error text,
    key text DEFAULT ''::text CONSTRAINT job_archive_key_not_null NOT NULL,
    lost smallint DEFAULT 0 CONSTRAINT job_archive_lost_not_null NOT NULL,
    workflow bigint,
    expires_at timestamp with time zone,
    timeout interval,
    CONSTRAINT job_archive_state_check CHECK ((state = ANY (ARRAY['finished'::text, 'failed'::text, 'cancelled'::text, 'expired'::text])))
);

CREATE TABLE pipeline.job_ended (
    n bigint NOT NULL,
    job bigint NOT NULL,
    workflow bigint NOT NULL,
    state text NOT NULL,
    finished_at timestamp with time zone NOT NULL,
    done_to bigint DEFAULT 0 NOT NULL,
    result jsonb
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='2000', autovacuum_vacuum_cost_delay='0');

COMMENT ON TABLE pipeline.job_ended IS 'Notes that a job of a workflow has ended, until those that need it have been told.';

COMMENT ON COLUMN pipeline.job_ended.done_to IS 'Its dependents up to this id have been told.';

ALTER TABLE pipeline.job_ended ALTER COLUMN n ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME pipeline.job_ended_n_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE pipeline.job ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME pipeline.job_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE pipeline.job_log (
    job bigint NOT NULL,
    attempt integer NOT NULL,
    at timestamp with time zone NOT NULL,
    level text NOT NULL,
    message text NOT NULL,
    CONSTRAINT job_log_level_check CHECK ((level = ANY (ARRAY['debug'::text, 'info'::text, 'warning'::text, 'error'::text])))
)
PARTITION BY RANGE (at);

COMMENT ON TABLE pipeline.job_log IS 'What jobs have logged, one partition a day (UTC); see pipeline.maintain_archive().';

CREATE TABLE pipeline.job_log_default (
    job bigint CONSTRAINT job_log_job_not_null NOT NULL,
    attempt integer CONSTRAINT job_log_attempt_not_null NOT NULL,
    at timestamp with time zone CONSTRAINT job_log_at_not_null NOT NULL,
    level text CONSTRAINT job_log_level_not_null NOT NULL,
    message text CONSTRAINT job_log_message_not_null NOT NULL,
    CONSTRAINT job_log_level_check CHECK ((level = ANY (ARRAY['debug'::text, 'info'::text, 'warning'::text, 'error'::text])))
);

CREATE TABLE pipeline.job_need (
    needed bigint NOT NULL,
    job bigint NOT NULL,
    policy text NOT NULL,
    met boolean DEFAULT false NOT NULL,
    CONSTRAINT job_need_policy_check CHECK ((policy = ANY (ARRAY['cancel'::text, 'ignore'::text, 'hold'::text])))
)
WITH (fillfactor='70', autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_cost_delay='0');

COMMENT ON TABLE pipeline.job_need IS 'Which job needs which; policy: what becomes of it when the needed one does not finish.';

COMMENT ON COLUMN pipeline.job_need.met IS 'The job waits for this one no longer.';

CREATE TABLE pipeline.job_state (
    job bigint NOT NULL,
    done double precision,
    total double precision,
    note text,
    saved jsonb,
    at timestamp with time zone NOT NULL
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_cost_delay='0');

COMMENT ON TABLE pipeline.job_state IS 'Progress of a job and what it has saved, kept over its attempts.';

CREATE TABLE pipeline.key_rule (
    name text NOT NULL,
    concurrency integer,
    rate integer,
    rate_seconds double precision,
    CONSTRAINT key_rule_check CHECK (((rate IS NULL) = (rate_seconds IS NULL))),
    CONSTRAINT key_rule_concurrency_check CHECK ((concurrency >= 1)),
    CONSTRAINT key_rule_name_check CHECK (((name <> ''::text) AND (name !~ ':'::text) AND (length(name) <= 200))),
    CONSTRAINT key_rule_rate_check CHECK ((rate >= 1)),
    CONSTRAINT key_rule_rate_seconds_check CHECK ((rate_seconds > (0)::double precision))
);

COMMENT ON TABLE pipeline.key_rule IS 'Limits of keys: the rule `customer` holds for the keys `customer` and `customer:...`.';

CREATE TABLE pipeline.lane (
    queue text NOT NULL,
    priority smallint NOT NULL,
    key text DEFAULT ''::text NOT NULL,
    last_pos bigint,
    limited boolean DEFAULT false NOT NULL
);

COMMENT ON TABLE pipeline.lane IS 'One row per queue, priority and key; the lock under which jobs are handed out.';

COMMENT ON COLUMN pipeline.lane.last_pos IS 'No position beyond this one is handed out: the queue is paused or drained.';

COMMENT ON COLUMN pipeline.lane.limited IS 'The queue has a limit, which a claim has to check.';

CREATE TABLE pipeline.lane_request (
    queue text NOT NULL,
    priority smallint NOT NULL,
    key text NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='1000');

COMMENT ON TABLE pipeline.lane_request IS 'Lanes that producers missed; a worker makes them.';

CREATE TABLE pipeline.lane_state (
    queue text NOT NULL,
    priority smallint NOT NULL,
    key text NOT NULL,
    n bigint NOT NULL,
    mark bigint DEFAULT 0 NOT NULL,
    settled bigint DEFAULT 0 NOT NULL,
    settling bigint DEFAULT 0 NOT NULL,
    settling_xid xid8,
    oldest_lease bigint DEFAULT 0 NOT NULL,
    swept_at timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    searched_at timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='1000', autovacuum_vacuum_cost_delay='0', autovacuum_vacuum_insert_threshold='-1');

COMMENT ON TABLE pipeline.lane_state IS 'What a lane has handed out; of each lane only the row with the highest n holds.';

COMMENT ON COLUMN pipeline.lane_state.mark IS 'Every position up to this one was handed out.';

COMMENT ON COLUMN pipeline.lane_state.settled IS 'No job can appear at or below this position any more.';

COMMENT ON COLUMN pipeline.lane_state.settling IS 'Becomes settled once every transaction up to settling_xid has ended.';

COMMENT ON COLUMN pipeline.lane_state.oldest_lease IS 'No lease of this lane with a lower id is left.';

CREATE UNLOGGED TABLE pipeline.leader (
    one boolean DEFAULT true NOT NULL,
    generation bigint NOT NULL,
    term bigint NOT NULL,
    pid integer NOT NULL,
    since timestamp with time zone NOT NULL,
    retired_xmax xid8 NOT NULL,
    turned_at timestamp with time zone NOT NULL,
    seq bigint DEFAULT 0 NOT NULL,
    "position" text DEFAULT '1:1:'::text NOT NULL,
    flush_until xid8 DEFAULT '0'::xid8 NOT NULL,
    lineage text,
    CONSTRAINT leader_one_check CHECK (one)
);

CREATE TABLE pipeline.lease (
    id bigint NOT NULL,
    worker bigint NOT NULL,
    queue text NOT NULL,
    priority smallint NOT NULL,
    made_at timestamp with time zone NOT NULL,
    ids bigint[] NOT NULL,
    key text DEFAULT ''::text NOT NULL,
    counted boolean DEFAULT false NOT NULL,
    started bigint[] DEFAULT '{}'::bigint[] NOT NULL
)
WITH (autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='500', autovacuum_vacuum_cost_delay='0');
ALTER TABLE ONLY pipeline.lease ALTER COLUMN ids SET STORAGE EXTERNAL;
ALTER TABLE ONLY pipeline.lease ALTER COLUMN started SET STORAGE EXTERNAL;

COMMENT ON TABLE pipeline.lease IS 'Jobs handed out together to one worker; whoever holds the row may end them.';

COMMENT ON COLUMN pipeline.lease.counted IS 'Limits count the jobs of this lease, so each is taken off when it ends.';

COMMENT ON COLUMN pipeline.lease.started IS 'Jobs once lost with a worker that this one has begun; see pipeline.job.lost.';

ALTER TABLE pipeline.lease ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME pipeline.lease_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE pipeline.limiter (
    name text NOT NULL,
    slot_seconds double precision DEFAULT 1 NOT NULL,
    slot bigint DEFAULT 0 NOT NULL,
    counts integer[] DEFAULT array_fill(0, ARRAY[65]) NOT NULL
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_cost_delay='0');

COMMENT ON TABLE pipeline.limiter IS 'How often something was allowed lately; `queue:`, `key:` and `user:` tell whose it is.';

CREATE TABLE pipeline.migration (
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL,
    ms double precision NOT NULL
);

CREATE UNLOGGED TABLE pipeline.outbox_0 (
    xid xid8 NOT NULL,
    id bigint NOT NULL,
    watch integer,
    op "char" NOT NULL,
    keys text[],
    rows integer NOT NULL,
    ms real,
    at timestamp with time zone NOT NULL,
    name text,
    payload text
)
WITH (autovacuum_enabled='false');

CREATE UNLOGGED TABLE pipeline.outbox_1 (
    xid xid8 CONSTRAINT outbox_0_xid_not_null NOT NULL,
    id bigint CONSTRAINT outbox_0_id_not_null NOT NULL,
    watch integer,
    op "char" CONSTRAINT outbox_0_op_not_null NOT NULL,
    keys text[],
    rows integer CONSTRAINT outbox_0_rows_not_null NOT NULL,
    ms real,
    at timestamp with time zone CONSTRAINT outbox_0_at_not_null NOT NULL,
    name text,
    payload text
)
WITH (autovacuum_enabled='false');

CREATE TABLE pipeline.outbox_durable (
    xid xid8 CONSTRAINT outbox_0_xid_not_null NOT NULL,
    id bigint CONSTRAINT outbox_0_id_not_null NOT NULL,
    watch integer,
    op "char" CONSTRAINT outbox_0_op_not_null NOT NULL,
    keys text[],
    rows integer CONSTRAINT outbox_0_rows_not_null NOT NULL,
    ms real,
    at timestamp with time zone CONSTRAINT outbox_0_at_not_null NOT NULL,
    name text,
    payload text
);

CREATE VIEW pipeline.outbox AS
 SELECT outbox_0.xid,
    outbox_0.id,
    outbox_0.watch,
    outbox_0.op,
    outbox_0.keys,
    outbox_0.rows,
    outbox_0.ms,
    outbox_0.at,
    outbox_0.name,
    outbox_0.payload
   FROM pipeline.outbox_0
UNION ALL
 SELECT outbox_1.xid,
    outbox_1.id,
    outbox_1.watch,
    outbox_1.op,
    outbox_1.keys,
    outbox_1.rows,
    outbox_1.ms,
    outbox_1.at,
    outbox_1.name,
    outbox_1.payload
   FROM pipeline.outbox_1
UNION ALL
 SELECT outbox_durable.xid,
    outbox_durable.id,
    outbox_durable.watch,
    outbox_durable.op,
    outbox_durable.keys,
    outbox_durable.rows,
    outbox_durable.ms,
    outbox_durable.at,
    outbox_durable.name,
    outbox_durable.payload
   FROM pipeline.outbox_durable;

CREATE SEQUENCE pipeline.outbox_id
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 32;

CREATE TABLE pipeline.plan (
    id bigint NOT NULL,
    fingerprint text NOT NULL COLLATE pg_catalog."C",
    shape text NOT NULL COLLATE pg_catalog."C",
    summary text NOT NULL,
    kind text NOT NULL,
    plan json NOT NULL,
    settings jsonb NOT NULL,
    first_at timestamp with time zone NOT NULL,
    last_at timestamp with time zone NOT NULL,
    times integer DEFAULT 1 NOT NULL,
    slowest_ms double precision NOT NULL,
    CONSTRAINT plan_kind_check CHECK ((kind = ANY (ARRAY['generic'::text, 'analyzed'::text])))
);

COMMENT ON TABLE pipeline.plan IS 'Plans of slow queries, without the values of their users.';

COMMENT ON COLUMN pipeline.plan.shape IS 'A hash of nodes, relations, indexes and join order; costs and rows are no part of it.';

COMMENT ON COLUMN pipeline.plan.summary IS 'The shape in one line.';

COMMENT ON COLUMN pipeline.plan.settings IS 'Planner settings that are not the server''s own.';

ALTER TABLE pipeline.plan ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME pipeline.plan_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE pipeline.plan_turn (
    fingerprint text NOT NULL COLLATE pg_catalog."C",
    at timestamp with time zone NOT NULL,
    outcome text NOT NULL,
    reason text DEFAULT ''::text NOT NULL,
    CONSTRAINT plan_turn_outcome_check CHECK ((outcome = ANY (ARRAY['asked'::text, 'planned'::text, 'refused'::text, 'failed'::text])))
);

CREATE TABLE pipeline.query (
    fingerprint text NOT NULL COLLATE pg_catalog."C",
    version integer NOT NULL,
    kind text NOT NULL,
    text text NOT NULL,
    moved_to text COLLATE pg_catalog."C",
    first_at timestamp with time zone NOT NULL,
    last_at timestamp with time zone NOT NULL,
    CONSTRAINT query_check CHECK ((moved_to <> fingerprint)),
    CONSTRAINT query_fingerprint_check CHECK ((fingerprint ~ '^[0-9a-f]{16}$'::text)),
    CONSTRAINT query_kind_check CHECK ((kind = ANY (ARRAY['ok'::text, 'truncated'::text, 'unparsable'::text]))),
    CONSTRAINT query_text_check CHECK ((length(text) <= 10100))
);

COMMENT ON TABLE pipeline.query IS 'Groups of statements that differ in their values only.';

COMMENT ON COLUMN pipeline.query.version IS 'The rules that made the fingerprint.';

COMMENT ON COLUMN pipeline.query.text IS 'What stands for the group; values are $1, $2 and so on. At most 10,000 characters and an ellipsis.';

COMMENT ON COLUMN pipeline.query.moved_to IS 'The fingerprint that the same text has under newer rules.';

COMMENT ON COLUMN pipeline.query.last_at IS 'When it was last seen, to the hour.';

CREATE TABLE pipeline.query_id (
    dbid oid NOT NULL,
    userid oid NOT NULL,
    queryid bigint NOT NULL,
    toplevel boolean NOT NULL,
    fingerprint text NOT NULL COLLATE pg_catalog."C",
    seen_at timestamp with time zone NOT NULL
);

CREATE TABLE pipeline.queue (
    name text NOT NULL,
    concurrency integer,
    rate integer,
    rate_seconds double precision,
    slots integer,
    weight integer DEFAULT 1 NOT NULL,
    state text DEFAULT 'running'::text NOT NULL,
    last_pos bigint,
    changed_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT queue_check CHECK (((rate IS NULL) = (rate_seconds IS NULL))),
    CONSTRAINT queue_concurrency_check CHECK ((concurrency >= 1)),
    CONSTRAINT queue_name_check CHECK (((name <> ''::text) AND (length(name) <= 200))),
    CONSTRAINT queue_rate_check CHECK ((rate >= 1)),
    CONSTRAINT queue_rate_seconds_check CHECK ((rate_seconds > (0)::double precision)),
    CONSTRAINT queue_slots_check CHECK ((slots >= 1)),
    CONSTRAINT queue_state_check CHECK ((state = ANY (ARRAY['running'::text, 'paused'::text, 'draining'::text]))),
    CONSTRAINT queue_weight_check CHECK (((weight >= 1) AND (weight <= 1000)))
);

COMMENT ON TABLE pipeline.queue IS 'Queues that somebody has set something for; all others run without limits.';

COMMENT ON COLUMN pipeline.queue.concurrency IS 'How many of its jobs run at once, over all workers.';

COMMENT ON COLUMN pipeline.queue.slots IS 'How many a worker runs at once, in place of the worker''s own setting.';

COMMENT ON COLUMN pipeline.queue.weight IS 'Its share of a worker whose slots all queues share.';

COMMENT ON COLUMN pipeline.queue.last_pos IS 'As that of its lanes.';

CREATE UNLOGGED TABLE pipeline.ring_0 (
    seq bigint NOT NULL,
    lineage text NOT NULL,
    "position" text,
    payload text NOT NULL
)
WITH (autovacuum_enabled='false');

CREATE UNLOGGED TABLE pipeline.ring_1 (
    seq bigint CONSTRAINT ring_0_seq_not_null NOT NULL,
    lineage text CONSTRAINT ring_0_lineage_not_null NOT NULL,
    "position" text,
    payload text CONSTRAINT ring_0_payload_not_null NOT NULL
)
WITH (autovacuum_enabled='false');

CREATE VIEW pipeline.ring AS
 SELECT ring_0.seq,
    ring_0.lineage,
    ring_0."position",
    ring_0.payload
   FROM pipeline.ring_0
UNION ALL
 SELECT ring_1.seq,
    ring_1.lineage,
    ring_1."position",
    ring_1.payload
   FROM pipeline.ring_1;

CREATE TABLE pipeline.schedule (
    name text NOT NULL,
    task text NOT NULL,
    args jsonb DEFAULT '{}'::jsonb NOT NULL,
    queue text,
    priority smallint,
    cron text NOT NULL,
    timezone text DEFAULT 'UTC'::text NOT NULL,
    missed text DEFAULT 'one'::text NOT NULL,
    max_missed integer DEFAULT 100 NOT NULL,
    paused boolean DEFAULT false NOT NULL,
    source text DEFAULT 'sql'::text NOT NULL,
    until timestamp with time zone NOT NULL,
    next_at timestamp with time zone,
    last_at timestamp with time zone,
    skipped bigint DEFAULT 0 NOT NULL,
    problem text,
    forgotten timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    seen_at timestamp with time zone NOT NULL,
    CONSTRAINT schedule_args_check CHECK ((jsonb_typeof(args) = 'object'::text)),
    CONSTRAINT schedule_cron_check CHECK (((length(cron) >= 1) AND (length(cron) <= 200))),
    CONSTRAINT schedule_max_missed_check CHECK (((max_missed >= 1) AND (max_missed <= 10000))),
    CONSTRAINT schedule_missed_check CHECK ((missed = ANY (ARRAY['skip'::text, 'one'::text, 'all'::text]))),
    CONSTRAINT schedule_name_check CHECK (((name <> ''::text) AND (length(name) <= 200))),
    CONSTRAINT schedule_queue_check CHECK (((queue <> ''::text) AND (length(queue) <= 200))),
    CONSTRAINT schedule_source_check CHECK ((source = ANY (ARRAY['code'::text, 'sql'::text]))),
    CONSTRAINT schedule_task_check CHECK (((task <> ''::text) AND (length(task) <= 500))),
    CONSTRAINT schedule_timezone_check CHECK (((length(timezone) >= 1) AND (length(timezone) <= 100)))
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='500');

COMMENT ON TABLE pipeline.schedule IS 'Jobs that come again and again; change it with the functions, pipeline.schedule() and its kin.';

COMMENT ON COLUMN pipeline.schedule.queue IS 'Null means the queue of the task; so does priority.';

COMMENT ON COLUMN pipeline.schedule.missed IS 'What becomes of runs that no daemon made in time: skip, one (the newest), all.';

COMMENT ON COLUMN pipeline.schedule.max_missed IS 'How many runs `all` makes up at once; the newest.';

COMMENT ON COLUMN pipeline.schedule.until IS 'Every scheduled time up to this one was dealt with. Never moves back.';

COMMENT ON COLUMN pipeline.schedule.next_at IS 'When a daemon looks again: at the next run, soon when null, for another try where there is a problem.';

COMMENT ON COLUMN pipeline.schedule.last_at IS 'The scheduled time of the newest run that was made.';

COMMENT ON COLUMN pipeline.schedule.skipped IS 'How many scheduled times got no run, because of the policy for missed ones.';

COMMENT ON COLUMN pipeline.schedule.problem IS 'Why it cannot run, or null.';

COMMENT ON COLUMN pipeline.schedule.forgotten IS 'Runs up to this scheduled time are no longer known, so they cannot be filled in safely.';

COMMENT ON COLUMN pipeline.schedule.seen_at IS 'When a daemon last had it in its code, where source is `code`.';

CREATE TABLE pipeline.schedule_run (
    name text NOT NULL,
    at timestamp with time zone NOT NULL,
    job bigint,
    made_at timestamp with time zone NOT NULL
)
WITH (autovacuum_vacuum_insert_scale_factor='0.1');

COMMENT ON TABLE pipeline.schedule_run IS 'One row for each run that was made, kept 400 days: no run is made twice.';

COMMENT ON COLUMN pipeline.schedule_run.at IS 'The scheduled time.';

COMMENT ON COLUMN pipeline.schedule_run.job IS 'Null where a unique job stood in its way.';

CREATE TABLE pipeline.setting (
    name text NOT NULL,
    value text NOT NULL
);

COMMENT ON TABLE pipeline.setting IS 'Settings that SQL itself has to know; the daemon''s own are in its configuration.';

CREATE TABLE pipeline.statement_round (
    seconds integer NOT NULL,
    start timestamp with time zone NOT NULL,
    since timestamp with time zone NOT NULL,
    until timestamp with time zone NOT NULL,
    covered double precision NOT NULL,
    deallocs bigint NOT NULL,
    vanished bigint NOT NULL,
    rebased bigint NOT NULL,
    gaps integer NOT NULL,
    rolled boolean DEFAULT false NOT NULL
);

COMMENT ON TABLE pipeline.statement_round IS 'Windows of statement counts: from when to when, and what may be missing.';

COMMENT ON COLUMN pipeline.statement_round.covered IS 'How many seconds of it are known.';

COMMENT ON COLUMN pipeline.statement_round.deallocs IS 'How often pg_stat_statements was full and evicted entries.';

COMMENT ON COLUMN pipeline.statement_round.vanished IS 'Entries that were evicted or reset: what they counted last is lost.';

COMMENT ON COLUMN pipeline.statement_round.rebased IS 'Entries whose counters went back: nothing of them is counted.';

COMMENT ON COLUMN pipeline.statement_round.gaps IS 'Looks that could not be compared with the one before.';

CREATE UNLOGGED TABLE pipeline.statement_seen (
    userid oid NOT NULL,
    queryid bigint NOT NULL,
    toplevel boolean NOT NULL,
    since double precision,
    max_since double precision,
    max_ms double precision NOT NULL,
    counters double precision[] NOT NULL
)
WITH (fillfactor='70', autovacuum_vacuum_scale_factor='0.1');

COMMENT ON TABLE pipeline.statement_seen IS 'The counters that the last look saw.';

CREATE TABLE pipeline.statement_watch (
    one boolean DEFAULT true NOT NULL,
    round bigint DEFAULT 0 NOT NULL,
    store text,
    reset_at double precision,
    read_at double precision,
    deallocs bigint,
    entries integer,
    at timestamp with time zone,
    CONSTRAINT statement_watch_one_check CHECK (one)
);

COMMENT ON TABLE pipeline.statement_watch IS 'The last look at pg_stat_statements, and of which counters it was.';

CREATE TABLE pipeline.statement_window (
    seconds integer NOT NULL,
    start timestamp with time zone NOT NULL,
    queryid bigint NOT NULL,
    userid oid NOT NULL,
    toplevel boolean NOT NULL,
    calls bigint NOT NULL,
    total_ms double precision NOT NULL,
    rows bigint NOT NULL,
    shared_hit bigint NOT NULL,
    shared_read bigint NOT NULL,
    shared_dirtied bigint NOT NULL,
    shared_written bigint NOT NULL,
    temp_read bigint NOT NULL,
    temp_written bigint NOT NULL,
    read_ms double precision NOT NULL,
    write_ms double precision NOT NULL,
    wal_bytes bigint NOT NULL,
    plans bigint NOT NULL,
    plan_ms double precision NOT NULL,
    low_max double precision NOT NULL,
    high_max double precision NOT NULL
);

COMMENT ON TABLE pipeline.statement_window IS 'Executions counted by pg_stat_statements, by window.';

COMMENT ON COLUMN pipeline.statement_window.low_max IS 'The longest call took at least this long, in ms.';

COMMENT ON COLUMN pipeline.statement_window.high_max IS 'And at most this long; where both are equal it is known.';

CREATE TABLE pipeline.task (
    name text NOT NULL,
    queue text,
    priority smallint,
    max_attempts integer,
    timeout interval,
    expires interval,
    key text,
    unique_by text,
    unique_for interval,
    on_clash text,
    sealed boolean DEFAULT false NOT NULL,
    seen_at timestamp with time zone DEFAULT now() NOT NULL,
    redact text[] DEFAULT '{}'::text[] NOT NULL,
    unique_states text[],
    CONSTRAINT task_name_check CHECK (((name <> ''::text) AND (length(name) <= 500)))
);

COMMENT ON TABLE pipeline.task IS 'What programs declare of their tasks; workers write it down, and pipeline.enqueue reads it.';

COMMENT ON COLUMN pipeline.task.key IS 'Template of the key: {name} stands for that argument.';

COMMENT ON COLUMN pipeline.task.unique_by IS 'Template of what makes a job unique, or * for all of its arguments.';

COMMENT ON COLUMN pipeline.task.redact IS 'Paths to arguments that are never shown: password, card.number, or * for all.';

COMMENT ON COLUMN pipeline.task.unique_states IS 'In which states another job like it keeps a new one away; null means all of them.';

CREATE SEQUENCE pipeline.term
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE pipeline.timing_part (
    seconds integer NOT NULL,
    series integer NOT NULL,
    start timestamp with time zone NOT NULL,
    count bigint NOT NULL,
    sum double precision NOT NULL,
    low double precision NOT NULL,
    high double precision NOT NULL,
    errors bigint NOT NULL,
    over_count bigint NOT NULL,
    row_count bigint NOT NULL,
    part smallint NOT NULL,
    centroids smallint[] NOT NULL,
    CONSTRAINT timing_part_count_check CHECK ((count > 0))
)
PARTITION BY LIST (seconds);

COMMENT ON TABLE pipeline.timing_part IS 'Timings in milliseconds: a t-digest of one series in one window; part names the roll.';

COMMENT ON COLUMN pipeline.timing_part.over_count IS 'How many were above the writer''s threshold for slow.';

COMMENT ON COLUMN pipeline.timing_part.row_count IS 'How many rows the queries returned or changed.';

COMMENT ON COLUMN pipeline.timing_part.centroids IS 'Packed by pipeline/core/centroids.py, unpacked by pipeline.timing_parts.';

CREATE TABLE pipeline.timing_1h (
    seconds integer CONSTRAINT timing_part_seconds_not_null NOT NULL,
    series integer CONSTRAINT timing_part_series_not_null NOT NULL,
    start timestamp with time zone CONSTRAINT timing_part_start_not_null NOT NULL,
    count bigint CONSTRAINT timing_part_count_not_null NOT NULL,
    sum double precision CONSTRAINT timing_part_sum_not_null NOT NULL,
    low double precision CONSTRAINT timing_part_low_not_null NOT NULL,
    high double precision CONSTRAINT timing_part_high_not_null NOT NULL,
    errors bigint CONSTRAINT timing_part_errors_not_null NOT NULL,
    over_count bigint CONSTRAINT timing_part_over_count_not_null NOT NULL,
    row_count bigint CONSTRAINT timing_part_row_count_not_null NOT NULL,
    part smallint CONSTRAINT timing_part_part_not_null NOT NULL,
    centroids smallint[] CONSTRAINT timing_part_centroids_not_null NOT NULL,
    CONSTRAINT timing_part_count_check CHECK ((count > 0))
);

CREATE TABLE pipeline.timing_1m (
    seconds integer CONSTRAINT timing_part_seconds_not_null NOT NULL,
    series integer CONSTRAINT timing_part_series_not_null NOT NULL,
    start timestamp with time zone CONSTRAINT timing_part_start_not_null NOT NULL,
    count bigint CONSTRAINT timing_part_count_not_null NOT NULL,
    sum double precision CONSTRAINT timing_part_sum_not_null NOT NULL,
    low double precision CONSTRAINT timing_part_low_not_null NOT NULL,
    high double precision CONSTRAINT timing_part_high_not_null NOT NULL,
    errors bigint CONSTRAINT timing_part_errors_not_null NOT NULL,
    over_count bigint CONSTRAINT timing_part_over_count_not_null NOT NULL,
    row_count bigint CONSTRAINT timing_part_row_count_not_null NOT NULL,
    part smallint CONSTRAINT timing_part_part_not_null NOT NULL,
    centroids smallint[] CONSTRAINT timing_part_centroids_not_null NOT NULL,
    CONSTRAINT timing_part_count_check CHECK ((count > 0))
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='5000');

CREATE TABLE pipeline.timing_24h (
    seconds integer CONSTRAINT timing_part_seconds_not_null NOT NULL,
    series integer CONSTRAINT timing_part_series_not_null NOT NULL,
    start timestamp with time zone CONSTRAINT timing_part_start_not_null NOT NULL,
    count bigint CONSTRAINT timing_part_count_not_null NOT NULL,
    sum double precision CONSTRAINT timing_part_sum_not_null NOT NULL,
    low double precision CONSTRAINT timing_part_low_not_null NOT NULL,
    high double precision CONSTRAINT timing_part_high_not_null NOT NULL,
    errors bigint CONSTRAINT timing_part_errors_not_null NOT NULL,
    over_count bigint CONSTRAINT timing_part_over_count_not_null NOT NULL,
    row_count bigint CONSTRAINT timing_part_row_count_not_null NOT NULL,
    part smallint CONSTRAINT timing_part_part_not_null NOT NULL,
    centroids smallint[] CONSTRAINT timing_part_centroids_not_null NOT NULL,
    CONSTRAINT timing_part_count_check CHECK ((count > 0))
);

CREATE TABLE pipeline.timing_5m (
    seconds integer CONSTRAINT timing_part_seconds_not_null NOT NULL,
    series integer CONSTRAINT timing_part_series_not_null NOT NULL,
    start timestamp with time zone CONSTRAINT timing_part_start_not_null NOT NULL,
    count bigint CONSTRAINT timing_part_count_not_null NOT NULL,
    sum double precision CONSTRAINT timing_part_sum_not_null NOT NULL,
    low double precision CONSTRAINT timing_part_low_not_null NOT NULL,
    high double precision CONSTRAINT timing_part_high_not_null NOT NULL,
    errors bigint CONSTRAINT timing_part_errors_not_null NOT NULL,
    over_count bigint CONSTRAINT timing_part_over_count_not_null NOT NULL,
    row_count bigint CONSTRAINT timing_part_row_count_not_null NOT NULL,
    part smallint CONSTRAINT timing_part_part_not_null NOT NULL,
    centroids smallint[] CONSTRAINT timing_part_centroids_not_null NOT NULL,
    CONSTRAINT timing_part_count_check CHECK ((count > 0))
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='5000');

CREATE TABLE pipeline.timing_batch (
    writer uuid NOT NULL,
    number bigint NOT NULL,
    start timestamp with time zone NOT NULL,
    written_at timestamp with time zone NOT NULL,
    rolled boolean DEFAULT false NOT NULL,
    series integer[] NOT NULL,
    digests pipeline.timing_digest[] NOT NULL
);
ALTER TABLE ONLY pipeline.timing_batch ALTER COLUMN series SET STORAGE EXTERNAL;
ALTER TABLE ONLY pipeline.timing_batch ALTER COLUMN digests SET STORAGE EXTERNAL;

COMMENT ON TABLE pipeline.timing_batch IS 'What one process saw in one window of five seconds.';

COMMENT ON COLUMN pipeline.timing_batch.number IS 'The writer''s own number of this batch: writing it again changes nothing.';

COMMENT ON COLUMN pipeline.timing_batch.series IS 'The series of the digests, in the same order.';

CREATE SEQUENCE pipeline.timing_dropped
    START WITH 0
    INCREMENT BY 1
    MINVALUE 0
    NO MAXVALUE
    CACHE 1;

CREATE SEQUENCE pipeline.timing_gate
    START WITH 0
    INCREMENT BY 1
    MINVALUE 0
    MAXVALUE 3
    CACHE 1;

CREATE UNLOGGED TABLE pipeline.timing_inbox_0 (
    xid xid8 NOT NULL,
    at timestamp with time zone NOT NULL,
    name text NOT NULL,
    labels jsonb,
    ms double precision[] NOT NULL
)
WITH (autovacuum_enabled='false');

CREATE UNLOGGED TABLE pipeline.timing_inbox_1 (
    xid xid8 CONSTRAINT timing_inbox_0_xid_not_null NOT NULL,
    at timestamp with time zone CONSTRAINT timing_inbox_0_at_not_null NOT NULL,
    name text CONSTRAINT timing_inbox_0_name_not_null NOT NULL,
    labels jsonb,
    ms double precision[] CONSTRAINT timing_inbox_0_ms_not_null NOT NULL
)
WITH (autovacuum_enabled='false');

CREATE VIEW pipeline.timing_inbox AS
 SELECT timing_inbox_0.xid,
    timing_inbox_0.at,
    timing_inbox_0.name,
    timing_inbox_0.labels,
    timing_inbox_0.ms
   FROM pipeline.timing_inbox_0
UNION ALL
 SELECT timing_inbox_1.xid,
    timing_inbox_1.at,
    timing_inbox_1.name,
    timing_inbox_1.labels,
    timing_inbox_1.ms
   FROM pipeline.timing_inbox_1;

CREATE UNLOGGED TABLE pipeline.timing_inbox_place (
    one boolean DEFAULT true NOT NULL,
    "position" pg_snapshot NOT NULL,
    CONSTRAINT timing_inbox_place_one_check CHECK (one)
);

COMMENT ON TABLE pipeline.timing_inbox_place IS 'What was taken out of the inbox: everything that was committed then.';

CREATE SEQUENCE pipeline.timing_rejected
    START WITH 0
    INCREMENT BY 1
    MINVALUE 0
    NO MAXVALUE
    CACHE 1;

CREATE TABLE pipeline.timing_roll (
    seconds integer NOT NULL,
    start timestamp with time zone NOT NULL,
    part smallint NOT NULL,
    made_at timestamp with time zone NOT NULL,
    rolled boolean DEFAULT false NOT NULL
);

COMMENT ON TABLE pipeline.timing_roll IS 'One window of one level, rolled up; once more for what came late.';

CREATE TABLE pipeline.timing_series (
    id integer NOT NULL,
    series text NOT NULL COLLATE pg_catalog."C",
    source text NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C",
    labels jsonb NOT NULL,
    first_at timestamp with time zone NOT NULL,
    last_at timestamp with time zone NOT NULL,
    CONSTRAINT timing_series_labels_check CHECK ((jsonb_typeof(labels) = 'object'::text))
);

COMMENT ON TABLE pipeline.timing_series IS 'What is timed: a source, a name and labels.';

COMMENT ON COLUMN pipeline.timing_series.series IS 'name{key="value"}, labels sorted; the name alone where there are none.';

COMMENT ON COLUMN pipeline.timing_series.last_at IS 'When it was last written to, up to an hour behind.';

ALTER TABLE pipeline.timing_series ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME pipeline.timing_series_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

ALTER TABLE pipeline.watch ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME pipeline.watch_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE pipeline.worker (
    id bigint NOT NULL,
    name text NOT NULL,
    queues text[] NOT NULL,
    started_at timestamp with time zone NOT NULL,
    seen_at timestamp with time zone NOT NULL
)
WITH (fillfactor='20', autovacuum_vacuum_scale_factor='0', autovacuum_vacuum_threshold='200');

COMMENT ON TABLE pipeline.worker IS 'Processes that run jobs; seen_at is their heartbeat.';

ALTER TABLE pipeline.worker ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME pipeline.worker_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE pipeline.workflow (
    id bigint NOT NULL,
    name text NOT NULL,
    state text DEFAULT 'running'::text NOT NULL,
    on_failure text NOT NULL,
    total integer NOT NULL,
    pending integer NOT NULL,
    failed integer DEFAULT 0 NOT NULL,
    created_at timestamp with time zone NOT NULL,
    finished_at timestamp with time zone,
    CONSTRAINT workflow_name_check CHECK ((length(name) <= 200)),
    CONSTRAINT workflow_on_failure_check CHECK ((on_failure = ANY (ARRAY['cancel'::text, 'ignore'::text, 'hold'::text]))),
    CONSTRAINT workflow_state_check CHECK ((state = ANY (ARRAY['running'::text, 'cancelling'::text, 'finished'::text, 'failed'::text, 'cancelled'::text])))
)
WITH (fillfactor='50', autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_cost_delay='0');

COMMENT ON TABLE pipeline.workflow IS 'Jobs that belong together; some wait for others.';

COMMENT ON COLUMN pipeline.workflow.pending IS 'How many of its jobs have not ended.';

COMMENT ON COLUMN pipeline.workflow.failed IS 'How many of its jobs have ended otherwise than finished.';

ALTER TABLE pipeline.workflow ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME pipeline.workflow_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE pipeline.workflow_job (
    id bigint NOT NULL,
    workflow bigint NOT NULL,
    name text NOT NULL,
    task text NOT NULL,
    dependents integer DEFAULT 0 NOT NULL,
    state text,
    finished_at timestamp with time zone,
    result jsonb,
    CONSTRAINT workflow_job_state_check CHECK ((state = ANY (ARRAY['finished'::text, 'failed'::text, 'cancelled'::text, 'expired'::text])))
)
WITH (fillfactor='70', autovacuum_vacuum_scale_factor='0.05', autovacuum_vacuum_cost_delay='0');

COMMENT ON TABLE pipeline.workflow_job IS 'The jobs of workflows, by their names there; state is null until one has ended.';

COMMENT ON COLUMN pipeline.workflow_job.result IS 'Kept only where other jobs need it.';

ALTER TABLE ONLY pipeline.job_archive ATTACH PARTITION pipeline.job_archive_default DEFAULT;

ALTER TABLE ONLY pipeline.job_log ATTACH PARTITION pipeline.job_log_default DEFAULT;

ALTER TABLE ONLY pipeline.timing_part ATTACH PARTITION pipeline.timing_1h FOR VALUES IN (3600);

ALTER TABLE ONLY pipeline.timing_part ATTACH PARTITION pipeline.timing_1m FOR VALUES IN (60);

ALTER TABLE ONLY pipeline.timing_part ATTACH PARTITION pipeline.timing_24h FOR VALUES IN (86400);

ALTER TABLE ONLY pipeline.timing_part ATTACH PARTITION pipeline.timing_5m FOR VALUES IN (300);

ALTER TABLE ONLY pipeline.activity_minute
    ADD CONSTRAINT activity_minute_pkey PRIMARY KEY (start);

ALTER TABLE ONLY pipeline.activity_window
    ADD CONSTRAINT activity_window_pkey PRIMARY KEY (start, wait_type, wait_event, queryid);

ALTER TABLE ONLY pipeline.alert_ack
    ADD CONSTRAINT alert_ack_pkey PRIMARY KEY (kind, rule, instance);

ALTER TABLE ONLY pipeline.alert_builtin
    ADD CONSTRAINT alert_builtin_pkey PRIMARY KEY (name);

ALTER TABLE ONLY pipeline.alert_channel
    ADD CONSTRAINT alert_channel_pkey PRIMARY KEY (name);

ALTER TABLE ONLY pipeline.alert_group
    ADD CONSTRAINT alert_group_pkey PRIMARY KEY (channel, name);

ALTER TABLE ONLY pipeline.alert_history
    ADD CONSTRAINT alert_history_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pipeline.alert_inbox
    ADD CONSTRAINT alert_inbox_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pipeline.alert_inhibition
    ADD CONSTRAINT alert_inhibition_pkey PRIMARY KEY (name);

ALTER TABLE ONLY pipeline.alert_maintenance
    ADD CONSTRAINT alert_maintenance_pkey PRIMARY KEY (name);

ALTER TABLE ONLY pipeline.alert_note
    ADD CONSTRAINT alert_note_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pipeline.alert_notification
    ADD CONSTRAINT alert_notification_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pipeline.alert_progress
    ADD CONSTRAINT alert_progress_pkey PRIMARY KEY (rule_id);

ALTER TABLE ONLY pipeline.alert_rule
    ADD CONSTRAINT alert_rule_name_key UNIQUE (name);

ALTER TABLE ONLY pipeline.alert_rule
    ADD CONSTRAINT alert_rule_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pipeline.alert_silence
    ADD CONSTRAINT alert_silence_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pipeline.alert_state
    ADD CONSTRAINT alert_state_pkey PRIMARY KEY (kind, rule, instance);

ALTER TABLE ONLY pipeline.alert_told
    ADD CONSTRAINT alert_told_pkey PRIMARY KEY (channel, kind, rule, instance);

ALTER TABLE ONLY pipeline.cache_0
    ADD CONSTRAINT cache_0_pkey PRIMARY KEY (role, key);

ALTER TABLE ONLY pipeline.cache_1
    ADD CONSTRAINT cache_1_pkey PRIMARY KEY (role, key);

ALTER TABLE ONLY pipeline.cache_lease
    ADD CONSTRAINT cache_lease_pkey PRIMARY KEY (role, key);

ALTER TABLE ONLY pipeline.consumer
    ADD CONSTRAINT consumer_pkey PRIMARY KEY (name);

ALTER TABLE ONLY pipeline.former_watch
    ADD CONSTRAINT former_watch_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pipeline.job_ended
    ADD CONSTRAINT job_ended_pkey PRIMARY KEY (n);

ALTER TABLE ONLY pipeline.job_need
    ADD CONSTRAINT job_need_pkey PRIMARY KEY (needed, job);

ALTER TABLE ONLY pipeline.job
    ADD CONSTRAINT job_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pipeline.job_state
    ADD CONSTRAINT job_state_pkey PRIMARY KEY (job);

ALTER TABLE ONLY pipeline.job_unique
    ADD CONSTRAINT job_unique_pkey PRIMARY KEY (key);

ALTER TABLE ONLY pipeline.key_rule
    ADD CONSTRAINT key_rule_pkey PRIMARY KEY (name);

ALTER TABLE ONLY pipeline.lane
    ADD CONSTRAINT lane_pkey PRIMARY KEY (queue, priority, key);

ALTER TABLE ONLY pipeline.lane_state
    ADD CONSTRAINT lane_state_pkey PRIMARY KEY (queue, priority, key, n);

ALTER TABLE ONLY pipeline.leader
    ADD CONSTRAINT leader_pkey PRIMARY KEY (one);

ALTER TABLE ONLY pipeline.lease
    ADD CONSTRAINT lease_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pipeline.limiter
    ADD CONSTRAINT limiter_pkey PRIMARY KEY (name);

ALTER TABLE ONLY pipeline.migration
    ADD CONSTRAINT migration_pkey PRIMARY KEY (name);

ALTER TABLE ONLY pipeline.plan
    ADD CONSTRAINT plan_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pipeline.plan_turn
    ADD CONSTRAINT plan_turn_pkey PRIMARY KEY (fingerprint);

ALTER TABLE ONLY pipeline.query_id
    ADD CONSTRAINT query_id_pkey PRIMARY KEY (dbid, userid, queryid, toplevel);

ALTER TABLE ONLY pipeline.query
    ADD CONSTRAINT query_pkey PRIMARY KEY (fingerprint);

ALTER TABLE ONLY pipeline.queue
    ADD CONSTRAINT queue_pkey PRIMARY KEY (name);

ALTER TABLE ONLY pipeline.ring_0
    ADD CONSTRAINT ring_0_pkey PRIMARY KEY (seq);

ALTER TABLE ONLY pipeline.ring_1
    ADD CONSTRAINT ring_1_pkey PRIMARY KEY (seq);

ALTER TABLE ONLY pipeline.schedule
    ADD CONSTRAINT schedule_pkey PRIMARY KEY (name);

ALTER TABLE ONLY pipeline.schedule_run
    ADD CONSTRAINT schedule_run_pkey PRIMARY KEY (name, at);

ALTER TABLE ONLY pipeline.setting
    ADD CONSTRAINT setting_pkey PRIMARY KEY (name);

ALTER TABLE ONLY pipeline.slo
    ADD CONSTRAINT slo_pkey PRIMARY KEY (name);

ALTER TABLE ONLY pipeline.statement_round
    ADD CONSTRAINT statement_round_pkey PRIMARY KEY (seconds, start);

ALTER TABLE ONLY pipeline.statement_seen
    ADD CONSTRAINT statement_seen_pkey PRIMARY KEY (queryid, userid, toplevel);

ALTER TABLE ONLY pipeline.statement_watch
    ADD CONSTRAINT statement_watch_pkey PRIMARY KEY (one);

ALTER TABLE ONLY pipeline.statement_window
    ADD CONSTRAINT statement_window_pkey PRIMARY KEY (seconds, start, queryid, userid, toplevel);

ALTER TABLE ONLY pipeline.task
    ADD CONSTRAINT task_pkey PRIMARY KEY (name);

ALTER TABLE ONLY pipeline.timing_batch
    ADD CONSTRAINT timing_batch_pkey PRIMARY KEY (writer, number);

ALTER TABLE ONLY pipeline.timing_inbox_place
    ADD CONSTRAINT timing_inbox_place_pkey PRIMARY KEY (one);

ALTER TABLE ONLY pipeline.timing_roll
    ADD CONSTRAINT timing_roll_pkey PRIMARY KEY (seconds, start, part);

ALTER TABLE ONLY pipeline.timing_series
    ADD CONSTRAINT timing_series_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pipeline.timing_series
    ADD CONSTRAINT timing_series_series_key UNIQUE (series);

ALTER TABLE ONLY pipeline.watch
    ADD CONSTRAINT watch_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pipeline.watch
    ADD CONSTRAINT watch_relation_key UNIQUE (relation);

ALTER TABLE ONLY pipeline.worker
    ADD CONSTRAINT worker_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pipeline.workflow_job
    ADD CONSTRAINT workflow_job_pkey PRIMARY KEY (id);

ALTER TABLE ONLY pipeline.workflow
    ADD CONSTRAINT workflow_pkey PRIMARY KEY (id);

CREATE INDEX alert_group_open ON pipeline.alert_group USING btree (open) WHERE (open IS NOT NULL);

CREATE INDEX alert_history_at ON pipeline.alert_history USING btree (at);

CREATE INDEX alert_note_at ON pipeline.alert_note USING btree (at);

CREATE INDEX alert_notification_at ON pipeline.alert_notification USING btree (at);

CREATE INDEX alert_notification_open ON pipeline.alert_notification USING btree (channel) WHERE (state = 'open'::text);

CREATE INDEX alert_silence_end ON pipeline.alert_silence USING btree (ends_at);

CREATE INDEX job_archive_failed ON ONLY pipeline.job_archive USING btree (finished_at) WHERE (state = 'failed'::text);

CREATE INDEX job_archive_default_finished_at_idx ON pipeline.job_archive_default USING btree (finished_at) WHERE (state = 'failed'::text);

CREATE INDEX job_archive_id ON ONLY pipeline.job_archive USING brin (id) WITH (pages_per_range='16', autosummarize='on');

CREATE INDEX job_archive_default_id_idx ON pipeline.job_archive_default USING brin (id) WITH (pages_per_range='16', autosummarize='on');

CREATE INDEX job_delayed ON pipeline.job USING btree (queue, run_at) WHERE ((pos IS NULL) AND (needs = 0));

CREATE INDEX job_ended_job ON pipeline.job_ended USING btree (job);

CREATE INDEX job_expiring ON pipeline.job USING btree (expires_at) WHERE (expires_at IS NOT NULL);

CREATE INDEX job_log_job ON ONLY pipeline.job_log USING btree (job, at);

CREATE INDEX job_log_default_job_at_idx ON pipeline.job_log_default USING btree (job, at);

CREATE INDEX job_need_job ON pipeline.job_need USING btree (job);

CREATE INDEX job_ready ON pipeline.job USING btree (queue, priority, key, pos) WHERE (pos IS NOT NULL);

CREATE INDEX lane_turns ON pipeline.lane USING btree (queue, priority, key) WHERE ((key <> ''::text) OR limited);

CREATE INDEX lease_key ON pipeline.lease USING btree (key) WHERE (key <> ''::text);

CREATE INDEX lease_lane ON pipeline.lease USING btree (queue, priority, key, id);

CREATE INDEX outbox_0_xid ON pipeline.outbox_0 USING btree (xid, id);

CREATE INDEX outbox_1_xid ON pipeline.outbox_1 USING btree (xid, id);

CREATE INDEX outbox_durable_xid ON pipeline.outbox_durable USING btree (xid, id);

CREATE INDEX plan_fingerprint ON pipeline.plan USING btree (fingerprint, first_at DESC);

CREATE INDEX plan_first ON pipeline.plan USING btree (first_at);

CREATE INDEX schedule_run_made ON pipeline.schedule_run USING brin (made_at) WITH (autosummarize='on');

CREATE INDEX statement_round_unrolled ON pipeline.statement_round USING btree (seconds, start) WHERE (NOT rolled);

CREATE INDEX timing_part_window ON ONLY pipeline.timing_part USING btree (start, series);

CREATE INDEX timing_1h_start_series_idx ON pipeline.timing_1h USING btree (start, series);

CREATE INDEX timing_1m_start_series_idx ON pipeline.timing_1m USING btree (start, series);

CREATE INDEX timing_24h_start_series_idx ON pipeline.timing_24h USING btree (start, series);

CREATE INDEX timing_5m_start_series_idx ON pipeline.timing_5m USING btree (start, series);

CREATE INDEX timing_batch_open ON pipeline.timing_batch USING btree (start) WHERE (NOT rolled);

CREATE INDEX timing_batch_start ON pipeline.timing_batch USING btree (start);

CREATE INDEX timing_inbox_0_xid ON pipeline.timing_inbox_0 USING btree (xid);

CREATE INDEX timing_inbox_1_xid ON pipeline.timing_inbox_1 USING btree (xid);

CREATE INDEX timing_roll_open ON pipeline.timing_roll USING btree (seconds, start) WHERE (NOT rolled);

CREATE INDEX timing_series_name ON pipeline.timing_series USING btree (name);

CREATE INDEX workflow_cancelling ON pipeline.workflow USING btree (id) WHERE (state = 'cancelling'::text);

CREATE INDEX workflow_finished ON pipeline.workflow USING btree (finished_at) WHERE (finished_at IS NOT NULL);

CREATE INDEX workflow_job_workflow ON pipeline.workflow_job USING btree (workflow, id);

ALTER INDEX pipeline.job_archive_failed ATTACH PARTITION pipeline.job_archive_default_finished_at_idx;

ALTER INDEX pipeline.job_archive_id ATTACH PARTITION pipeline.job_archive_default_id_idx;

ALTER INDEX pipeline.job_log_job ATTACH PARTITION pipeline.job_log_default_job_at_idx;

ALTER INDEX pipeline.timing_part_window ATTACH PARTITION pipeline.timing_1h_start_series_idx;

ALTER INDEX pipeline.timing_part_window ATTACH PARTITION pipeline.timing_1m_start_series_idx;

ALTER INDEX pipeline.timing_part_window ATTACH PARTITION pipeline.timing_24h_start_series_idx;

ALTER INDEX pipeline.timing_part_window ATTACH PARTITION pipeline.timing_5m_start_series_idx;

CREATE TRIGGER check_alert_rule BEFORE INSERT OR UPDATE ON pipeline.alert_rule FOR EACH ROW EXECUTE FUNCTION pipeline.check_alert_rule();

CREATE TRIGGER check_matchers BEFORE INSERT OR UPDATE ON pipeline.alert_inhibition FOR EACH ROW EXECUTE FUNCTION pipeline.check_alert_matchers('source', 'target');

CREATE TRIGGER check_matchers BEFORE INSERT OR UPDATE ON pipeline.alert_maintenance FOR EACH ROW EXECUTE FUNCTION pipeline.check_alert_matchers('matchers');

CREATE TRIGGER check_matchers BEFORE INSERT OR UPDATE ON pipeline.alert_silence FOR EACH ROW EXECUTE FUNCTION pipeline.check_alert_matchers('matchers');

CREATE TRIGGER note_ended AFTER INSERT ON pipeline.job_archive FOR EACH ROW WHEN ((new.workflow IS NOT NULL)) EXECUTE FUNCTION pipeline.note_ended();

CREATE TRIGGER restart_alert_rule AFTER UPDATE OF enabled ON pipeline.alert_rule FOR EACH ROW WHEN ((new.enabled AND (NOT old.enabled))) EXECUTE FUNCTION pipeline.start_alert_rule();

CREATE TRIGGER start_alert_rule AFTER INSERT ON pipeline.alert_rule FOR EACH ROW EXECUTE FUNCTION pipeline.start_alert_rule();

ALTER TABLE ONLY pipeline.alert_group
    ADD CONSTRAINT alert_group_channel_fkey FOREIGN KEY (channel) REFERENCES pipeline.alert_channel(name) ON DELETE CASCADE;

ALTER TABLE ONLY pipeline.alert_group
    ADD CONSTRAINT alert_group_open_fkey FOREIGN KEY (open) REFERENCES pipeline.alert_notification(id) ON DELETE SET NULL;

ALTER TABLE ONLY pipeline.alert_notification
    ADD CONSTRAINT alert_notification_channel_fkey FOREIGN KEY (channel) REFERENCES pipeline.alert_channel(name) ON DELETE CASCADE;

ALTER TABLE ONLY pipeline.alert_progress
    ADD CONSTRAINT alert_progress_rule_id_fkey FOREIGN KEY (rule_id) REFERENCES pipeline.alert_rule(id) ON DELETE CASCADE;

ALTER TABLE ONLY pipeline.alert_told
    ADD CONSTRAINT alert_told_channel_fkey FOREIGN KEY (channel) REFERENCES pipeline.alert_channel(name) ON DELETE CASCADE;

REVOKE ALL ON FUNCTION pipeline.add_job(p_task text, p_args jsonb, p_queue text, p_priority integer, p_run_at timestamp with time zone, p_max_attempts integer, p_timeout interval, p_key text, p_expires_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.add_jobs(task text, args jsonb[], queue text, priority integer, run_at timestamp with time zone, max_attempts integer, timeout interval, expires_at timestamp with time zone, keys text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.adopt_lanes() FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.alert_ack(rule text, instance text, note text, by text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.alert_channels() FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.alert_digests(p_pattern text, p_labels jsonb, p_sources text[], p_from timestamp with time zone, p_seconds integer, p_digests boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.alert_log(over interval, rule text, most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.alert_note(rule text, note text, instance text, by text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.alert_notifications(over interval, channel text, most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.alert_resolve(rule text, instance text, note text, by text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.alert_rule_check(name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.alert_rule_set(name text, metric text, series text, threshold double precision, comparison text, over interval, need integer, keep_firing integer, hold_max integer, min_samples integer, severity text, message text, enabled boolean, query text, labels jsonb, sources text[], clear_threshold double precision, runbook text, max_instances integer, origin text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.alert_rules() FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.alert_series(p_pattern text, p_labels jsonb, p_sources text[], p_from timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.alert_test(channel text, by text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.alert_timings(p_pattern text, p_labels jsonb, p_sources text[], p_from timestamp with time zone, p_seconds integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.alert_unack(rule text, instance text, by text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.alerts_alive(p_rule text, p_instance text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.allowance(p_name text, p_rate integer, p_seconds double precision) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.assert_leader(p_term bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.blocked(most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.broadcast(p_term bigint, p_lineage text, p_first bigint, p_payloads text[], p_notices text[], p_position text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.cache_half_bytes() FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.cache_open_half() FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.cache_role() FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.cache_sharer() FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.cancel_dependents(p_needed bigint[], p_job bigint[], p_what text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.cancel_jobs(ids bigint[], reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.cancel_workflow(id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.cancel_workflows(p_limit integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.charge(p_name text, p_count bigint, p_seconds double precision) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.check_alert_matchers() FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.check_alert_rule() FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.check_columns(p_relation oid, p_columns text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.check_cron(p_cron text, p_timezone text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.check_matchers(p_matchers jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.check_watchable(p_name text, p_relation oid) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.check_watches() FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.check_workflow(p_name text, p_jobs jsonb, p_on_failure text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.claim(p_queue text, p_free bigint, p_limit bigint, p_worker bigint, p_after text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.claimable(p_queue text, p_priority smallint, p_key text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.close_if_full(p_gate bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.columns_numbered(p_relation oid, p_columns text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.count_ended(p_notes bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.covers(p_one pg_snapshot, p_other pg_snapshot) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.create_watch_functions(p_watch pipeline.watch) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.create_watch_triggers(p_watch pipeline.watch, p_relation oid, p_enable boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.drain_queue(name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.drain_timings() FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.drop_spare_triggers(p_watch pipeline.watch) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.drop_watch(p_watch pipeline.watch) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.end_jobs(p_ids bigint[], p_state text, p_error text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.enqueue_notification(p_id uuid, p_channel text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.enqueue_run(p_name text, p_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.enqueue_unique(p_task text, p_args jsonb, p_queue text, p_priority integer, p_run_at timestamp with time zone, p_max_attempts integer, p_timeout interval, p_key text, p_expires_at timestamp with time zone, p_unique text, p_for interval, p_states text[], p_on_clash text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.enqueue_with(task text, args jsonb, queue text, priority integer, run_at timestamp with time zone, max_attempts integer, timeout interval, key text, expires_at timestamp with time zone, unique_key text, unique_for interval, unique_states text[], on_clash text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.expire_jobs(p_limit integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.fingerprint_now(p_fingerprint text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.finish_turn(p_term bigint, p_was_full boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.first_statement(p_watch pipeline.watch, p_op text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.follow_alert_rules(p_rules jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.follow_ddl() FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.follow_table(p_watch pipeline.watch) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.foreign_cast(p_relation oid) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.gauge_timing_inbox(p_full bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.hold_queue(p_name text, p_state text, p_last_pos bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.insert_statement(p_table text, p_values text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.is_held(p_job pipeline.job) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.is_in(p_unique pipeline.job_unique, p_job pipeline.job, p_states text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.is_read_unlike(p_watch pipeline.watch) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.keep_timings(p_name text, p_ms double precision[], p_labels jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.key_expression(p_relation oid, p_alias text, p_columns text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.lock_gently(p_relation oid, p_mode text, p_patience interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.lock_workflows(p_ids bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.maintain_archive(keep interval, ahead integer, OUT made integer, OUT dropped integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.maintain_days(p_table text, p_column text, p_keep interval, p_ahead integer, OUT made integer, OUT dropped integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.make_runs(p_name text, p_times timestamp with time zone[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.mend_triggers(p_watch pipeline.watch) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.merge_args(p_old jsonb, p_new jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.most_bytes() FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.needs_check(p_watch pipeline.watch) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.note_ended() FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.pause_queue(name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.pause_schedule(name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.prune_lanes(p_idle interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.prune_workflows(p_keep interval, p_limit integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.reads_unlike(p_watch pipeline.watch) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.refuse_alert(p_name text, p_labels jsonb, p_severity text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.refuse_cycle(p_names text[], p_job integer[], p_need integer[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.refuse_job(p_task text, p_args jsonb, p_queue text, p_priority integer, p_max_attempts integer, p_timeout interval, p_key text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.refuse_unique(p_task text, p_unique text, p_for interval, p_states text[], p_on_clash text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.reject_timing(p_asker text, p_name text, p_labels jsonb, p_ms double precision, p_many bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.rejoin_workflow(p_ids bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.relation_named(p_name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.relations_of(p_relation oid) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.release_dependents(p_needed bigint[], p_job bigint[], p_what text[], OUT released integer, OUT queues text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.render_key(p_template text, p_args jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.request_lane(p_queue text, p_priority integer, p_key text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.resolve_workflows(p_above bigint, p_notes integer, p_edges integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.resume_queue(name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.resume_schedule(name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.retry_jobs(ids bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.retry_workflow(id bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.ring(p_gate bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.ring_workers(p_queue text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.rotate(p_term bigint, p_seq bigint, p_position pg_snapshot, p_turn_bytes bigint, p_turn_after interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.row_expression(p_alias text, p_columns text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.rule_definition(p_rule pipeline.alert_rule) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.run_schedule(name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.running(p_queue text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.scan_statement(p_watch pipeline.watch, p_op text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.schedule(name text, cron text, task text, args jsonb, timezone text, missed text, queue text, priority integer, max_missed integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.seed_alert_rules() FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.set_key_rule(name text, concurrency integer, rate integer, per interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.set_queue(name text, concurrency integer, rate integer, per interval, slots integer, weight integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.silence(matchers jsonb, reason text, duration interval, until timestamp with time zone, by text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.silence_bell(p_silent boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.slo_burn(p_slo pipeline.slo, p_over interval, OUT burn double precision, OUT events double precision) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.slo_events(p_slo pipeline.slo, p_over interval, OUT events double precision, OUT bad double precision) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.slo_set(name text, series text, objective double precision, latency_ms double precision, labels jsonb, min_events integer, period interval, enabled boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.slot_now(p_newest bigint, p_seconds double precision) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.slot_of(p_newest bigint, p_place integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.spare_triggers(p_watch pipeline.watch) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.start_alert_rule() FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.statement_counters() FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.statement_source() FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.statement_store() FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.statement_texts(p_queryids bigint[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.sweep(p_queue text, p_limit bigint, p_worker bigint, p_every double precision, p_search_every double precision) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.tag_of(p_relation oid) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.take_over() FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.tell_ddl() FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.tell_schema_changes() FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.text_expression(p_relation oid, p_alias text, p_column text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.text_of(p_queryid bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.timing_check_labels(p_labels jsonb, p_asker text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.timing_find(p_series text, p_labels jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.timing_in_batches(p_ids integer[], p_from timestamp with time zone, p_to timestamp with time zone, p_open boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.timing_level(p_over interval, OUT level integer, OUT edge integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.timing_parts(p_ids integer[], p_from timestamp with time zone, p_to timestamp with time zone, p_level integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.timing_points(p_ids integer[], p_groups integer[], p_since timestamp with time zone, p_step integer, p_level integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.timing_since(p_over interval, p_asker text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.timing_span(p_ids integer[], p_from timestamp with time zone, p_to timestamp with time zone, p_level integer, p_edge integer, p_digests boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.timing_step(p_over interval, p_step interval, OUT step integer, OUT level integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.timing_stored(p_ids integer[], p_from timestamp with time zone, p_to timestamp with time zone, p_level integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.timing_summary(p_ids integer[], p_groups integer[], p_from timestamp with time zone, p_to timestamp with time zone, p_level integer, p_edge integer, p_quantiles double precision[], p_step interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.timing_top(p_over interval, p_by text, p_most integer, p_per text, p_source text, p_name text, p_labels jsonb, p_asker text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.triggers_of(p_watch pipeline.watch, p_relation oid) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.turn(p_term bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.turn_timing_inbox(p_turn_bytes bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.turns(p_queue text, p_after text, p_room bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.unschedule(name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.unsilence(id bigint, by text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.unwatch(relation text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.wake_alerts(p_name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.wake_workers(p_queue text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.watch(relation text, keys text[], columns text[], timing boolean, durable boolean, replicated boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.workflow_edges(p_jobs jsonb, p_names text[], p_on_failure text) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.write_event(v_watch integer, v_op "char", v_keys text[], v_rows integer, v_ms real, v_name text, v_payload text, v_durable boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION pipeline.write_statements(p_durable boolean, p_values text) FROM PUBLIC;

GRANT SELECT ON TABLE pipeline.leader TO PUBLIC;

GRANT SELECT ON TABLE pipeline.ring TO PUBLIC;
