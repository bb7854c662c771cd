"""Images to an artifact, and changes of one."""
