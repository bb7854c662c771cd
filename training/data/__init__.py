"""Labelled images: reading, splitting, decoding, batching, and the leak audit."""
