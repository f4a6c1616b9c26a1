-- Rules are checked when they are written; each refusal says what is wrong and what would be right.
create or replace function pipeline.check_alert_rule() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
$$;
revoke execute on function pipeline.check_alert_rule() from public;

-- Why a rule's query cannot be run, as far as can be told without running it; null when nothing is wrong. A cursor takes one
-- statement only, and no statement that writes; nothing is fetched from it. It is seen as the evaluator sees it: one
-- row of JSON each, the schema public first, and with the rights of whoever asks.
create or replace function pipeline.query_problem(p_query text) returns text
language plpgsql
set search_path = pg_catalog, public, pg_temp
as $$
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
$$;

-- A new rule, and one that is enabled again, is judged from now on, never on the past.
create or replace function pipeline.start_alert_rule() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    insert into pipeline.alert_progress as p (rule_id, judged_until) values (new.id, pipeline.now())
    on conflict (rule_id) do update set
        judged_until = greatest(p.judged_until, excluded.judged_until), problem = null, counters = '{}', counted_at = null;
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
    metric text default null,
    series text default null,
    threshold double precision default null,
    comparison text default '>',
    over interval default '1 minute',
    need int default 3,
    keep_firing int default 2,
    hold_max int default 3,
    min_samples int default 1,
    severity text default 'warning',
    message text default '{rule}: {instance} is {value}, the threshold is {threshold}',
    enabled bool default true,
    query text default null,
    labels jsonb default '{}',
    sources text[] default null,
    clear_threshold double precision default null,
    runbook text default null,
    max_instances int default 500,
    origin text default 'user'
) returns bigint
language sql
set search_path = pg_catalog, pg_temp
as $$
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
$$;
revoke execute on function pipeline.alert_rule_set(
    text, text, text, double precision, text, interval, int, int, int, int, text, text, bool, text, jsonb, text[],
    double precision, text, int, text
) from public;

-- What is wrong with a rule now; null when nothing is. A query is looked at, not run.
create or replace function pipeline.alert_rule_check(name text) returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
revoke execute on function pipeline.alert_rule_check(text) from public;

-- Every rule and how it fares. health: ok, error (problem says why), new (not judged yet) or off.
create or replace function pipeline.alert_rules()
returns table (
    name text, origin text, metric text, severity text, health text, problem text, instances int,
    judged_until timestamptz, took_ms double precision
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
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
revoke execute on function pipeline.alert_rules() from public;
