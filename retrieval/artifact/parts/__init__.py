"""Optional parts of an artifact: the exported network, a model for words, a map."""
