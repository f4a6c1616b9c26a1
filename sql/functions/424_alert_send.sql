-- Notifications become jobs of our own queue.

-- Adds the job that sends a notification; jobs of one channel run one at a time, so that a channel that hangs takes one place.
create or replace function pipeline.enqueue_notification(p_id uuid, p_channel text) returns bigint
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
    select pipeline.enqueue(
        'pgreflex.notify', jsonb_build_object('notification', p_id, 'channel', p_channel), queue => 'pgreflex.alerts',
        max_attempts => 10000, key => 'pgreflex.notify:' || p_channel
    )
$$;
revoke execute on function pipeline.enqueue_notification(uuid, text) from public;

-- Tell a channel something, as it would be told of an alert: through the queue, with everything on the way. Returns the id of the
-- notification; pipeline.alert_notifications() tells what becomes of it.
create or replace function pipeline.alert_test(channel text, by text default session_user) returns uuid
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
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
revoke execute on function pipeline.alert_test(text, text) from public;

-- The channels that daemons were configured with during the last seven days, and how each fares.
create or replace function pipeline.alert_channels()
returns table (channel text, kind text, open bigint, told_at timestamptz, problem text, tokens double precision, seen_at timestamptz)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
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
revoke execute on function pipeline.alert_channels() from public;

-- What was sent or is being sent, the newest first. state: open, told, or failed.
create or replace function pipeline.alert_notifications(over interval default '1 day', channel text default null, most int default 200)
returns table (
    id uuid, channel text, at timestamptz, state text, reason text, groups text[], alerts bigint, attempts int, ended_at timestamptz,
    problem text, job bigint
)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select n.id, n.channel, n.at, n.state, n.reason, n.groups, jsonb_array_length(n.members)::bigint, n.attempts, n.ended_at, n.problem, n.job
    from pipeline.alert_notification as n
    where n.at > pipeline.now() - alert_notifications.over
      and (alert_notifications.channel is null or n.channel = alert_notifications.channel)
    order by n.at desc
    limit alert_notifications.most
$$;
revoke execute on function pipeline.alert_notifications(interval, text, int) from public;
