-- parameters: the types of the parameters of a statement prepared in this session
-- $1 text: its name
-- locks: none
select parameter_types::oid[] from pg_prepared_statements where name = $1
