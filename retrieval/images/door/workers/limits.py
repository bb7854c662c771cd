"""What one picture may cost, and what is said of one that costs more."""

from __future__ import annotations

from dataclasses import dataclass

_ADVICE = "open it in an image editor, and save it as a JPEG or PNG"


@dataclass(frozen=True)
class Limits:
    """What decoding one picture may cost."""

    memory: int = 2**30
    """Bytes of address space of a worker, its Python included."""
    file: int = 2**29
    """Bytes of a decoded picture, at 4 bytes per pixel."""
    processor: float = 2.0
    """Seconds of processor time of any picture."""
    processor_more: float = 0.25
    """Further seconds for each megapixel in the header or each MiB of the file, whichever is less."""
    stretch: float = 10.0
    """Seconds on the clock for each second of processor time: other programs may need the processors, too."""
    start: float = 60.0
    """Seconds on the clock for the start of a worker."""

    def seconds(self, size: int, pixels: int) -> float:
        """Seconds of processor time for a file of `size` bytes whose header states so many pixels."""
        return self.processor + self.processor_more * min(size / 2**20, pixels / 1e6)


LIMITS = Limits()


def too_long(name: str) -> str:
    """The message for a picture that takes more time than it may."""
    return f"{name} takes too long to decode; {_ADVICE}"


def too_much_memory(name: str) -> str:
    """The message for a picture that needs more memory than it may."""
    return f"{name} needs too much memory to decode; save it with fewer pixels, or as a JPEG"


def crashed(name: str) -> str:
    """The message for a picture that makes a decoder crash."""
    return f"{name} cannot be decoded, because it crashes the decoder; {_ADVICE}"
