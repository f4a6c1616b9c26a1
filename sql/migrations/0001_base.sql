-- What everything else stands on: settings and the clock.
--
-- Advisory locks of pgreflex are (1885697639, n); the first number spells "pgrf" in ASCII.
--   1  migrating   2  leading the feed   3  asleep (the doorbell)   4  changing the gate   5  consuming

-- The clock of every statement that decides by time. A test sets `pipeline.fake_now` to stand still or jump.
-- It is the time at which the statement began, not the transaction: a long transaction must not see stale time.
create function pipeline.now() returns timestamptz
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(nullif(current_setting('pipeline.fake_now', true), '')::timestamptz, statement_timestamp())
$$;

create table pipeline.setting (
    name text primary key,
    value text not null
);
comment on table pipeline.setting is 'Settings that SQL itself has to know; the daemon''s own are in its configuration.';
