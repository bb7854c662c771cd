"""Results of a run: metrics, the artifact, comparisons."""
