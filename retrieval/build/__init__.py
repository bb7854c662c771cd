"""Building an artifact from images, and changing an existing one."""
