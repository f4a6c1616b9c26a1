"""Everything that knows Postgres: the only importer of the driver, the only reader of sql/ and triggers/."""
