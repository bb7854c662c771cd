"""What an exported network from a stranger must be like before an engine reads it."""
