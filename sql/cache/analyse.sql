-- analyse: lets a transaction make the function that is read and rolled back, where the role's default forbids writing
-- locks: none
set transaction read write
