"""Vector stores: they hold unit vectors and answer nearest neighbours by cosine."""
