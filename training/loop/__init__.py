"""The training loop, its guards and its folder."""
