-- The clock of every statement that decides by time. A test sets `pipeline.fake_now` to stand still or jump.
-- It is the time at which the statement began, not the transaction: a long transaction must not see stale time.
create or replace function pipeline.now() returns timestamptz
language sql stable
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(nullif(current_setting('pipeline.fake_now', true), '')::timestamptz, statement_timestamp())
$$;
