-- Alerts: rules, what SQL itself raises, where each instance stands, what happened, and what was told to whom.
create table pipeline.alert_rule (
    id bigint generated always as identity primary key,
    name text not null unique,
    metric text not null,
    series text not null,
    over interval not null default '1 minute',
    comparison text not null default '>',
    threshold double precision not null,
    need int not null default 3,
    keep_firing int not null default 2,
    hold_max int not null default 3,
    min_samples int not null default 1,
    severity text not null default 'warning',
    message text not null default '{metric} of {series} is {value}, the threshold is {threshold}',
    enabled bool not null default true,
    revision text not null,
    constraint alert_rule_name check (name <> '' and length(name) <= 200),
    constraint alert_rule_metric check (
        metric in (
            'latency.p50', 'latency.p95', 'latency.p99', 'latency.mean', 'latency.max', 'latency.count',
            'latency.error_rate'
        )
    ),
    constraint alert_rule_series check (series <> ''),
    constraint alert_rule_over check (over >= interval '5 seconds' and over <= interval '1 day'),
    constraint alert_rule_comparison check (comparison in ('>', '>=', '<', '<=')),
    constraint alert_rule_threshold check (threshold > '-Infinity' and threshold < 'Infinity'),
    constraint alert_rule_counts check (need between 1 and 1000 and keep_firing between 1 and 1000 and hold_max between 1 and 1000),
    constraint alert_rule_min_samples check (min_samples >= 1),
    constraint alert_rule_severity check (severity in ('info', 'warning', 'critical'))
);
comment on table pipeline.alert_rule is 'Rules on timings. Insert, update and delete as you like: a change counts from the next window.';
comment on column pipeline.alert_rule.series is 'A series; with % in it a LIKE pattern, and each series that matches is an instance of its own.';
comment on column pipeline.alert_rule.over is 'The length of a window: 5 s to 1 day; below a minute a multiple of 5 s, else whole minutes.';
comment on column pipeline.alert_rule.need is 'How many bad windows in succession make it fire.';
comment on column pipeline.alert_rule.keep_firing is 'How many good windows in succession resolve it.';
comment on column pipeline.alert_rule.hold_max is 'How many windows without data a streak survives; a firing alert then says that it has no data.';

-- How far each rule has been judged. The row is the lock under which one evaluator judges.
create table pipeline.alert_progress (
    rule_id bigint primary key references pipeline.alert_rule on delete cascade,
    judged_until timestamptz not null,
    problem text
);

-- What raise_alert and resolve_alert said, until an evaluator has taken it in. Rows are only added and removed,
-- so writers never wait for each other.
create table pipeline.alert_inbox (
    id bigint generated always as identity primary key,
    at timestamptz not null,
    raised bool not null,
    name text not null,
    instance text not null,
    message text not null default '',
    severity text not null default 'warning'
);

-- Every instance that is not inactive.
create table pipeline.alert_state (
    kind text not null check (kind in ('metric', 'raised')),
    rule text not null,
    instance text not null,
    state text not null check (state in ('pending', 'firing', 'resolved')),
    bad int not null,
    good int not null,
    silent int not null,
    nodata bool not null,
    episode bigint not null,
    active_at timestamptz,
    fired_at timestamptz,
    resolved_at timestamptz,
    severity text not null,
    message text not null,
    value double precision,
    threshold double precision,
    revision text not null,
    primary key (kind, rule, instance)
);

create table pipeline.alert_history (
    id bigint generated always as identity primary key,
    at timestamptz not null,
    kind text not null,
    rule text not null,
    instance text not null,
    episode bigint not null,
    before text not null,
    after text not null,
    value double precision,
    message text not null,
    reason text not null
);
create index alert_history_at on pipeline.alert_history (at);

-- What has to be told: each firing and each resolving once, written with the state.
create table pipeline.alert_notice (
    id uuid primary key default gen_random_uuid(),
    place bigint generated always as identity unique,
    at timestamptz not null,
    kind text not null,
    rule text not null,
    instance text not null,
    episode bigint not null,
    change text not null check (change in ('firing', 'resolved')),
    severity text not null,
    message text not null,
    value double precision,
    threshold double precision,
    unique (kind, rule, instance, episode, change)
);

create table pipeline.alert_sink (
    name text primary key,
    seen_at timestamptz not null
);
comment on table pipeline.alert_sink is 'Who is told: what a daemon was started with during the last seven days.';

create table pipeline.alert_delivery (
    notice uuid not null references pipeline.alert_notice on delete cascade,
    sink text not null references pipeline.alert_sink on delete cascade,
    attempts int not null default 0,
    next_try_at timestamptz not null,
    delivered_at timestamptz,
    problem text,
    primary key (notice, sink)
);
create index alert_delivery_open on pipeline.alert_delivery (sink, next_try_at) where delivered_at is null;
comment on column pipeline.alert_delivery.delivered_at is 'Set only after the sink has accepted it.';
