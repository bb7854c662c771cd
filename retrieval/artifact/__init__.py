"""The artifact: a folder that is verified when it is opened and replaced atomically."""
