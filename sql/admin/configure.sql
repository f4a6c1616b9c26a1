-- configure: sets several settings at once
-- $1 text[]: their names   $2 text[]: their values   $3 bool: for this transaction only
-- locks: none
select set_config(s.name, s.value, $3) from unnest($1::text[], $2::text[]) as s (name, value)
