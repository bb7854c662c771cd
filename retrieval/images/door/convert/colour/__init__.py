"""Colour spaces: what the numbers of a picture mean, and sRGB from them."""
