"""The version: here, and nowhere else; pyproject.toml reads it."""

VERSION = "0.5.0"
