-- Rules are checked when they are written; each refusal says what is wrong and what would be right.
create or replace function pipeline.check_alert_rule() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_seconds double precision := extract(epoch from new.over);
    v_unknown text;
begin
    if coalesce(new.name, '') = '' or length(new.name) > 200 then
        raise exception 'an alert rule needs a name of 1 to 200 characters' using errcode = '22023';
    end if;
    if coalesce(new.metric, '') not in (
        'latency.p50', 'latency.p95', 'latency.p99', 'latency.mean', 'latency.max', 'latency.count', 'latency.error_rate'
    ) then
        raise exception 'alert rule %: there is no metric %', new.name, coalesce(new.metric, 'null')
            using errcode = '22023',
                hint = 'Metrics are latency.p50, .p95, .p99, .mean, .max (milliseconds), .count and .error_rate (0 to 1).';
    end if;
    if coalesce(new.series, '') = '' then
        raise exception 'alert rule %: it names no series', new.name
            using errcode = '22023', hint = 'Name a series such as orders.insert, or a pattern such as orders.%.';
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
    if new.threshold is null or new.threshold in ('NaN', 'Infinity', '-Infinity') then
        raise exception 'alert rule %: the threshold must be a number, not %', new.name, coalesce(new.threshold::text, 'null')
            using errcode = '22023';
    end if;
    if new.metric = 'latency.error_rate' and not new.threshold between 0 and 1 then
        raise exception 'alert rule %: an error rate lies between 0 and 1, the threshold is %', new.name, new.threshold
            using errcode = '22023', hint = 'Five per cent is 0.05.';
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
    if coalesce(new.severity, '') not in ('info', 'warning', 'critical') then
        raise exception 'alert rule %: there is no severity %', new.name, coalesce(new.severity, 'null')
            using errcode = '22023', hint = 'Severities are info, warning and critical.';
    end if;
    select m[1] into v_unknown
    from regexp_matches(new.message, '\{([^{}]*)\}', 'g') as m
    where m[1] not in ('rule', 'metric', 'series', 'value', 'threshold')
    limit 1;
    if new.message is null or v_unknown is not null then
        raise exception 'alert rule %: its message has the unknown placeholder {%}', new.name, coalesce(v_unknown, '')
            using errcode = '22023', hint = 'Placeholders are {rule}, {metric}, {series}, {value} and {threshold}.';
    end if;
    -- What the rule measures; instances of another revision no longer speak for it.
    new.revision := md5(concat_ws('|', new.metric, new.series, v_seconds, new.comparison, new.threshold));
    return new;
end
$$;
revoke execute on function pipeline.check_alert_rule() from public;

-- A new rule, and one that is enabled again, is judged from now on, never on the past.
create or replace function pipeline.start_alert_rule() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into pipeline.alert_progress as p (rule_id, judged_until) values (new.id, pipeline.now())
    on conflict (rule_id) do update set judged_until = greatest(p.judged_until, excluded.judged_until);
    return null;
end
$$;
revoke execute on function pipeline.start_alert_rule() from public;

create or replace trigger check_alert_rule before insert or update on pipeline.alert_rule
    for each row execute function pipeline.check_alert_rule();
create or replace trigger start_alert_rule after insert on pipeline.alert_rule
    for each row execute function pipeline.start_alert_rule();
create or replace trigger restart_alert_rule after update of enabled on pipeline.alert_rule
    for each row when (new.enabled and not old.enabled) execute function pipeline.start_alert_rule();

-- Makes a rule, or changes the one of this name, in one statement; returns its id. Needs rights on the table.
create or replace function pipeline.alert_rule_set(
    name text,
    metric text,
    series text,
    threshold double precision,
    comparison text default '>',
    over interval default '1 minute',
    need int default 3,
    keep_firing int default 2,
    hold_max int default 3,
    min_samples int default 1,
    severity text default 'warning',
    message text default '{metric} of {series} is {value}, the threshold is {threshold}',
    enabled bool default true
) returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$
    insert into pipeline.alert_rule as r (
        name, metric, series, threshold, comparison, over, need, keep_firing, hold_max, min_samples, severity, message, enabled
    )
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
    on conflict (name) do update set
        metric = excluded.metric, series = excluded.series, threshold = excluded.threshold,
        comparison = excluded.comparison, over = excluded.over, need = excluded.need,
        keep_firing = excluded.keep_firing, hold_max = excluded.hold_max, min_samples = excluded.min_samples,
        severity = excluded.severity, message = excluded.message, enabled = excluded.enabled
    returning r.id
$$;
revoke execute on function pipeline.alert_rule_set(
    text, text, text, double precision, text, interval, int, int, int, int, text, text, bool
) from public;
