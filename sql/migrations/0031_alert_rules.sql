-- Alert rules: any metric, queries, objectives, where a rule comes from, and how it fares.
drop function if exists pipeline.alert_rule_set(
    text, text, text, double precision, text, interval, int, int, int, int, text, text, bool
);

alter table pipeline.alert_rule
    add column origin text not null default 'user',
    add column sources text[],
    add column labels jsonb not null default '{}',
    add column query text,
    add column clear_threshold double precision,
    add column max_instances int not null default 500,
    add column runbook text,
    alter column series drop not null,
    alter column threshold drop not null,
    alter column message set default '{rule}: {instance} is {value}, the threshold is {threshold}',
    drop constraint alert_rule_metric,
    add constraint alert_rule_origin check (origin in ('user', 'file', 'builtin')),
    add constraint alert_rule_labels check (jsonb_typeof(labels) = 'object'),
    add constraint alert_rule_query check ((metric = 'sql') = (query is not null)),
    add constraint alert_rule_clear check (clear_threshold > '-Infinity' and clear_threshold < 'Infinity'),
    add constraint alert_rule_max_instances check (max_instances between 1 and 100000);
comment on table pipeline.alert_rule is
    'Rules. Insert, update and delete as you like: a change counts from the next window. Queries run with the rights of the daemon.';
comment on column pipeline.alert_rule.metric is 'One of pipeline.alert_metrics(), or sql for a query.';
comment on column pipeline.alert_rule.origin is 'file: follows the configuration of the daemon. builtin: came with pgreflex, and is yours to change.';
comment on column pipeline.alert_rule.sources is 'Only series of these sources, such as query or http; null for all.';
comment on column pipeline.alert_rule.labels is 'Only instances whose labels contain these.';
comment on column pipeline.alert_rule.query is 'Each row is an instance that is bad; its columns are the labels, but for value and detail.';
comment on column pipeline.alert_rule.threshold is 'Null, for a query: each row that it returns is bad.';
comment on column pipeline.alert_rule.clear_threshold is 'While it fires, a value counts as good only beyond this one.';
comment on column pipeline.alert_rule.max_instances is 'How many instances may be pending or firing at once; the rule says when there are more.';
comment on column pipeline.alert_rule.runbook is 'A link that tells what to do.';

alter table pipeline.alert_progress
    add column judged_at timestamptz,
    add column took_ms double precision,
    add column instances int,
    add column counters jsonb not null default '{}',
    add column counted_at timestamptz;
comment on column pipeline.alert_progress.instances is 'How many instances the last window had.';
comment on column pipeline.alert_progress.counters is 'What the counters of the metric said at counted_at, by instance.';

-- What was seeded, so that an upgrade tells a rule that somebody changed or deleted from one that it may renew.
create table pipeline.alert_builtin (
    name text primary key,
    definition text not null
);

-- The instance's name is made of the labels by whoever takes the message in: the writer has no time for it.
alter table pipeline.alert_inbox
    add column labels jsonb not null default '{}',
    alter column instance drop not null;

alter table pipeline.alert_state add column labels jsonb not null default '{}';
alter table pipeline.alert_state set (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_threshold = 1000);
alter table pipeline.alert_history add column labels jsonb not null default '{}';
alter table pipeline.alert_notice
    add column labels jsonb not null default '{}',
    add column runbook text;

-- Objectives: which share of the events of some series has to be good.
create table pipeline.slo (
    name text primary key,
    series text not null,
    labels jsonb not null default '{}',
    objective double precision not null,
    latency_ms double precision,
    min_events int not null default 100,
    period interval not null default '30 days',
    enabled bool not null default true,
    constraint slo_name check (name <> '' and length(name) <= 200),
    constraint slo_series check (series <> ''),
    constraint slo_labels check (jsonb_typeof(labels) = 'object'),
    constraint slo_objective check (objective > 0 and objective < 1),
    constraint slo_latency check (latency_ms > 0 and latency_ms < 'Infinity'),
    constraint slo_min_events check (min_events >= 1),
    constraint slo_period check (period between interval '1 day' and interval '90 days')
);
comment on table pipeline.slo is 'Objectives; the built-in rules on slo.burn.* judge them.';
comment on column pipeline.slo.series is 'A series, or a name, of which all label sets are taken together; with % in it a LIKE pattern.';
comment on column pipeline.slo.objective is 'The share of events that has to be good: 0.999.';
comment on column pipeline.slo.latency_ms is 'An event that took longer is bad, as one that failed is; null: only one that failed.';
comment on column pipeline.slo.min_events is 'With fewer events in the longer of two windows no burn rate is told.';

-- Alerts that triggers of pipeline.alert_on could not raise; a sequence, because it counts whatever becomes of the write.
create sequence pipeline.alert_losses;
