-- An event of one's own, from any SQL: `select pipeline.emit('mail.sent', '{"id": 7}')`.
-- It is delivered if and only if the transaction commits. Costs what a watched statement costs.
create or replace function pipeline.emit(channel text, payload text default null) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if coalesce(channel, '') = '' or octet_length(channel) > 200 then
        raise invalid_parameter_value using
            message = 'a channel has 1 to 200 bytes',
            hint = 'Use a short name such as mail.sent, and put the data into the payload.';
    end if;
    if octet_length(payload) > 1048576 then
        raise program_limit_exceeded using
            message = format('this payload has %s bytes; at most 1048576 can be sent', octet_length(payload)),
            hint = 'Store the data in a table and emit its key.';
    end if;
    perform pipeline.write_event(null, 'e', null, 1, null, channel, payload);
end
$$;
