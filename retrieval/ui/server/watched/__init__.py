"""What can be seen of the server from outside: health, metrics and its log."""
