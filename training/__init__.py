"""Training: everything that only training needs. It imports `retrieval`, never the other way round."""
