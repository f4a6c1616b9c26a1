-- The cache's second level: values that all processes share. Unlogged: a crash of the server empties it, and that
-- changes the epoch, too, after which no row would be used anyway.
--
-- Rows are not deleted. Two tables are written in turn; when one has its half of the bytes, the other is emptied and
-- written next, so what is used no more goes with the older half, and no vacuum is needed. What a process still uses is
-- moved to the newer half when its snapshot is raised. The value lies outside of the row, so that raising the snapshot
-- does not copy it.

create unlogged table pipeline.cache_0 (
    role oid not null,
    key bytea not null,
    version bigint not null,
    namespace text not null,
    epoch text not null,
    snapshot pg_snapshot not null,
    upper pg_snapshot not null,
    tags text[] not null,
    value bytea not null,
    load_ms real not null,
    expires_at timestamptz,
    raised_at timestamptz not null,
    primary key (role, key)
) with (autovacuum_enabled = false, fillfactor = 70, toast_tuple_target = 256);
alter table pipeline.cache_0 alter column value set storage external;

create unlogged table pipeline.cache_1 (like pipeline.cache_0 including all)
    with (autovacuum_enabled = false, fillfactor = 70, toast_tuple_target = 256);

-- Bit 1: which of the two is written now. A sequence's value is never old.
create sequence pipeline.cache_half minvalue 0 maxvalue 1 start 0 cycle;

-- Who loads which value, so that others wait for it. A row that is left behind only costs its time.
create unlogged table pipeline.cache_lease (
    role oid not null,
    key bytea not null,
    owner bigint not null,
    until timestamptz not null,
    primary key (role, key)
);

insert into pipeline.setting (name, value) values ('cache_shared_max_bytes', '268435456');
