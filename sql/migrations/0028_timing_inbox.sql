-- Timings that are recorded in SQL: where they wait for the leader, for about a second.
--
-- As with the outbox of the feed, rows are never deleted. Two unlogged tables are written in turn, a position says what was
-- read, and the table that rests is truncated. So a snapshot that is held for hours, or a transaction that recorded something
-- and stays open, makes neither writing nor reading slower; all it delays is the truncation.

-- Bit 1: which table is written now. Bit 2: both are full, and timings are dropped.
create sequence pipeline.timing_gate minvalue 0 maxvalue 3 start 0;

-- These count: a sequence does so whether or not the transaction commits.
create sequence pipeline.timing_rejected minvalue 0 start 0;
create sequence pipeline.timing_dropped minvalue 0 start 0;

create unlogged table pipeline.timing_inbox_0 (
    xid xid8 not null,
    at timestamptz not null,
    name text not null,
    labels jsonb,
    ms double precision[] not null
) with (autovacuum_enabled = false);
create index timing_inbox_0_xid on pipeline.timing_inbox_0 (xid);

create unlogged table pipeline.timing_inbox_1 (like pipeline.timing_inbox_0) with (autovacuum_enabled = false);
create index timing_inbox_1_xid on pipeline.timing_inbox_1 (xid);

create view pipeline.timing_inbox as
    select xid, at, name, labels, ms from pipeline.timing_inbox_0
    union all
    select xid, at, name, labels, ms from pipeline.timing_inbox_1;

create unlogged table pipeline.timing_inbox_place (
    one bool primary key default true check (one),
    position pg_snapshot not null
);
comment on table pipeline.timing_inbox_place is 'What was taken out of the inbox: everything that was committed then.';
