-- set_key_rule: limits of all keys that are $1 or begin with it and a colon
-- $1 text: name   $2 int: how many of one key at once, or null   $3 int: how many may begin, or null   $4 float8: in so many seconds
-- locks: the rule's row
select pipeline.set_key_rule($1, $2, $3, coalesce(make_interval(secs => $4::float8), '1 second'))
