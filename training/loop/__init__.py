"""The training loop, its failure checks and its working folder."""
