"""The exception hierarchy of this project.

    LookalikeError
    ├── ImageError          a picture cannot be read or exceeds a limit
    ├── SourceError         the images to index are missing, or a column is
    ├── EncoderError        a backbone or weights cannot be used
    │   ├── EmbeddingError  the embedding of a picture or text is close to zero
    │   └── PrecisionError  int8 costs more accuracy than was allowed
    ├── StoreError          a vector store cannot be created, or does not support an operation
    ├── MapError            a map method is unknown
    ├── MissingExtraError   a task needs a package that is not installed
    ├── QueryError          a search has an invalid argument (k, filter, id)
    ├── ArtifactError       a folder is not an artifact, or is in use
    │   └── IntegrityError  parts of an artifact do not match its manifest
    ├── HubError            a request to the Hub fails
    │   └── AwayError       the Hub is unreachable or temporarily unavailable
    └── TrainingError       a training run cannot start, or has to stop
        └── RecipeError     a recipe is missing, or has an invalid key or value

Each message is one line for the user: what was requested, what was found, and how to fix it.
"""

from collections.abc import Sequence
from reprlib import Repr


def first_line(error: BaseException) -> str:
    """The first line of a library error's message, or its type if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def short(text: str, longest: int) -> str:
    """Truncate a text to `longest` characters; an ellipsis marks the cut."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


class _Short(Repr):
    """`repr` that looks at no more of a value than is shown of it."""

    def __init__(self, longest: int) -> None:
        super().__init__()
        self.longest = longest
        self.maxlist = self.maxtuple = self.maxdict = self.maxset = self.maxfrozenset = longest // 2
        self.maxlong, self.maxother, self.maxlevel = longest, 10 * longest, 10

    def repr_int(self, x: int, level: int) -> str:
        digits = int(abs(x).bit_length() * 0.30103)
        return repr(x) if digits < 400 else f"an integer of {digits:,} digits"  # Python converts up to 4,300 digits

    def repr_str(self, x: str, level: int) -> str:
        return repr(x[: self.longest])

    def repr_bytes(self, x: bytes, level: int) -> str:
        return repr(x[: self.longest])


def short_repr(value: object, longest: int) -> str:
    """The `repr` of a value, truncated like `short`; quick for a value of any size."""
    return short(_Short(longest).repr(value), longest)


class LookalikeError(Exception):
    """Base class of all errors in this project; catch it to catch them all."""


class ImageError(LookalikeError):
    """A picture cannot be read or exceeds a limit; the message says which."""


class SourceError(LookalikeError):
    """The images to index are missing, or the dataset lacks a requested column."""


class EncoderError(LookalikeError):
    """A backbone is unknown to timm, or weights do not fit the model."""


class EmbeddingError(EncoderError):
    """Embeddings are too close to zero to be normalized; `rows` are the positions of these inputs in the batch."""

    def __init__(self, message: str, rows: Sequence[int]) -> None:
        super().__init__(message)
        self.rows = tuple(rows)


class PrecisionError(EncoderError):
    """In int8, an encoder finds less of the same class than is allowed; the message gives the figures."""


class StoreError(LookalikeError):
    """A vector store cannot be created as requested, or does not support an operation."""


class MapError(LookalikeError):
    """A map method is unknown."""


class MissingExtraError(LookalikeError):
    """A task needs a package that is not installed; the message has the command that installs it."""


class QueryError(LookalikeError):
    """A search has an invalid argument: k out of range, or an unknown column, value or id."""


class ArtifactError(LookalikeError):
    """A folder is not an artifact, or another process is writing it."""


class IntegrityError(ArtifactError):
    """Parts of an artifact do not match its manifest; the message names the part and both values."""


class HubError(LookalikeError):
    """The Hub refuses a request, lacks what was requested, or a transfer fails; the message says what to do."""


class AwayError(HubError):
    """The Hub is unreachable or temporarily unavailable; `wait` is the seconds until a retry, 0 if unknown."""

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class TrainingError(LookalikeError):
    """A training run cannot start (invalid data or batches) or has to stop (collapse, NaN)."""


class RecipeError(TrainingError):
    """A recipe does not exist, or has an invalid key or value."""
