"""Who may use the server: the names it answers to, the pages of other sites, and a password."""
