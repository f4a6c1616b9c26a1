-- save_watch: stores which look was the last one
-- $1 text: whose counters it was of
-- $2 float8: when these began, as Unix seconds
-- $3 float8: when it was, by the server's clock
-- $4 bigint: how often entries had been evicted
-- $5 int: how many entries it saw
-- $6 float8: when it was, by our clock
-- locks: the row, which the transaction holds
update pipeline.statement_watch
set round = round + 1, store = $1, reset_at = $2, read_at = $3, deallocs = $4, entries = $5,
    at = to_timestamp($6)
