-- Timings: series, what the processes write, and what is kept.
--
-- A process writes one row into timing_batch for each window of 5 s: everything that it saw, of all its series. The roll-up
-- merges the batches of a closed minute into one small row for each series, a part, and parts into those of 5 min, 1 h and 24 h.
-- Nothing that is kept is ever changed. Late data is one more roll of an old window, with parts of its own, and parts of one
-- window are merged where they are read. `rolled` says of a whole roll, or batch, that the next level contains it; it is set in
-- the transaction that makes it true. So each timing counts exactly once among "the parts of one level, and the rolls and
-- batches of finer levels that are not rolled".
drop table pipeline.latency_window;

create table pipeline.timing_series (
    id int generated always as identity primary key,
    series text collate "C" not null unique,
    source text not null,
    name text collate "C" not null,
    labels jsonb not null check (jsonb_typeof(labels) = 'object'),
    first_at timestamptz not null,
    last_at timestamptz not null
);
create index timing_series_name on pipeline.timing_series (name);

comment on table pipeline.timing_series is 'What is timed: a source, a name and labels.';
comment on column pipeline.timing_series.series is 'name{key="value"}, labels sorted; the name alone where there are none.';
comment on column pipeline.timing_series.last_at is 'When it was last written to, up to an hour behind.';

create type pipeline.timing_digest as (
    series int, count bigint, sum double precision, low double precision, high double precision,
    errors bigint, over_count bigint, row_count bigint, centroids smallint[]
);

create table pipeline.timing_batch (
    writer uuid not null,
    number bigint not null,
    start timestamptz not null,
    written_at timestamptz not null,
    rolled bool not null default false,
    series int[] not null,
    digests pipeline.timing_digest[] not null,
    primary key (writer, number)
);
alter table pipeline.timing_batch alter column series set storage external, alter column digests set storage external;
create index timing_batch_start on pipeline.timing_batch (start);
create index timing_batch_open on pipeline.timing_batch (start) where not rolled;

comment on table pipeline.timing_batch is 'What one process saw in one window of five seconds.';
comment on column pipeline.timing_batch.number is 'The writer''s own number of this batch: writing it again changes nothing.';
comment on column pipeline.timing_batch.series is 'The series of the digests, in the same order.';

create table pipeline.timing_roll (
    seconds int not null,
    start timestamptz not null,
    part smallint not null,
    made_at timestamptz not null,
    rolled bool not null default false,
    primary key (seconds, start, part)
);
create index timing_roll_open on pipeline.timing_roll (seconds, start) where not rolled;

comment on table pipeline.timing_roll is 'One window of one level, rolled up; once more for what came late.';

-- No column of variable length stands before `part`, and none takes padding: there are millions of these rows.
create table pipeline.timing_part (
    seconds int not null,
    series int not null,
    start timestamptz not null,
    count bigint not null check (count > 0),
    sum double precision not null,
    low double precision not null,
    high double precision not null,
    errors bigint not null,
    over_count bigint not null,
    row_count bigint not null,
    part smallint not null,
    centroids smallint[] not null
) partition by list (seconds);
create index timing_part_series on pipeline.timing_part (series, start);
create index timing_part_start on pipeline.timing_part (start);

create table pipeline.timing_1m partition of pipeline.timing_part for values in (60);
create table pipeline.timing_5m partition of pipeline.timing_part for values in (300);
create table pipeline.timing_1h partition of pipeline.timing_part for values in (3600);
create table pipeline.timing_24h partition of pipeline.timing_part for values in (86400);
alter table pipeline.timing_1m set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);
alter table pipeline.timing_5m set (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000);

comment on table pipeline.timing_part is 'Timings in milliseconds: a t-digest of one series in one window; part names the roll.';
comment on column pipeline.timing_part.over_count is 'How many were above the writer''s threshold for slow.';
comment on column pipeline.timing_part.row_count is 'How many rows the queries returned or changed.';
comment on column pipeline.timing_part.centroids is 'Packed by pipeline/core/centroids.py, unpacked by pipeline.timing_parts.';
