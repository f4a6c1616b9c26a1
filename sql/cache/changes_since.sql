-- changes_since: the snapshot of this transaction and what it sees beyond the feed's position; limits its idling
-- $1 text: the position, or null
-- $2 text: milliseconds after which the server ends the transaction if it idles
-- locks: none
select
    pipeline.changes_since($1::text::pg_snapshot) as found,
    set_config('idle_in_transaction_session_timeout', $2, true) as idle_limit
