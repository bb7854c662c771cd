"""What this system does with files, where it has to be known before it is tried."""

import os

MOVES_OPEN_FILES = os.name != "nt"
"""Whether a folder can be renamed or deleted while a file in it is open: Windows refuses that."""
