"""The starter catalogue: 1152 product-like images that the project draws itself.

Twelve articles in eight colours, four patterns and three views, drawn with Pillow alone: no fonts, photographs or
downloads. They are the default gallery of a fresh copy of the app. Each seed gives a different rendering of an item,
so training images are unlimited. All drawings are the project's own work (Apache-2.0).
"""

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFilter

from training.starter.shapes import SHAPES, Article, Part, Path, Point, oval

Rgb = tuple[int, int, int]

ARTICLES: tuple[str, ...] = tuple(SHAPES)
COLOURS: dict[str, Rgb] = {
    "red": (201, 54, 56),
    "yellow": (238, 180, 46),
    "green": (94, 146, 72),
    "teal": (26, 148, 150),
    "blue": (48, 98, 188),
    "purple": (124, 82, 166),
    "pink": (232, 128, 164),
    "charcoal": (62, 64, 72),
}
PATTERNS: tuple[str, ...] = ("plain", "striped", "dotted", "checked")
VIEWS: tuple[str, ...] = ("front", "tilted", "close-up")

_SUPERSAMPLING = 3
_FIXED: dict[str, Rgb] = {  # materials whose colour does not depend on the article's
    "ivory": (247, 243, 234),
    "tan": (176, 122, 78),
    "sand": (206, 160, 116),
    "umber": (112, 74, 50),
    "wood": (158, 108, 68),
    "coffee": (86, 54, 36),
    "brass": (214, 176, 104),
    "ink": (44, 42, 46),
}
_TONES: dict[str, float] = {"cloth": 0.0, "self": 0.06, "pale": 0.22, "deep": -0.24, "night": -0.62, "gloom": -0.55}
_INKS: dict[str, tuple[int, int, int, int]] = {  # colours of marks: red, green, blue, opacity
    "shade": (22, 14, 40, 34),
    "haze": (60, 50, 80, 40),
    "deepen": (22, 14, 40, 84),
    "seam": (22, 14, 40, 92),
    "edge": (22, 14, 40, 64),
    "loop": (22, 14, 40, 70),
    "button": (22, 14, 40, 110),
    "glow": (255, 255, 255, 34),
    "sheen": (255, 255, 255, 46),
    "gleam": (255, 255, 255, 110),
    "stitch": (255, 244, 226, 150),
    "welt": (176, 122, 78, 255),
    "brasswire": (214, 176, 104, 255),
}
_BACKDROPS: tuple[Rgb, ...] = ((247, 245, 241), (244, 245, 248), (248, 243, 240), (243, 246, 244), (247, 246, 238))


@dataclass(frozen=True)
class Item:
    """One item to draw; different seeds give different renderings of the same article, colour, pattern and view."""

    article: str
    colour: str
    pattern: str
    view: str
    seed: int


def catalogue() -> list[Item]:
    """Each combination once: 12 x 8 x 4 x 3 = 1152 items in a fixed order; the seed of an item is its position."""
    kinds = [(a, c, p, v) for a in ARTICLES for c in COLOURS for p in PATTERNS for v in VIEWS]
    return [Item(*kind, seed=position) for position, kind in enumerate(kinds)]


def draw(item: Item, size: int = 224) -> Image.Image:
    """Draw an item: RGB, `size` x `size` pixels, deterministic across calls and processes."""
    # Random hashes string seeds with SHA-512; hash() of a string differs between processes.
    rng = random.Random(f"{item.article}/{item.colour}/{item.pattern}/{item.view}/{item.seed}")
    article = SHAPES[item.article]
    camera = _camera(rng, article, item.view, size * _SUPERSAMPLING)
    canvas = _backdrop(rng, article, item.view, camera)
    cloth = _Cloth(_vary(rng, COLOURS[item.colour]), item.pattern, article, rng)
    for part in article.parts:
        _paint(canvas, part, camera, cloth)
    return canvas.resize((size, size), Image.Resampling.HAMMING)


@dataclass(frozen=True)
class _Camera:
    """Maps box coordinates to a canvas of `side` pixels: stretch, taper, rotation, perspective, then shift."""

    side: int
    row_x: tuple[float, float]
    row_y: tuple[float, float]
    depth: tuple[float, float]
    taper: float
    shift: Point
    scale: float

    def place(self, points: Path, moved: Point = (0.0, 0.0)) -> list[Point]:
        """Canvas positions of box points, shifted by `moved` pixels."""
        (a, b), (c, d), (e, f), taper = self.row_x, self.row_y, self.depth, self.taper
        left, top = self.shift[0] + moved[0], self.shift[1] + moved[1]
        placed = []
        for x, y in points:
            wide = x * (1 + taper * y)
            near = 1 / (1 + e * wide + f * y)
            placed.append((left + (a * wide + b * y) * near, top + (c * wide + d * y) * near))
        return placed


def _camera(rng: random.Random, article: Article, view: str, side: int) -> _Camera:
    """A randomly jittered camera for a view of the article on a canvas of `side` pixels."""
    sway = 0.8 if article.stands else 2.5
    turn, zoom, squeeze, depth, focus = rng.uniform(-sway, sway), rng.uniform(0.77, 0.82), 1.0, (0.0, 0.0), (0.0, 0.0)
    if view == "tilted":
        turn, zoom = rng.choice((-1, 1)) * rng.uniform(13, 21), rng.uniform(0.73, 0.78)
        squeeze, depth = rng.uniform(0.92, 1.0), (rng.choice((-1, 1)) * 0.002, -0.0014)
    elif view == "close-up":
        turn, zoom = rng.uniform(-8, 8), rng.uniform(1.22, 1.36)
        focus = (article.focus[0] + rng.uniform(-4, 4), article.focus[1] + rng.uniform(-4, 4))
    scale = side * zoom / 100
    wide, tall = scale * squeeze * rng.uniform(0.95, 1.05), scale * rng.uniform(0.96, 1.03)
    flip = rng.choice((-1, 1))
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    row_x, row_y = (flip * wide * cos, -tall * sin), (flip * wide * sin, tall * cos)
    drift = 0.015 * side
    x = side / 2 - row_x[0] * focus[0] - row_x[1] * focus[1] + rng.uniform(-drift, drift)
    y = side / 2 - row_y[0] * focus[0] - row_y[1] * focus[1] + rng.uniform(-drift, drift)
    return _Camera(side, row_x, row_y, depth, rng.uniform(-0.0009, 0.0009), (x, y), scale)


def _mix(one: Rgb, other: Rgb, share: float) -> Rgb:
    """Linear mix of two colours; `share`, in [0, 1], is the weight of `other`."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _vary(rng: random.Random, colour: Rgb) -> Rgb:
    """The colour with random small changes of lightness and hue."""
    light = rng.uniform(0.95, 1.05)
    red, green, blue = (min(255, max(0, round(channel * light + rng.uniform(-4, 4)))) for channel in colour)
    return red, green, blue


def _tone(colour: Rgb, share: float) -> Rgb:
    """The colour, lighter (share > 0) or darker (share < 0), but not greyer."""
    if share >= 0:
        return _mix(colour, (255, 250, 244), share)
    # Reduce the strongest channel least: this keeps dark colours saturated.
    red, green, blue = (round(channel * (1 + share * (1.25 - 0.5 * channel / max(colour)))) for channel in colour)
    return red, green, blue


def _backdrop(rng: random.Random, article: Article, view: str, camera: _Camera) -> Image.Image:
    """A light studio backdrop with the soft shadow of the article."""
    # Draw at an eighth of the canvas size: nothing in it is sharp, and blurring is much faster.
    small = max(16, camera.side // 8)
    ratio = small / camera.side
    paper = _mix(rng.choice(_BACKDROPS), rng.choice(_BACKDROPS), rng.random())
    image = Image.new("RGB", (small, small), _mix(paper, (255, 255, 255), 0.6))
    image.paste(_mix(paper, (170, 168, 184), rng.uniform(0.04, 0.2)), mask=_vignette().resize((small, small)))
    shadow = Image.new("L", (small, small))
    pen = ImageDraw.Draw(shadow)
    fall = (rng.uniform(0.008, 0.02), 0.045) if view == "tilted" else (rng.uniform(-0.012, 0.012), 0.026)
    moved = (fall[0] * camera.side, fall[1] * camera.side)
    for part in article.parts:
        points = [(x * ratio, y * ratio) for x, y in camera.place(part.path, moved)]
        if part.width:
            pen.line(points, fill=88, width=max(1, round(part.width * camera.scale * ratio)))
        else:
            pen.polygon(points, fill=88)
    if article.stands and view == "front":
        spots = [spot for part in article.parts for spot in camera.place(part.path)]
        floor = max(y for _, y in spots)
        feet = [x * ratio for x, y in spots if y > floor - 0.06 * camera.side]
        pen.ellipse((min(feet), floor * ratio - small * 0.03, max(feet), floor * ratio + small * 0.022), fill=150)
    shadow = shadow.filter(ImageFilter.GaussianBlur(small * (0.03 if view == "tilted" else 0.02)))
    image.paste((70, 62, 88), mask=shadow)
    # Upscale smoothly to the final size, then repeat pixels, which the final downscaling undoes: twice as fast.
    finished = camera.side // _SUPERSAMPLING
    image = image.resize((finished, finished), Image.Resampling.BICUBIC)
    return image.resize((camera.side, camera.side), Image.Resampling.NEAREST)


@lru_cache(maxsize=1)
def _vignette() -> Image.Image:
    """Radial gradient, black in the middle and white in the corners, 64 x 64."""
    return Image.radial_gradient("L").resize((64, 64), Image.Resampling.BILINEAR)


@lru_cache(maxsize=1)
def _slope() -> Image.Image:
    """Shading for light from the upper left: 0 there, increasing to the lower right, 256 x 256."""
    slope = Image.new("L", (256, 256))
    slope.putdata([max(0, round((2.2 * x + y - 224) * 0.119)) for y in range(256) for x in range(256)])
    return slope


class _Cloth:
    """The material of the article: its colour, and its pattern in box units."""

    def __init__(self, colour: Rgb, pattern: str, article: Article, rng: random.Random) -> None:
        self.colour = colour
        self.pattern = pattern
        self.turn = (90.0 if article.upright and pattern == "striped" else 0.0) + rng.uniform(-2, 2)
        self.pitch = rng.uniform(0.92, 1.1) * article.weave * {"striped": 13.5, "dotted": 12.5}.get(pattern, 15.0)
        self.phase = (rng.random() * self.pitch, rng.random() * self.pitch)
        self.thread = (*_tone(colour, 0.86), 255 if pattern != "checked" else 118)

    def fill(self, name: str) -> Rgb:
        """The RGB colour of the paint `name`."""
        return _FIXED[name] if name in _FIXED else _tone(self.colour, _TONES[name])

    def figures(self, part: Part) -> Iterator[Path]:
        """Outlines of the pattern elements (stripes, checks, dots) on a part, in box coordinates."""
        angle = math.radians(self.turn + part.angle)
        cos, sin = math.cos(angle), math.sin(angle)
        across = [x * cos + y * sin for x, y in part.path]
        along = [y * cos - x * sin for x, y in part.path]
        slack = abs(part.bow) + 1
        box = (min(across) - slack, min(along) - slack, max(across) + slack, max(along) + slack)
        shapes = {"striped": self._bands, "checked": self._checks, "dotted": self._dots}
        if self.pattern in shapes:
            for figure in shapes[self.pattern](box):
                bowed = ((x, y - part.bow * (x / 50) ** 2) for x, y in figure)
                yield tuple((x * cos - y * sin, x * sin + y * cos) for x, y in bowed)

    def _steps(self, low: float, high: float, axis: int) -> Iterator[float]:
        first = math.floor((low - self.phase[axis]) / self.pitch)
        last = math.ceil((high - self.phase[axis]) / self.pitch)
        return (self.phase[axis] + i * self.pitch for i in range(first, last + 1))

    def _bands(self, box: tuple[float, float, float, float]) -> Iterator[Path]:
        thick = self.pitch * 0.44
        xs = [box[0] + (box[2] - box[0]) * i / 10 for i in range(11)]
        for y in self._steps(box[1], box[3], 1):
            yield (*((x, y) for x in xs), *((x, y + thick) for x in reversed(xs)))

    def _checks(self, box: tuple[float, float, float, float]) -> Iterator[Path]:
        yield from self._bands(box)
        thick = self.pitch * 0.44
        for x in self._steps(box[0], box[2], 0):
            yield ((x, box[1]), (x + thick, box[1]), (x + thick, box[3]), (x, box[3]))

    def _dots(self, box: tuple[float, float, float, float]) -> Iterator[Path]:
        rim = oval(0, 0, self.pitch * 0.27)
        for y in self._steps(box[1], box[3], 1):
            odd = round((y - self.phase[1]) / self.pitch) % 2 * self.pitch / 2
            for x in self._steps(box[0], box[2], 0):
                yield tuple((x + odd + a, y + b) for a, b in rim)


def _paint(canvas: Image.Image, part: Part, camera: _Camera, cloth: _Cloth) -> None:
    """Paint one part on the canvas."""
    outline = camera.place(part.path)
    if part.width:
        pen = ImageDraw.Draw(canvas)
        _stroke(pen, outline, cloth.fill(part.paint), part.width * camera.scale)
        return
    left, top = max(0, math.floor(min(x for x, _ in outline))), max(0, math.floor(min(y for _, y in outline)))
    right = min(camera.side, math.ceil(max(x for x, _ in outline)) + 1)
    bottom = min(camera.side, math.ceil(max(y for _, y in outline)) + 1)
    if right <= left or bottom <= top:
        return  # in a close-up, some parts are outside the image
    back, extent = (-left, -top), (right - left, bottom - top)
    layer = Image.new("RGB", extent, cloth.fill(part.paint))
    pen = ImageDraw.Draw(layer, "RGBA")
    if part.paint == "cloth":
        for figure in cloth.figures(part):
            pen.polygon(camera.place(figure, back), fill=cloth.thread)
    for mark in part.marks:
        ink = _INKS.get(mark.kind) or cloth.fill("deep" if mark.kind == "band" else mark.kind)
        points = camera.place(mark.path, back)
        if mark.width:
            _stroke(pen, points, ink, mark.width * camera.scale)
        else:
            pen.polygon(points, fill=ink)
    rim = [(x - left, y - top) for x, y in outline]
    pen.line([*rim, rim[0]], fill=_INKS["edge"], width=max(2, round(1.1 * camera.scale)))
    layer.paste((22, 14, 40), mask=_slope().resize(extent, Image.Resampling.NEAREST))
    mask = Image.new("L", extent)
    ImageDraw.Draw(mask).polygon(rim, fill=255)
    canvas.paste(layer, (left, top), mask)


def _stroke(pen: ImageDraw.ImageDraw, points: list[Point], ink: tuple[int, ...], width: float) -> None:
    """A line with round joints, at least two canvas pixels wide to stay visible after downscaling."""
    pen.line(points, fill=ink, width=max(2, round(width)), joint="curve")
