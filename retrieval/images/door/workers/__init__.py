"""Decoding in processes of its own that may be lost: a hostile picture costs one of them, never the server."""
