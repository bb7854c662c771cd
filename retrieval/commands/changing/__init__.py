"""What the commands that change an artifact do."""
