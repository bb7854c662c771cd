"""Vector stores: they hold unit vectors and find nearest neighbours by cosine similarity."""
