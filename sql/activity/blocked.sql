-- blocked: who waits for a lock, and behind whom, the longest wait first
-- $1 int: how many at most
-- locks: none; the server looks at its own locks for it
select pid, role, application, waited_seconds, lock, mode, relation, text, behind, root, root_state, root_role,
    root_application, root_transaction_seconds, root_text, depth
from pipeline.blocked($1)
