"""Images and the rows they become: decoding, comparison, and the gallery that stores them."""
