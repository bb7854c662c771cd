"""The sentences of the page, in one place: another language is another file like this one.

Not here: what errors say, which the command line says too, and the artifact's own card and evaluation.

What a sentence is filled with may be anybody's text; where it becomes HTML, whoever fills it in escapes it.
"""

TITLE = "Lookalike"
TAGLINE = "Search by picture"

ARTIFACT = "{name}{state} · {rows} images · {model}"

SEARCH_TAB = "Search"
DUPLICATES_TAB = "Duplicates"
MAP_TAB = "Map"
EVALUATION_TAB = "Evaluation"
ABOUT_TAB = "About"

DROP = "# Drop a picture\nor click, paste, take a photo"
QUERY = "Your picture"
ADD_PICTURES = "Add pictures"
WORDS = "In words"
WORDS_HINT = "a red bag with stripes"
EXAMPLES = "Or start from one of these"
FILTERS = "Only images with"
MORE_SETTINGS = "Settings"
K = "Hits at a time"
MIN_SCORE = "Minimum score"
MIN_SCORE_INFO = "Cosine: 1 is the same picture"
FOLD = "Show near-duplicates as one"

EMPTY = "Give a picture, and its like appears here. Or look around: a click searches for the like of a picture."
NO_HITS = "No other image passes the filter and the minimum score. Lower the score or take a filter away."
NO_OTHERS = "There is no other image in this gallery."
FOUND = "{count} most like {name}."
FOUND_PICTURE = "your picture"
FOUND_REGION = "a part of {name}"
FOUND_WORDS = "“{words}”"
FOUND_SEVERAL = "{likes} and {unlikes}"
FOUND_UNLIKE = "anything but {name}"
LIKES = "{count} liked"
UNLIKES = "{count} not liked"
CONFIDENT = "Confident match."
NOT_CONFIDENT = "No confident match."
NOT_CONFIDENT_WHY = "The nearest are shown all the same."
NO_CHANCE = "No chance could be learned here: the number is the cosine."
NO_CHANCE_LABEL = "The best hit has no label: of its kind nothing is known, and the number is the cosine."
NO_CHANCE_OTHERWISE = "A chance is known of one whole picture alone, and liked: the number is the cosine."
CHANCE = "{chance}%"
CHANCE_TITLE = "Chance that it is of the query's kind, if that is here: by how near it is, and by the labels around it"
MAP_CLOSER = "Closer"
MAP_FARTHER = "Farther"
SCORE_TITLE = "Cosine"
ALIKE = "+{count} alike"
SEARCH_LIKE = "Search for the like of {name}"
MORE_LIKE = "More like this"
LESS_LIKE = "Less like this"
WHY = "Why?"
SHOW_MORE = "Show more"
WITHOUT_VALUE = "without a value"
WITHOUT_LABEL = "without a label"

LIKED = "Like"
UNLIKED = "Unlike"
TURN = "Turn to “{other}”"
TAKE_AWAY = "Take {name} away"
WHOLE = "Whole picture"
REGION_HINT = "Drag over the picture to search for a part of it."
REGION_LABEL = "Choose a part: arrow keys move it, with Shift they resize it, Enter searches, Escape takes it back"
UNDO = "Undo"
CLEAR = "Clear"
COPY_LINK = "Copy link"
COPIED = "Copied"
NO_LINK = "A link can hold images of the gallery, not pictures of your own, parts or words."
DOWNLOAD = "Download"
TRAIL = "Trail"
BACK_TO = "Back to {name}"

WHY_TITLE = "Why similar"
CLOSE = "Close"
WHY_QUERY = "The query"
WHY_HIT = "The hit"
WHY_SUM = "{cells} of the cells + {bias} of the bias = {sum}, the cosine of the search"
WHY_SUM_ALONE = "{cells} of the cells + {bias} of the bias = {sum}, its cosine with the hit"
WHY_SUM_NEAR = "{cells} of the cells + {bias} of the bias = {sum}; as indexed it is {cosine}"
WHY_THUMBNAIL = "made from its thumbnail"
WHY_HELP = (
    "Each cell shows what it adds to the cosine (orange) or takes from it (blue). Touch a place in the query, or move "
    "with the arrow keys, and the hit shows what answers it."
)
WHY_CELL = "adds {value}"
WHY_MAP = "Heat map of {name}: {rows} by {columns} cells, which add up to {sum}"
WHY_SEVERAL = "The query is a combination; each of its pictures is compared with the hit on its own."
WHY_WORDS = "Words have no places in a picture: only pictures are explained."

DUPLICATES_ABOUT = (
    "Groups of images that show the same picture: saved anew, resized, a little brighter or cropped. The cosine of "
    "their embeddings reaches the threshold, and their pixels agree."
)
THRESHOLD = "Least cosine"
FIND = "Find near-duplicates"
NO_GROUPS = "There are none at this threshold."
GROUPS = "{groups} groups with {images} images."
GROUP = "{count} alike"
CSV = "Download as CSV"

MAP_ABOUT = "Every image of the gallery as a point: {method}. Point at one to see it; a click searches for its like."
MAP_METHODS = {"pca": "its two principal components", "tsne": "t-SNE", "umap": "UMAP"}
MAP_LABEL = "Map of the gallery: arrow keys go from image to image, Enter searches for the like of one"
MAP_OTHERS = "and {count} more"
MAP_LOADING = "The map is being drawn …"

REVISION = "Revision"
CALL = "From programs"

NO_PICTURE = "No picture was given. With gradio_client, wrap the path or address: handle_file('photo.jpg')."
TOOL_PICTURE = (
    "Its address (http or https), a data URL (of at most 4 MiB), or the path that /gradio_api/upload answered."
)
TOOL_FILE = "no argument is a file object; give a picture by its address, as a data URL, or as an uploaded path."
NO_TOOLS = "No MCP: the package mcp is not installed (pip install -r requirements.txt)."
NOT_UPLOADED = "That is no picture that was given here; give it again."
FIND_FIRST = "Find the near-duplicates at this threshold first."
GONE = "your picture is no longer here, an hour after it was given; give it again."

CALLS = {
    "Python": """from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7860")
answer = client.predict(handle_file("photo.jpg"), k=5, api_name="/search")
""",
    "JavaScript": """import { Client, handle_file } from "@gradio/client";

const client = await Client.connect("http://127.0.0.1:7860");
const [answer] = (await client.predict("/search", { image: handle_file("photo.jpg"), k: 5 })).data;
""",
    "MCP": "http://127.0.0.1:7860/gradio_api/mcp/",
}
