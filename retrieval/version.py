"""The version of Lookalike, stated here and nowhere else: packaging, `--version` and metrics.json read it."""

VERSION = "0.5.0"
