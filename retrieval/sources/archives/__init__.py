"""Archives as sources: zip and tar files and WebDataset shards, listed and read without unpacking; saved datasets."""
