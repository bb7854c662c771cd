"""What keeps the evaluation of a large gallery within bounds: compact labels, samples, pictures of few rows."""
