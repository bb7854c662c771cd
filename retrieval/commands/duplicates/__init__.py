"""The command `duplicates`."""
