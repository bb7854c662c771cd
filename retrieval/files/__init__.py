"""What file systems differ in: locks, names, room on the disk, and operations that some systems lack."""
