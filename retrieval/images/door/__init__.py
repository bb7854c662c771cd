"""Files from outside: read within limits, told apart by their content, decoded, and converted to upright sRGB."""
