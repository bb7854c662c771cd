"""Lists of pictures: tables whose rows name a file, an address, or the picture as text; and fetching addresses."""
