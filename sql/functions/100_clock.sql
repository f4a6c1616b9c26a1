-- now: the clock of every statement that decides by time
--
-- It is the time at which the statement began, not the transaction: a long transaction must not see stale time. A test sets
-- `pipeline.fake_now` to stand still or jump; where it is not set, nothing more is looked at. Not in SQL: the body of such a
-- function is planned anew in every statement that calls it.
create or replace function pipeline.now() returns timestamptz
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if current_setting('pipeline.fake_now', true) <> '' then
        return coalesce(pipeline.fake_now(), statement_timestamp());
    end if;
    return statement_timestamp();
end
$$;

-- fake_now: the time that a test has set; null for a session whose role does not own the schema
--
-- Anybody may set it: an application that did could wait out its own rates and keys. The role asked for is that of the
-- session, because functions that applications call run as the owner.
create or replace function pipeline.fake_now() returns timestamptz
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
    if pg_has_role(session_user, (select n.nspowner from pg_namespace n where n.nspname = 'pipeline'), 'usage') then
        return nullif(current_setting('pipeline.fake_now', true), '')::timestamptz;
    end if;
    return null;
end
$$;
