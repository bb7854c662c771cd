"""What needs torch and `transformers`: the model itself, and its export."""
