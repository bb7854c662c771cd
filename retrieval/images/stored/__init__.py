"""The files of a gallery: what is in them, and how they are written and read."""
