"""The commands, one module per topic. Each imports what it needs only when it runs, so help appears at once."""
