-- unwatch: takes the triggers off a table; returns false if it was not watched
-- $1 text: the table, as one would write it in a query
-- locks: what DROP TRIGGER takes (ACCESS EXCLUSIVE on the table), in short tries
select pipeline.unwatch($1)
