"""The artifact: a folder that is checked, opened, and replaced whole."""
