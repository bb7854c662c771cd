"""The network that learns, its loss and its head."""
