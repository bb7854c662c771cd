"""Retrieval metrics, calibrated match probabilities, and near-duplicates."""
