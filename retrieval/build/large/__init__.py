"""What keeps the memory of a build of many images bounded."""
