-- Timings: digests by series and window.
--
-- A row is a part: what one writer saw of one series in one window of `seconds`. Parts are only ever added, so
-- several processes write at once without waiting for each other, and late data is one more part of its old
-- window. Parts of one window are merged where they are read. The roll-up merges the parts of closed windows
-- into a part of the next level and sets `rolled` in the same transaction, so every timing counts exactly once
-- among "all parts of one level, and the parts of finer levels that are not rolled".
create table pipeline.latency_window (
    seconds int not null,
    series text collate "C" not null,
    start timestamptz not null,
    writer text not null,
    part bigint not null,
    rolled bool not null default false,
    count bigint not null check (count > 0),
    sum double precision not null,
    low double precision not null,
    high double precision not null,
    errors bigint not null,
    over_count bigint not null,
    means double precision[] not null,
    weights double precision[] not null,
    primary key (series, start, writer, part, seconds)
) partition by list (seconds);
create index latency_window_start on pipeline.latency_window (start);
create index latency_window_unrolled on pipeline.latency_window (start) where not rolled;

create table pipeline.latency_5s partition of pipeline.latency_window for values in (5);
create table pipeline.latency_1m partition of pipeline.latency_window for values in (60);
create table pipeline.latency_5m partition of pipeline.latency_window for values in (300);
create table pipeline.latency_1h partition of pipeline.latency_window for values in (3600);
create table pipeline.latency_24h partition of pipeline.latency_window for values in (86400);
alter table pipeline.latency_5s set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

comment on table pipeline.latency_window is 'Timings in milliseconds: one t-digest for each series, window and writer.';
comment on column pipeline.latency_window.part is 'The writer''s own number of this part: writing it again changes nothing.';
comment on column pipeline.latency_window.rolled is 'Whether the next coarser level contains this part.';
comment on column pipeline.latency_window.over_count is 'How many were above the writer''s threshold for slow.';
