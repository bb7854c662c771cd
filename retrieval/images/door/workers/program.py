"""The program of a worker: it decodes one picture after the other, until the server closes the socket."""

from __future__ import annotations

import gc
import io
import os
import signal
import socket
from contextlib import suppress

from PIL import AvifImagePlugin, Image, ImageCms, ImageFile

from retrieval.errors import ImageError
from retrieval.images.door.decode import decode
from retrieval.images.door.formats import FORMATS
from retrieval.images.door.limits import is_large
from retrieval.images.door.workers import protocol
from retrieval.images.door.workers.memory import PIXEL
from retrieval.images.door.workers.sandbox import die_with, give_memory_back, lock_in

_IDLE = 2.0  # seconds
_NICENESS = 5  # the encoder goes first: it serves several searches at once


class _LargeError(ImageError):
    """Decoding was about to begin, and the picture is a large one."""


def main(descriptor: int, server: int, memory: int, file: int) -> None:
    """Serve the requests that come by a socket; `server` is the process that must be alive for that.

    `memory` and `file` are limits in bytes, as in `Limits`.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the server decides when a worker ends
    die_with(server)
    os.nice(_NICENESS)
    _load_everything()
    _close_stderr()
    lock_in(memory, file)
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=descriptor) as server_socket, suppress(ConnectionError):
        server_socket.send(protocol.READY)
        while True:
            message, descriptors = _next(server_socket)
            if not message:
                return
            try:
                answer = _answer(message, *descriptors)
            finally:
                for each in descriptors:
                    os.close(each)
            server_socket.send(answer)
            if not answer.startswith(protocol.PIXELS):
                gc.collect()  # an error keeps the picture alive through its traceback


def _next(server: socket.socket) -> tuple[bytes, list[int]]:
    """The next request; an empty one at the end. Memory that earlier pictures took is given back while it is idle."""
    server.settimeout(_IDLE)
    try:
        message, descriptors, _, _ = socket.recv_fds(server, protocol.LONGEST, 2)
    except TimeoutError:
        give_memory_back()
        server.settimeout(None)
        message, descriptors, _, _ = socket.recv_fds(server, protocol.LONGEST, 2)
    return message, descriptors


def _close_stderr() -> None:
    """Write no more of it: the libraries of formats write hundreds of lines about one picture."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def _load_everything() -> None:
    """Import what decoding imports when it first needs it: later, no file can be opened."""
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # a thread is outside the limits of the one that made it
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.options.DECODE_THREADS = 1
    Image.MAX_IMAGE_PIXELS = None  # what a picture may have depends on its memory (`check_memory`)
    Image.init()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for kind in FORMATS:
        for mode in ("RGB", "L"):
            with suppress(OSError, ValueError, KeyError):  # a format that this Pillow cannot write
                Image.new(mode, (16, 16)).save(file := io.BytesIO(), kind, icc_profile=profile)
                decode("", file.getvalue(), 8)
    with suppress(ImageError):
        decode("", b"no picture", None)


def _answer(message: bytes, given: int, wanted: int) -> bytes:
    name, at_least, views, may_be_large = protocol.parse_request(message)
    try:
        data = os.pread(given, size := os.fstat(given).st_size, 0)

        def declare(pixels: int, memory: int) -> None:
            if not may_be_large and is_large(pixels, memory):
                raise _LargeError  # the file is as it was, and comes again
            protocol.declare_pixels(given, size, pixels)

        image = decode(name, data, at_least, declare)
        del data
        wanted_views = [view.of(image) for view in views]
        del image
        for view in wanted_views:
            _write(view, wanted)
    except _LargeError:
        return protocol.LARGE
    except ImageError as error:
        return protocol.MEMORY if isinstance(error.__cause__, MemoryError) else protocol.refusal(str(error))
    except (MemoryError, OSError):
        return protocol.MEMORY
    return protocol.pixels([view.size for view in wanted_views])


def _write(image: Image.Image, descriptor: int) -> None:
    """Write the pixels as they are in memory, without a copy of them all."""
    with open(descriptor, "wb", buffering=0, closefd=False) as file:
        whole = ImageFile._Tile("raw", (0, 0, *image.size), 0, ("RGBX", 0, 1))
        ImageFile._save(image, file, [whole], bufsize=max(2**20, image.width * PIXEL))
