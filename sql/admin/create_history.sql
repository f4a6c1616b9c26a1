-- create_history: the schema itself and the record of what was installed into it
-- locks: none that anyone else could wait for
do $$
begin
    if to_regclass('pipeline.migration') is null then
        create schema if not exists pipeline;
        revoke all on schema pipeline from public;
        create table pipeline.migration (
            name text primary key,
            checksum text not null,
            applied_at timestamptz not null default now(),
            ms double precision not null
        );
        comment on schema pipeline is 'pgreflex: events, cache invalidation, percentiles, alerts and jobs';
    end if;
end
$$
