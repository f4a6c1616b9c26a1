-- maintain_archive: keeps the archive's partitions
-- locks: see the function
select made, dropped from pipeline.maintain_archive()
