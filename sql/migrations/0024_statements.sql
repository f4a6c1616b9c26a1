-- What pg_stat_statements counted, by window, and what sessions were doing.
--
-- A round is one look at pg_stat_statements. In one transaction it locks the watch, subtracts what was seen last,
-- adds to the windows and remembers what it saw; so each execution counts once, whoever looks, and whatever fails.
-- What was seen is unlogged: a crash of the server takes it, and takes the counters with it.
create table pipeline.statement_watch (
    one bool primary key default true check (one),
    round bigint not null default 0,
    store text,
    reset_at double precision,
    read_at double precision,
    deallocs bigint,
    entries int,
    at timestamptz
);
insert into pipeline.statement_watch default values;
comment on table pipeline.statement_watch is 'The last look at pg_stat_statements, and of which counters it was.';

create unlogged table pipeline.statement_seen (
    userid oid not null,
    queryid bigint not null,
    toplevel bool not null,
    since double precision,
    max_since double precision,
    max_ms double precision not null,
    counters double precision[] not null,
    primary key (queryid, userid, toplevel)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.1);
comment on table pipeline.statement_seen is 'The counters that the last look saw.';

-- One row a window: how far it can be trusted.
create table pipeline.statement_round (
    seconds int not null,
    start timestamptz not null,
    since timestamptz not null,
    until timestamptz not null,
    covered double precision not null,
    deallocs bigint not null,
    vanished bigint not null,
    rebased bigint not null,
    gaps int not null,
    rolled bool not null default false,
    primary key (seconds, start)
);
create index statement_round_unrolled on pipeline.statement_round (seconds, start) where not rolled;
comment on table pipeline.statement_round is 'Windows of statement counts: from when to when, and what may be missing.';
comment on column pipeline.statement_round.covered is 'How many seconds of it are known.';
comment on column pipeline.statement_round.deallocs is 'How often pg_stat_statements was full and evicted entries.';
comment on column pipeline.statement_round.vanished is 'Entries that were evicted or reset: what they counted last is lost.';
comment on column pipeline.statement_round.rebased is 'Entries whose counters went back: nothing of them is counted.';
comment on column pipeline.statement_round.gaps is 'Looks that could not be compared with the one before.';

-- The statements that took the most time in a window by their keys, the others summed up with queryid 0.
create table pipeline.statement_window (
    seconds int not null,
    start timestamptz not null,
    queryid bigint not null,
    userid oid not null,
    toplevel bool not null,
    calls bigint not null,
    total_ms double precision not null,
    rows bigint not null,
    shared_hit bigint not null,
    shared_read bigint not null,
    shared_dirtied bigint not null,
    shared_written bigint not null,
    temp_read bigint not null,
    temp_written bigint not null,
    read_ms double precision not null,
    write_ms double precision not null,
    wal_bytes bigint not null,
    plans bigint not null,
    plan_ms double precision not null,
    low_max double precision not null,
    high_max double precision not null,
    primary key (seconds, start, queryid, userid, toplevel)
);
comment on table pipeline.statement_window is 'Executions counted by pg_stat_statements, by window.';
comment on column pipeline.statement_window.low_max is 'The longest call took at least this long, in ms.';
comment on column pipeline.statement_window.high_max is 'And at most this long; where both are equal it is known.';

-- Sampled sessions: how many looks found how many of them at what. Never durations.
create table pipeline.activity_minute (
    start timestamptz primary key,
    samples int not null,
    active bigint not null,
    blocked_most int not null,
    longest_transaction_seconds double precision,
    longest_idle_seconds double precision
);
comment on table pipeline.activity_minute is 'One row a minute: how often sessions were looked at, and what was found.';
comment on column pipeline.activity_minute.samples is 'How many looks there were.';
comment on column pipeline.activity_minute.active is 'How many active sessions they saw together.';

create table pipeline.activity_window (
    start timestamptz not null,
    queryid bigint not null,
    wait_type text collate "C" not null,
    wait_event text collate "C" not null,
    samples bigint not null,
    primary key (start, wait_type, wait_event, queryid)
);
comment on table pipeline.activity_window is 'How many active sessions were seen at what, by minute.';
comment on column pipeline.activity_window.queryid is '0: none was known.';
comment on column pipeline.activity_window.wait_type is 'Empty: it ran. `other`: all beyond the most frequent ones.';
