"""What a run ends in: figures, an artifact, a comparison."""
