-- retire: a worker that ends in good order; leases it could not give back can be rescued at once
-- $1 bigint: worker
-- locks: the worker's row
delete from pipeline.worker where id = $1
