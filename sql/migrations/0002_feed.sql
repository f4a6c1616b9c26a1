-- The event feed: what triggers write, what the pump has broadcast, and who pumps.
--
-- Almost everything here is unlogged: a crash of the server empties it. The crash also changes the
-- epoch, which makes every follower forget what it knew, so nothing is lost that anyone still relies on.
-- Rows are never deleted. Two sets of tables are written in turn, and the one that rests is truncated once it
-- has been read, so a transaction that stays open for hours leaves no dead rows in the reader's way.

create table pipeline.watch (
    id int generated always as identity primary key,
    relation regclass not null unique,
    tag text not null,
    keys text[] not null,
    columns text[],
    timing boolean not null default false,
    durable boolean not null default false,
    replicated boolean not null default false,
    tree oid[],
    created_at timestamptz not null default pipeline.now()
);
comment on table pipeline.watch is 'Tables whose changes are reported; written by pipeline.watch and pipeline.unwatch.';

-- What every trigger reads first, in one page and outside any snapshot: a sequence's value is never old.
-- Bit 1: which tables are written now. Bit 2: the outbox is full. Bit 4: the bell stays silent.
create sequence pipeline.gate minvalue 0 maxvalue 7 start 0;
create sequence pipeline.outbox_id cache 32;
create sequence pipeline.term;

create unlogged table pipeline.outbox_0 (
    xid xid8 not null,
    id bigint not null,
    watch int,
    op "char" not null,
    keys text[],
    rows int not null,
    ms real,
    at timestamptz not null,
    name text,
    payload text
) with (autovacuum_enabled = false);
create index outbox_0_xid on pipeline.outbox_0 (xid, id);

create unlogged table pipeline.outbox_1 (like pipeline.outbox_0 including defaults) with (autovacuum_enabled = false);
create index outbox_1_xid on pipeline.outbox_1 (xid, id);

-- The logged sibling, for watches with durable => true; its rows go when the consumers have handled them.
create table pipeline.outbox_durable (like pipeline.outbox_0 including defaults);
create index outbox_durable_xid on pipeline.outbox_durable (xid, id);

create view pipeline.outbox as
    select xid, id, watch, op, keys, rows, ms, at, name, payload from pipeline.outbox_0
    union all
    select xid, id, watch, op, keys, rows, ms, at, name, payload from pipeline.outbox_1
    union all
    select xid, id, watch, op, keys, rows, ms, at, name, payload from pipeline.outbox_durable;

-- What was broadcast: the feed's memory, from which a follower replays what it missed.
create unlogged table pipeline.ring_0 (
    seq bigint primary key,
    lineage text not null,
    position text,
    payload text not null
) with (autovacuum_enabled = false);
create unlogged table pipeline.ring_1 (like pipeline.ring_0 including all) with (autovacuum_enabled = false);

create view pipeline.ring as
    select seq, lineage, position, payload from pipeline.ring_0
    union all
    select seq, lineage, position, payload from pipeline.ring_1;

-- One row. generation: new after each crash, because the table is emptied by it. term: who leads; whoever acts
-- as leader holds the row in share mode, so a deposed leader is refused. retired_xmax: every transaction that
-- may still write into the resting outbox is below it. seq, position: where the feed stood when the tables were
-- last turned, since the ring may be empty after that. flush_until: every transaction that may have written
-- nothing because the outbox was full is below it.
create unlogged table pipeline.leader (
    one boolean primary key default true check (one),
    generation bigint not null,
    term bigint not null,
    pid int not null,
    since timestamptz not null,
    retired_xmax xid8 not null,
    turned_at timestamptz not null,
    seq bigint not null default 0,
    position text not null default '1:1:',
    flush_until xid8 not null default '0',
    lineage text
);

-- How far each consumer has come. Logged, unlike the ring: after a crash a consumer has to
-- learn that it missed something.
create table pipeline.consumer (
    name text primary key,
    lineage text not null,
    seq bigint not null,
    saved_at timestamptz not null
);

insert into pipeline.setting (name, value) values ('outbox_max_bytes', '1073741824');
