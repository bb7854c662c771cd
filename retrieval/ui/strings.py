"""The sentences of the page, in one place: another language is another file like this one.

Not here: the errors, which the command line shows too, and the artifact's own card and evaluation. `..._ONE` is a
sentence for a count of one.

What fills a sentence may be anybody's text: the templates escape it.
"""

TITLE = "Lookalike"
TAGLINE = "Search by picture"

ARTIFACT = "{name}{state} · {rows} images · {model}"

SEARCH_TAB = "Search"
DUPLICATES_TAB = "Duplicates"
MAP_TAB = "Map"
EVALUATION_TAB = "Evaluation"
ABOUT_TAB = "About"

FOLDER_DROPPED = "{name} is a folder. Drop the pictures in it, not the folder."
DROP = "# Drop a picture here\nor click, paste or take a photo"
QUERY = "Your picture"
ADD_PICTURES = "Add pictures"
WORDS = "Search by text"
WORDS_HINT = "For example: a red bag with stripes"
EXAMPLES = "Or start with one of these"
FILTERS = "Filters"
CONDITIONS = "More conditions"
CONDITIONS_HINT = "For example: price<=50, colour!=red"
CONDITIONS_INFO = "Columns: {columns}. Press Enter to apply."
GROUP_BY = "One result per"
GROUP_BY_NONE = "image"
MORE_SETTINGS = "Settings"
K = "Results per page"
MIN_SCORE = "Minimum similarity"
MIN_SCORE_INFO = "Cosine similarity: 1 means identical"
FOLD = "Group near-duplicates"

UPDATED = "The collection was updated. Reload the page."
NO_LONGER = "This image is no longer in the collection."
SEARCH_CHANGED = "The collection was updated. Parts of your search that it no longer has were removed."
EMPTY = "Drop in a picture to find similar ones, or click any image below."
NO_HITS = "No image matches the filters and the minimum similarity. Remove a filter or lower the minimum."
NO_OTHERS = "This gallery has no other images."
FOUND = "Top {count} results for {name}."
FOUND_ONE = "Top result for {name}."
FOUND_PICTURE = "your picture"
FOUND_REGION = "a part of {name}"
FOUND_WORDS = "“{words}”"
FOUND_UNLIKE = "images unlike {name}"
FOUND_LIKES = "{likes} liked examples"
FOUND_UNLIKES = "{unlikes} disliked examples"
FOUND_BOTH = "{likes} liked and {unlikes} disliked examples"
CONFIDENT = "Confident match"
NOT_CONFIDENT = "No confident match"
NOT_CONFIDENT_WHY = "Showing the closest images anyway."
NO_CHANCE = "Match probability is not available for this gallery. Showing cosine similarity."
NO_CHANCE_LABEL = "The top result has no label, so there is no match probability. Showing cosine similarity."
NO_CHANCE_OTHERWISE = "Match probability is only available for a single whole picture. Showing cosine similarity."
NO_THRESHOLD = (
    "Whether the top result is a match cannot be told: that takes more labelled images of each class, or an encoder "
    "that tells the classes apart better."
)
CHANCE = "{chance}%"
CHANCE_TITLE = (
    "Match probability: how likely this image is of the same class as the query, if the gallery has that class. "
    "Estimated from its similarity and from the labels of its neighbours."
)
SCORE_TITLE = "Cosine similarity"
ALIKE = "+{count} near-duplicates"
ALIKE_ONE = "+1 near-duplicate"
SEARCH_LIKE = "Find images similar to {name}"
MORE_LIKE = "More like this"
LESS_LIKE = "Less like this"
WHY = "Why?"
DETAILS = "Details"
SOURCE = "Source"
ORIGINAL = "Original"
THUMBNAIL = "Thumbnail"
SHOW_MORE = "Show more"
WITHOUT_VALUE = "no value"
WHY_BUTTON_TITLE = "Explain this result"

LIKED = "Liked"
UNLIKED = "Disliked"
TURN = "Switch to “{other}”"
TAKE_AWAY = "Remove {name}"
WHOLE = "Use the whole picture"
REGION_HINT = "Drag across a picture to select a part of it."
REGION_LABEL = (
    "Select a part of the picture: arrow keys move the selection, Shift with arrow keys resizes it, Enter searches, "
    "Escape clears it"
)
UNDO = "Undo"
CLEAR = "Clear"
COPY_LINK = "Copy link"
COPIED = "Copied"
NO_LINK = "Links work only for whole images of the gallery, not for your own pictures, parts of pictures or text."
DOWNLOAD = "Download"
TRAIL = "Earlier searches"
BACK_TO = "Back to {name}"

WHY_TITLE = "Why these pictures are similar"
CLOSE = "Close"
WHY_QUERY = "Query:"
WHY_HIT = "Result:"
WHY_SUM = "{cells} from the cells + {bias} from the bias = {sum}, the cosine similarity of this result"
WHY_SUM_ALONE = "{cells} from the cells + {bias} from the bias = {sum}, the cosine similarity of the two pictures"
WHY_SUM_NEAR = "{cells} from the cells + {bias} from the bias = {sum}; the search used {cosine}"
WHY_THUMBNAIL = "Computed from the thumbnail:"
WHY_HELP = (
    "Orange cells raise the cosine similarity, blue cells lower it. Point at a cell of one picture, or move with the "
    "arrow keys, to see which cells of the other picture match it."
)
WHY_CELL = "This cell: {value}"
WHY_MAP = "Heat map of {name}: {rows} by {columns} cells; with the bias they add up to {sum}"
WHY_SEVERAL = "This query combines several examples. Each of its pictures is compared with the result separately."
WHY_WORDS = "Only pictures can be explained cell by cell, not text."

DUPLICATES_ABOUT = (
    "Finds copies of the same picture: saved again, resized, slightly brightened or cropped. Images form a group when "
    "their pixels agree. A higher threshold also asks for more similar embeddings."
)
THRESHOLD = "Similarity threshold"
FIND = "Find near-duplicates"
NO_GROUPS = "No near-duplicates at the threshold {threshold}."
GROUPS = "{groups} groups with {images} images in all."
GROUPS_ONE = "1 group with {images} images."
GROUP = "{count} images"
CSV = "Download CSV"

MAP_ABOUT = (
    "Each point is an image of the gallery, placed by {method}: similar images lie close together. Point at one to "
    "see it; click it to find similar images."
)
MAP_METHODS = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP"}
MAP_LABEL = "Map of the gallery: arrow keys move from image to image, Enter finds images similar to the selected one"
MAP_CLOSER = "Zoom in"
MAP_FARTHER = "Zoom out"
MAP_OTHERS = "and {count} more"
MAP_LOADING = "Loading the map …"
WITHOUT_LABEL = "no label"

REVISION = "Revision"
CALL = "Call it from a program"

NO_PICTURE = "No picture was given. With gradio_client, wrap its path or URL: handle_file('photo.jpg')."
TOOL_PICTURE = "Its public https address, a data URL (at most 64 MiB), or the path that /gradio_api/upload returned."
TOOL_FILE = "an argument must not be a file object: give a picture as a URL, a data URL or an uploaded path."
NO_TOOLS = "No MCP: the package mcp is not installed (pip install -r requirements.txt)."
RUNNING = "* Running on local URL:  {address}"
RUNNING_TOOLS = "* MCP server (streamable HTTP): {address}/gradio_api/mcp/"
SHARED = "* Running on public URL: {address} (valid for a week)"
NO_SHARE = "No public link could be made: {why} The local address works."
NO_SHARE_ON_SPACE = "A Space is public by itself: --share does nothing here."
LOG_IN = "This server needs a user name and a password."
WRONG_PASSWORD = "The user name or the password is wrong."
STARTING = "This server is starting: try again in a few seconds."
STOPPING = "This server is stopping: try again in a few seconds."
LOST = "The process that worked on this has ended: please try again."
MANY_WORKERS = "note: {workers} processes share {cores} cores: more than one for each core only takes memory."
WORKER_ENDED = "a process of the server ended while it started: the reason is above, or memory is short."
WORKER_REPLACED = "process {pid} of the server has ended: another takes its place"
WORKER_HANGS = "process {pid} of the server has not answered for half a minute, and is ended"
WORKER_FAILED = "a process of the server cannot be started, next try in {seconds} s: {why}"
BUSY = "Many people are searching right now: try again in {seconds} s."
BUSY_TITLE = "Busy"
TOO_MANY = "You have {most} searches waiting already, as many as one visitor may: try again in {seconds} s."
TOO_FAST = "Too many requests from your address: try again in {seconds} s."
TOO_MANY_PASSWORDS = "Too many wrong passwords: try again in {seconds} s."
STOPPING_NOW = "stopping: searches that have begun are finished first; once more to stop at once."
NOT_UPLOADED = "This picture was not uploaded here: upload it again."
FETCH_FAILED = (
    "The picture could not be fetched: its address must be a public https address, whose server answers in time. "
    "Or upload the picture itself."
)
FETCH_SLOW = "The picture was not fetched within 10 seconds: upload the picture itself."
FETCH_BUSY = "The app is fetching as many pictures as it can: try again in 10 seconds, or upload the picture itself."
FETCH_GONE = "The fetched picture is no longer there: ask again."
OPENAPI_ABOUT = (
    "Searches a gallery of images. A call has two steps: POST the arguments to /gradio_api/call/v2/NAME, then GET the "
    "answer to the event_id that this returns."
)
OPENAPI_ASK = "Starts the call. Its answer is at {path}/{{event_id}}."
OPENAPI_ANSWER = (
    "Server-sent events. The last one is `complete`, with a JSON array of one value, which is "
    "`#/components/schemas/{schema}`; or it is `error`, with an object whose `error` is a sentence."
)
OPENAPI_UPLOAD = (
    "Uploads up to 16 pictures, of at most 64 MiB each; they are deleted an hour after their last use, or "
    "earlier if there are many."
)
OPENAPI_PATH = "What /gradio_api/upload returned, or a public https address."
PAGE_ADDRESS = "A picture is given to the page as an upload, not as an address."
NOT_UNDERSTOOD = "The values that were sent are not those of this event: reload the page."
NOT_HERE = "There is nothing at this address."
OUR_FAULT = "Something went wrong on the server; this is not your fault. Its log says what."
FIND_FIRST = "Find the near-duplicates at this threshold first."
ORIGINAL_NOT_KEPT = (
    "This server does not have the original of this image: it is inside another file, or on another server."
)
ORIGINAL_MISSING = "{file} is missing from the folder of the originals."
ORIGINAL_CHANGED = "{file} has changed since it was indexed, so it is not the image that was found. Run sync."
ORIGINAL_OUTSIDE = "{file} does not lie in the folder of the originals, so it is not served."
ORIGINAL_NO_PICTURE = "{file} is not a picture, so it is not served."
GONE = "Uploaded pictures are deleted an hour after their last use, or earlier if there are many: upload yours again."
DISK_FULL = "The server has no room for this picture on its disk: try again later, or search from one in the gallery."
UPLOADS_FULL = "The server is receiving as many pictures as it has room for: try again in 10 seconds."

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
