"""How well a gallery is searched, and what a score is worth."""
