"""The app: resolve an artifact, make the page, serve it.

python app.py [--artifact DIR | OWNER/NAME[@REVISION]] [--host HOST] [--port PORT] [--share]
"""

import argparse
import os
import signal
import sys
from pathlib import Path

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported: nothing is reported to anyone

from retrieval import LookalikeError, Searcher
from retrieval.ui import create_app, launch

STARTER = Path(__file__).parent / "retrieval" / "starter"


def main() -> int:
    """Serve until interrupted; 1 with one line on standard error where the artifact cannot be served."""
    parser = argparse.ArgumentParser(description="Image-to-image search in the browser.")
    parser.add_argument(
        "--artifact",
        default=os.environ.get("LOOKALIKE_ARTIFACT") or str(STARTER),
        help="a folder, or owner/name[@revision] on the Hub (default: LOOKALIKE_ARTIFACT, or the starter)",
    )
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1; 0.0.0.0 for the network)")
    parser.add_argument("--port", type=int, help="port (default: the first free one from 7860)")
    parser.add_argument("--share", action="store_true", help="a public link for a week, through Gradio's servers")
    arguments = parser.parse_args()
    try:
        searcher = Searcher.open(arguments.artifact)
    except (LookalikeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; a download goes on from here when it is started again", file=sys.stderr)
        return 130
    # A Space or a container is stopped by SIGTERM; leaving by the front door cleans up temporary files.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    app = create_app(searcher)
    try:
        launch(app, host=arguments.host, port=arguments.port, share=arguments.share)
    except (OSError, OverflowError, ValueError) as error:  # a port in use, or no port; a host that is not ours
        print(f"error: cannot listen on {arguments.host or 'this machine'}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
