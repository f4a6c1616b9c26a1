"""The loops of the event feed: one process pumps, every process follows. Knows no SQL and no driver."""
