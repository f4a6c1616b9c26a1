-- What everything else stands on: settings and the clock.
--
-- Advisory locks of pgreflex are (1885697639, n); the first number spells "pgrf" in ASCII.
--   1  migrating       2  leading       3  asleep (the doorbell)

create table pipeline.setting (
    name text primary key,
    value text not null
);
comment on table pipeline.setting is 'Settings that SQL itself has to know; the daemon''s own are in its configuration.';
