"""Random images without an object: noise, colour gradients and lines of letters.

An encoder trained only on gallery-like images embeds out-of-distribution images among them. Training with these images
as extra classes teaches it to embed such images elsewhere (outlier exposure, Hendrycks et al., ICLR 2019).
"""

from __future__ import annotations

import string

import numpy as np
from PIL import Image, ImageDraw, ImageFont

KINDS = 24  # four methods (two of noise) at six scales


def draw_nothing(kind: int, side: int, seed: int) -> Image.Image:
    """A square RGB image of `side` pixels, deterministic in its arguments; `kind` is in [0, KINDS)."""
    random = np.random.default_rng([kind, seed])
    way, scale = kind % 4, 2 ** (kind // 4)
    if way == 0:
        return _noise(random, side, scale)
    if way == 1:
        return _noise(random, side, scale, grey=True)
    if way == 2:
        return _ramp(random, side, scale)
    return _letters(random, side, 6 + 4 * (kind // 4))


def _noise(random: np.random.Generator, side: int, scale: int, *, grey: bool = False) -> Image.Image:
    """Cells of `scale` pixels in random colours, with sharp or smooth edges."""
    cells = max(2, side // scale)
    values = random.integers(0, 256, (cells, cells, 1 if grey else 3), dtype=np.uint8)
    picture = Image.fromarray(np.broadcast_to(values, (cells, cells, 3)).copy())
    return picture.resize((side, side), Image.Resampling(int(random.choice([0, 2, 3]))))


def _ramp(random: np.random.Generator, side: int, scale: int) -> Image.Image:
    """A linear gradient between two colours, repeated `scale` times; at scale 1 almost a single colour."""
    angle, (start, end) = random.uniform(0, 2 * np.pi), random.uniform(0, 255, (2, 3))
    y, x = np.mgrid[0:side, 0:side] / side
    along = (x * np.cos(angle) + y * np.sin(angle)) * scale
    share = np.abs((along % 2) - 1)[:, :, None] if scale > 1 else along[:, :, None] * 0.1
    return Image.fromarray((start + (end - start) * share).clip(0, 255).astype(np.uint8))


def _letters(random: np.random.Generator, side: int, size: int) -> Image.Image:
    """Lines of random letters, dark on light or light on dark."""
    colours = [tuple(int(value) for value in random.integers(*ends, 3)) for ends in ((0, 90), (180, 256))]
    ink, paper = colours if random.random() < 0.7 else colours[::-1]
    picture = Image.new("RGB", (side, side), paper)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(size)
    for line in range(int(random.integers(0, size)), side, size + int(random.integers(2, 8))):
        words = "".join(random.choice([*string.ascii_letters, " ", " ", " "], 60))
        pen.text((-int(random.integers(0, size)), line), words, fill=ink, font=font)
    return picture
