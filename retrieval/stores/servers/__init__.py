"""Vectors where teams keep theirs: one file for each database, opened by URI and loaded late."""
