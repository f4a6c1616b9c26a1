-- settings: how values are spelled in this transaction, and how long one of its statements may take
-- $1 text: milliseconds that a fetch may take; a pause between two may last as long
-- locks: none
select
    set_config('datestyle', 'ISO, YMD', true),
    set_config('timezone', 'UTC', true),
    set_config('intervalstyle', 'iso_8601', true),
    set_config('extra_float_digits', '1', true),
    set_config('statement_timeout', $1, true),
    set_config('idle_in_transaction_session_timeout', $1, true)
