-- What stands in front of telling: silences, maintenance windows, inhibitions. What they match is decided by
-- pipeline/core/alert_match.py; here they are only checked when they are written.

-- What is wrong with matchers, or null. pipeline/core/alert_match.py says the same.
create or replace function pipeline.check_matchers(p_matchers jsonb) returns text
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
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
revoke execute on function pipeline.check_matchers(jsonb) from public;

create or replace function pipeline.check_alert_matchers() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
revoke execute on function pipeline.check_alert_matchers() from public;

create or replace trigger check_matchers before insert or update on pipeline.alert_silence
    for each row execute function pipeline.check_alert_matchers('matchers');
create or replace trigger check_matchers before insert or update on pipeline.alert_maintenance
    for each row execute function pipeline.check_alert_matchers('matchers');
create or replace trigger check_matchers before insert or update on pipeline.alert_inhibition
    for each row execute function pipeline.check_alert_matchers('source', 'target');

-- Do not tell what matches, until a time or for a while; returns the number of the silence. An end and a reason are needed.
create or replace function pipeline.silence(
    matchers jsonb, reason text, duration interval default null, until timestamptz default null, by text default session_user
) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
revoke execute on function pipeline.silence(jsonb, text, interval, timestamptz, text) from public;

-- End a silence now; whether there was one.
create or replace function pipeline.unsilence(id bigint, by text default session_user) returns bool
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
revoke execute on function pipeline.unsilence(bigint, text) from public;
