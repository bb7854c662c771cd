"""Every sentence that the page shows."""

from html import escape

from retrieval.remote import Resolved

TITLE = "Lookalike"
TAGLINE = "Search by picture"
DROP = "# Drop a picture\nor click to choose one, paste it, or take a photo"
QUERY = "Your picture"
EXAMPLES = "Or start from one of these"
LABELS = "Only these labels"
K = "How many"
MIN_SCORE = "Minimum score"
MIN_SCORE_INFO = "Cosine: 1 is the same picture"
EMPTY = "<p>Give a picture, and its like appears here. Or look around: a click searches for the like of a picture.</p>"
NO_HITS = "<p>No image passes the filter and the minimum score. Lower the score or choose other labels.</p>"
FOUND_PICTURE = "your picture"
NEXT = "Click one to search for its like."
NO_PICTURE = "No picture was given. With gradio_client, wrap the path or address: handle_file('photo.jpg')."
TOOL_PICTURE = (
    "Its address (http or https), a data URL (of at most 4 MiB), or the path that /gradio_api/upload answered."
)
TOOL_FILE = "no argument is a file object; give a picture by its address, as a data URL, or as an uploaded path."
NO_TOOLS = "No MCP: the package mcp is not installed (pip install -r requirements.txt)."


def artifact_line(artifact: Resolved, rows: int, model: str) -> str:
    """What the page says of the artifact it serves."""
    state = f" · {artifact.state}" if artifact.state else ""
    return f"<strong>{escape(artifact.name)}</strong>{state} · {rows:,} images · {escape(model)}"


def found(count: int, name: str) -> str:
    """What the page says over the hits; `name` may be anybody's text."""
    return f"<p><strong>{count}</strong> most like <strong>{escape(name)}</strong>. {NEXT}</p>"
