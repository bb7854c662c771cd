"""Building an artifact on several machines: each embeds a part of the source, and the parts are merged."""
