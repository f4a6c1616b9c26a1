-- may_lead: whether this role may pump: it owns the schema, or is a member of the role that does
-- locks: none
select has_function_privilege('pipeline.take_over()', 'execute')
