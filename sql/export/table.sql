-- table: the query of all rows of a relation; null when there is none of that name
-- $1 text: its name, as in SQL
-- locks: none
select 'select * from ' || to_regclass($1)
