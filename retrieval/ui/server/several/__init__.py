"""Several processes behind one address: one listens and passes requests on, the others are servers of the page."""
