"""Sources of images, one module per kind: where they are, how they are read, and what their columns become."""
