"""The commands: one module a theme. What one needs is imported when it runs: help is there at once."""
