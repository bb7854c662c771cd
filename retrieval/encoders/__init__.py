"""Encoders of images and texts into unit vectors."""
