-- Queries by fingerprint: what stands for each group, which statements of pg_stat_statements belong to it, and the
-- plans of the slow ones.

-- One row for each fingerprint that was ever seen. When a new version of pgreflex gives a text another fingerprint,
-- the old row stays, because timings carry its key, and moved_to names the new one: see pipeline.fingerprint_now.
create table pipeline.query (
    fingerprint text collate "C" primary key check (fingerprint ~ '^[0-9a-f]{16}$'),
    version int not null,
    kind text not null check (kind in ('ok', 'truncated', 'unparsable')),
    text text not null check (length(text) <= 10100),
    moved_to text collate "C" check (moved_to <> fingerprint),
    first_at timestamptz not null,
    last_at timestamptz not null
);
comment on table pipeline.query is 'Groups of statements that differ in their values only.';
comment on column pipeline.query.text is 'What stands for the group; values are $1, $2 and so on. At most 10,000 characters and an ellipsis.';
comment on column pipeline.query.version is 'The rules that made the fingerprint.';
comment on column pipeline.query.moved_to is 'The fingerprint that the same text has under newer rules.';
comment on column pipeline.query.last_at is 'When it was last seen, to the hour.';

-- Which fingerprint the statements of pg_stat_statements have. Only whole texts are kept here.
create table pipeline.query_id (
    dbid oid not null,
    userid oid not null,
    queryid bigint not null,
    toplevel bool not null,
    fingerprint text collate "C" not null,
    seen_at timestamptz not null,
    primary key (dbid, userid, queryid, toplevel)
);

-- One row for each run of a plan: as long as the shape stays the same its row is only touched, and a plan that comes
-- back after another one begins a row of its own, so two rows in succession are a change.
create table pipeline.plan (
    id bigint generated always as identity primary key,
    fingerprint text collate "C" not null,
    shape text collate "C" not null,
    summary text not null,
    kind text not null check (kind in ('generic', 'analyzed')),
    plan json not null,
    settings jsonb not null,
    first_at timestamptz not null,
    last_at timestamptz not null,
    times int not null default 1,
    slowest_ms double precision not null
);
create index plan_fingerprint on pipeline.plan (fingerprint, first_at desc);
create index plan_first on pipeline.plan (first_at);
comment on table pipeline.plan is 'Plans of slow queries, without the values of their users.';
comment on column pipeline.plan.shape is 'A hash of nodes, relations, indexes and join order; costs and rows are no part of it.';
comment on column pipeline.plan.summary is 'The shape in one line.';
comment on column pipeline.plan.settings is 'Planner settings that are not the server''s own.';

-- Who asked for a plan last, and what came of it: one turn an hour for each fingerprint, over all processes.
create table pipeline.plan_turn (
    fingerprint text collate "C" primary key,
    at timestamptz not null,
    outcome text not null check (outcome in ('asked', 'planned', 'refused', 'failed')),
    reason text not null default ''
);
