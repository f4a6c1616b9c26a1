-- The ids of a lease are kept as they are: compressing a thousand of them took a third of the whole claim.
alter table pipeline.lease alter column ids set storage external, alter column started set storage external;
