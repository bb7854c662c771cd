"""Benchmarks of many rows: vectors drawn around those of an artifact, as many as are asked for."""
