"""Large indexes: searched where they are on disk, in memory that does not grow with the gallery's vectors."""
