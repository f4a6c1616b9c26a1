-- Alerts that SQL itself raises. They take effect if and only if the transaction commits, and wait for nobody.
--
-- Cost: one insert into a table that is only added to; the checks stand in the statement itself, because a call of a function
-- of their own would cost half as much as the insert. An event wakes the evaluator, but ten a second are enough: whoever finds
-- that one was sent within the last tenth (a sequence says when, outside any transaction) leaves it, because the
-- event costs twice the insert. What is then committed late, or after a rollback of the sender, is found by the look that the
-- evaluator takes every half second anyway.

-- Raise the alert `name` with these labels: it fires at once, and stays until resolve_alert. Raising it again while
-- it fires changes its message and severity, and is not told a second time.
create or replace function pipeline.raise_alert(
    name text, message text, severity text default 'warning', labels jsonb default '{}'
) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
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

-- Resolve the alert `name` with these labels; nothing happens when it does not fire.
create or replace function pipeline.resolve_alert(name text, labels jsonb default '{}') returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
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

create or replace function pipeline.wake_alerts(p_name text) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform setval('pipeline.alert_bell', (date_part('epoch', clock_timestamp()) * 1000)::bigint);
    perform pipeline.write_event(null, 'e', null, 1, null, 'pipeline.alert', p_name);
end
$$;
revoke execute on function pipeline.wake_alerts(text) from public;

-- Says why an alert cannot be raised or resolved under this name and these labels.
drop function if exists pipeline.check_alert_name(text, jsonb);
drop function if exists pipeline.refuse_alert(text, jsonb);
create or replace function pipeline.refuse_alert(p_name text, p_labels jsonb, p_severity text default 'info') returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
revoke execute on function pipeline.refuse_alert(text, jsonb, text) from public;

-- The alerts that are pending or firing, and those resolved within the last 15 minutes; the gravest first.
create or replace function pipeline.alerts()
returns table (
    rule text, instance text, state text, severity text, since timestamptz, message text,
    value double precision, threshold double precision, nodata bool
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
    select s.rule, s.instance, s.state, s.severity,
        case s.state when 'firing' then s.fired_at when 'resolved' then s.resolved_at else s.active_at end,
        s.message, s.value, s.threshold, s.nodata
    from pipeline.alert_state as s
    where s.state <> 'resolved' or s.resolved_at > pipeline.now() - interval '15 minutes'
    order by array_position(array['firing', 'pending', 'resolved'], s.state),
        array_position(array['critical', 'warning', 'info'], s.severity), s.rule, s.instance
$$;
