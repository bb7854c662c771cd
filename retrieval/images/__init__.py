"""Images and the data they come with: sources, decoding, comparison, and the gallery that stores them."""
