"""The app, as a Space starts it; the same as `python -m retrieval serve`.

python app.py [--artifact DIR | OWNER/NAME[@REVISION]] [--host HOST] [--port PORT] [--originals DIR] [--share]
              [--refresh MINUTES] [--sha256 HASH] [--workers N]
"""

import sys

from retrieval.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
