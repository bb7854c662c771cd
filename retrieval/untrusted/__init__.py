"""Files from strangers, checked before a parser reads them; and cells for spreadsheets, which run what they read."""
