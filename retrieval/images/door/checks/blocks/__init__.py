"""What files of several formats contain: directories of tags, colour profiles, streams of AV1 video."""
