-- What people do with an alert: acknowledge, end, note. Nothing here is open to everybody; grant what you want to grant.

-- The instances of a rule that are alive: all of them, or the one that is named. An error when there is none.
create or replace function pipeline.alerts_alive(p_rule text, p_instance text)
returns table (kind text, instance text, episode bigint)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
revoke execute on function pipeline.alerts_alive(text, text) from public;

-- Say that somebody is at it: these episodes are not told again until they are resolved. Returns how many they are.
create or replace function pipeline.alert_ack(
    rule text, instance text default null, note text default '', by text default session_user
) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
revoke execute on function pipeline.alert_ack(text, text, text, text) from public;

-- Take an acknowledgement back; returns how many there were.
create or replace function pipeline.alert_unack(rule text, instance text default null, by text default session_user) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
revoke execute on function pipeline.alert_unack(text, text, text) from public;

-- End these episodes by hand; returns how many they are. What is still bad in the next window begins another episode.
create or replace function pipeline.alert_resolve(
    rule text, instance text default null, note text default '', by text default session_user
) returns bigint
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
revoke execute on function pipeline.alert_resolve(text, text, text, text) from public;

-- Write down what was found out about an alert, also long after it ended.
create or replace function pipeline.alert_note(rule text, note text, instance text default null, by text default session_user)
returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
revoke execute on function pipeline.alert_note(text, text, text, text) from public;

-- What happened to alerts and what people did and said, the newest first.
create or replace function pipeline.alert_log(over interval default '1 day', rule text default null, most int default 200)
returns table (
    at timestamptz, rule text, instance text, episode bigint, what text, value double precision, message text, by text
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
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
revoke execute on function pipeline.alert_log(interval, text, int) from public;
