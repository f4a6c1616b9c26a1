-- Delivery: channels, what each was told, what holds telling back, and what people say of alerts.
--
-- Telling follows states. `alert_told` holds, for each channel and instance, the last thing that the channel is known to have
-- accepted; what differs from `alert_state` is untold. A round gathers the untold of a channel into notifications, one for each
-- group, and enqueues a job for each in the same transaction. Only the job's success changes `alert_told`, so nothing is told
-- without being noted, or noted without being told; while a notification is open its group waits, and then tells the rest.
create table pipeline.alert_channel (
    name text primary key,
    kind text not null,
    definition text not null,
    seen_at timestamptz not null,
    tokens double precision not null,
    refilled_at timestamptz not null,
    problem text
);
comment on column pipeline.alert_channel.problem is 'Why it does not accept, once that has gone on for five minutes or cannot pass.';
comment on table pipeline.alert_channel is 'Who is told: what a daemon was configured with during the last seven days. Holds no secrets.';
comment on column pipeline.alert_channel.definition is 'What it is told; when that changes, all that was passed over is looked at again.';
comment on column pipeline.alert_channel.tokens is 'How many notifications it may be sent at once; refilled with time.';

create table pipeline.alert_notification (
    id uuid primary key default gen_random_uuid(),
    channel text not null references pipeline.alert_channel on delete cascade,
    groups text[] not null,
    reason text not null check (reason in ('new', 'resolved', 'repeat', 'test')),
    body jsonb not null,
    members jsonb not null,
    at timestamptz not null,
    state text not null default 'open' check (state in ('open', 'told', 'failed')),
    ended_at timestamptz,
    job bigint,
    attempts int not null default 0,
    problem text
);
create index alert_notification_open on pipeline.alert_notification (channel) where state = 'open';
create index alert_notification_at on pipeline.alert_notification (at);
comment on table pipeline.alert_notification is 'What is or was sent. The id is the same on every attempt, so that a receiver can tell a repetition.';
comment on column pipeline.alert_notification.members is 'The instances it speaks of, with episode and change; noted in alert_told when it was accepted.';

create table pipeline.alert_group (
    channel text not null references pipeline.alert_channel on delete cascade,
    name text not null,
    told_at timestamptz,
    open uuid references pipeline.alert_notification on delete set null,
    primary key (channel, name)
);
create index alert_group_open on pipeline.alert_group (open) where open is not null;

create table pipeline.alert_told (
    channel text not null references pipeline.alert_channel on delete cascade,
    kind text not null,
    rule text not null,
    instance text not null,
    episode bigint not null,
    change text not null check (change in ('firing', 'passed')),
    severity text not null default 'warning',
    told_at timestamptz not null,
    primary key (channel, kind, rule, instance)
);
comment on column pipeline.alert_told.change is 'firing: it was told. passed: this channel is not told of this episode.';

create table pipeline.alert_silence (
    id bigint generated always as identity primary key,
    matchers jsonb not null,
    starts_at timestamptz not null,
    ends_at timestamptz not null check (ends_at > starts_at),
    reason text not null check (reason <> ''),
    made_by text not null,
    made_at timestamptz not null,
    ended_by text
);
create index alert_silence_end on pipeline.alert_silence (ends_at);

create table pipeline.alert_maintenance (
    name text primary key,
    matchers jsonb not null,
    cron text not null,
    length interval not null check (length between interval '1 minute' and interval '7 days'),
    zone text not null default 'UTC',
    reason text not null check (reason <> ''),
    made_by text not null,
    enabled bool not null default true
);
comment on table pipeline.alert_maintenance is 'Windows that come again, in which what matches is not told.';

create table pipeline.alert_inhibition (
    name text primary key,
    source jsonb not null,
    target jsonb not null,
    equal text[] not null default '{}',
    origin text not null default 'user' check (origin in ('user', 'builtin')),
    enabled bool not null default true
);
comment on table pipeline.alert_inhibition is 'While an alert that matches source fires, those that match target and agree in the labels of equal are not told.';

-- Acknowledged episodes. The alert goes on; it is not told again until it is resolved.
create table pipeline.alert_ack (
    kind text not null,
    rule text not null,
    instance text not null,
    episode bigint not null,
    made_by text not null,
    note text not null default '',
    at timestamptz not null,
    primary key (kind, rule, instance)
);

create table pipeline.alert_note (
    id bigint generated always as identity primary key,
    at timestamptz not null,
    rule text not null,
    instance text,
    episode bigint,
    action text not null check (action in ('note', 'ack', 'unack', 'resolve', 'silence', 'unsilence')),
    made_by text not null,
    note text not null default ''
);
create index alert_note_at on pipeline.alert_note (at);
comment on table pipeline.alert_note is 'What people did and said; kept as long as the history.';

-- What fires is told anew by construction.
drop table pipeline.alert_delivery;
drop table pipeline.alert_sink;
drop table pipeline.alert_notice;
