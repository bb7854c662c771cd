"""Every error that this project raises on purpose, as one tree.

    LookalikeError
    ├── ImageError          a picture that cannot be read, or that is over a limit
    ├── SourceError         images to index that are not there, or not as described
    ├── EncoderError        a backbone or weights that cannot be used
    │   └── EmbeddingError  a picture or text whose embedding has no direction
    ├── StoreError          a vector store that cannot be made as asked, or cannot do what it is asked for
    ├── MapError            a map of a gallery that is unknown, or not installed
    ├── QueryError          a search that cannot be answered as asked (k, filter, id)
    ├── ArtifactError       a folder that is not an artifact, or is in use
    │   └── IntegrityError  an artifact whose parts do not agree with its manifest
    ├── HubError            what the Hub refuses, does not have, or cannot bring here
    │   └── AwayError       a Hub that cannot be reached, or cannot answer now
    └── TrainingError       a training run that cannot start, or must not go on
        └── RecipeError     a recipe that does not exist, or a key or value in it that cannot be

Each message names what was asked, what was found, and how to mend it, in one line that can be shown to a person.
"""

from collections.abc import Sequence


def first_line(error: BaseException) -> str:
    """What an error of a library says, as far as it goes into a message of one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def short(text: str, longest: int) -> str:
    """A text of at most so many characters, with an ellipsis for what was cut off."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


class LookalikeError(Exception):
    """Base of all the errors here; catch this one to catch them all."""


class ImageError(LookalikeError):
    """A picture that cannot be read, or that is over a limit; the message says which limit."""


class SourceError(LookalikeError):
    """Images to index that are not there, or a column that the data set does not have."""


class EncoderError(LookalikeError):
    """A backbone that timm does not know, or weights that do not fit it."""


class EmbeddingError(EncoderError):
    """Pictures or texts whose embedding is too near to zero to have a direction; `rows` says which of those given."""

    def __init__(self, message: str, rows: Sequence[int]) -> None:
        super().__init__(message)
        self.rows = tuple(rows)


class StoreError(LookalikeError):
    """A vector store that cannot be made as asked, or is asked for something that it cannot do."""


class MapError(LookalikeError):
    """A way to draw a map of the gallery that is unknown, or whose package is not installed."""


class QueryError(LookalikeError):
    """A search that cannot be answered as asked: k out of range, an unknown column, value or id."""


class ArtifactError(LookalikeError):
    """A folder that is not an artifact, or that another process is writing."""


class IntegrityError(ArtifactError):
    """An artifact whose parts do not agree with its manifest; the message names the part and both values."""


class HubError(LookalikeError):
    """Something that the Hub refuses, does not have, or that cannot be brought here; the message says what to do."""


class AwayError(HubError):
    """A Hub that cannot be reached, or cannot answer now; after `wait` seconds (0: not said) it may."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class TrainingError(LookalikeError):
    """A training run that cannot start (its data, its batches) or must not go on (collapse, NaN)."""


class RecipeError(TrainingError):
    """A recipe that does not exist, or a key or value in it that cannot be."""
