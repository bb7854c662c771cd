"""What a person waits for, and what it costs."""
