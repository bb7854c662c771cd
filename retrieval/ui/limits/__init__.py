"""How much is taken on: by the server in all, and from one visitor; and what is kept of those who were here."""
