-- is_super: whether this session may do what no query of it should be run again with
-- locks: none
select rolsuper or rolreplication or rolbypassrls from pg_roles where rolname = current_user
