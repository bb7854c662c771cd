"""Decode the bytes of a file, within limits, to upright sRGB."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext

from PIL import Image, ImageFile

from retrieval.errors import ImageError
from retrieval.images.door.blank import blank_memory
from retrieval.images.door.checks import only_needed
from retrieval.images.door.convert import open_data
from retrieval.images.door.formats import RefusedError, complaint
from retrieval.images.door.limits import MAX_ASPECT, MAX_PIXELS, check_memory, check_shape
from retrieval.images.door.workers.limits import too_much_memory

__all__ = ["MAX_ASPECT", "MAX_PIXELS", "decode"]


def decode(
    name: str, data: bytes, at_least: int | None, declare: Callable[[int, int], object] = lambda pixels, memory: None
) -> Image.Image:
    """The first frame or page of these bytes as `open_image` returns it; `name` is for messages.

    `declare` is told the number of pixels in the header, and how much memory decoding may take, once both are known to
    be within the limits; an ImageError that it raises is passed on. Raises ImageError like `open_image`.
    """
    if not data:
        raise ImageError(f"{name} is empty (0 bytes)")
    # Whether Pillow accepts truncated files is a process-wide switch that any import may have changed; Pillow has no
    # other. Every thread here sets the same value, so no lock is needed; nothing can prevent foreign code in another
    # thread from setting it back to True during decoding.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        opened = open_data(only_needed(name, data, MAX_PIXELS))
        check_memory(name, opened.size, opened.memory)
        check_shape(name, *opened.size)
        declare(opened.size[0] * opened.size[1], opened.memory)
        with blank_memory() if data[:2] in (b"II", b"MM") else nullcontext():
            rgb = opened.rgb(at_least)
        check_shape(name, *rgb.size)  # a part may have been cut out
        return rgb
    except ImageError:
        raise
    except RefusedError as reason:
        raise ImageError(f"{name} {reason}") from reason
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name} has too many pixels: save it with no more than {MAX_PIXELS:,}") from error
    except MemoryError as error:
        raise ImageError(too_much_memory(name)) from error
    except Exception as error:
        # Broad on purpose. On malicious files Pillow's plugins raise almost anything: OSError, SyntaxError,
        # ValueError, TypeError, KeyError, IndexError, EOFError, struct.error, zlib.error, warnings turned into
        # errors, ... A list could only contain those seen so far.
        raise ImageError(f"{name} {complaint(data)}") from error
