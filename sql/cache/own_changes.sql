-- own_changes: what this transaction has reported to the outbox so far, as JSON; see the function
-- locks: none
select pipeline.own_changes()
