"""Folders of images: the files in them, and the labels and splits that their names are."""
