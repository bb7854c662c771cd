"""Benchmarks of waiting times, recall and memory."""
