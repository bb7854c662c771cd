"""Files from strangers, checked before a parser reads them; and files for spreadsheets, which run what they read."""
