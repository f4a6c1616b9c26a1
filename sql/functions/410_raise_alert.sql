-- Alerts that SQL itself raises. They take effect if and only if the transaction commits, and wait for nobody.
--
-- Cost: one insert into a table that is only added to, and one event; the checks stand in the statement itself, because a
-- call of a function of their own would cost as much as the insert.

-- Raise the alert `name` with these labels: it fires at once, and stays until resolve_alert. Raising it again while
-- it fires changes its message and severity, and is not told a second time.
create or replace function pipeline.raise_alert(
    name text, message text, severity text default 'warning', labels jsonb default '{}'
) returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if coalesce(raise_alert.severity, '') not in ('info', 'warning', 'critical') then
        raise exception 'raise_alert: there is no severity %', coalesce(raise_alert.severity, 'null')
            using errcode = '22023', hint = 'Severities are info, warning and critical.';
    end if;
    if (raise_alert.name <> '' and length(raise_alert.name) <= 200) is not true
        or (raise_alert.labels <> '{}' and (
            jsonb_typeof(raise_alert.labels) <> 'object' or length(raise_alert.labels::text) > 1000
        ))
    then
        perform pipeline.refuse_alert(raise_alert.name, raise_alert.labels);
    end if;
    insert into pipeline.alert_inbox (at, raised, name, labels, message, severity)
    values (
        pipeline.now(), true, raise_alert.name, coalesce(raise_alert.labels, '{}'),
        left(coalesce(raise_alert.message, ''), 4000), raise_alert.severity
    );
    perform pipeline.emit('pipeline.alert', raise_alert.name);
end
$$;

-- Resolve the alert `name` with these labels; nothing happens when it does not fire.
create or replace function pipeline.resolve_alert(name text, labels jsonb default '{}') returns void
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if (resolve_alert.name <> '' and length(resolve_alert.name) <= 200) is not true
        or (resolve_alert.labels <> '{}' and (
            jsonb_typeof(resolve_alert.labels) <> 'object' or length(resolve_alert.labels::text) > 1000
        ))
    then
        perform pipeline.refuse_alert(resolve_alert.name, resolve_alert.labels);
    end if;
    insert into pipeline.alert_inbox (at, raised, name, labels)
    values (pipeline.now(), false, resolve_alert.name, coalesce(resolve_alert.labels, '{}'));
    perform pipeline.emit('pipeline.alert', resolve_alert.name);
end
$$;

-- Says why an alert cannot be raised or resolved under this name and these labels.
drop function if exists pipeline.check_alert_name(text, jsonb);
create or replace function pipeline.refuse_alert(p_name text, p_labels jsonb) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
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
revoke execute on function pipeline.refuse_alert(text, jsonb) from public;

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
