"""Passing requests to the workers: to which one, and how."""
