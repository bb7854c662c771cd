"""Learning: everything that only training needs. Imports `retrieval`, never the other way round."""
