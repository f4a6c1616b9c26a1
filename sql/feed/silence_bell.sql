-- silence_bell: whether writers must never ring, because applications use PREPARE TRANSACTION, which refuses NOTIFY
-- $1 bool: true silences the bell, and the pump polls
-- locks: advisory (1885697639, 4), for this statement
select pipeline.silence_bell($1)
