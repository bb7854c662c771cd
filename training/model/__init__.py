"""The network being trained, its loss and its embedding head."""
