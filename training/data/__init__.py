"""Labelled images: read, split, decoded, drawn into batches, audited."""
