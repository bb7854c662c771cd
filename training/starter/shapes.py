"""Outlines of the catalogue's articles as vector drawings in code, without image files.

An article fits into a box with x and y in [-50, 50], y pointing down. It is a tuple of `Part`s, painted in order.
The marks of a part (shades, seams, highlights) are clipped to the part, so their paths may extend beyond it.
All drawings are the project's own work (Apache-2.0).
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

Point = tuple[float, float]
Path = tuple[Point, ...]

_CURVE_STEPS = 9


class Mark(NamedTuple):
    """A detail on a part: `kind` names its ink; `width` 0 fills the path, `width` > 0 strokes it (box units)."""

    kind: str
    path: Path
    width: float = 0.0


@dataclass(frozen=True)
class Part:
    """One piece of an article: `paint` names the fill of `path`; only the paint "cloth" shows the pattern.

    `angle` rotates the pattern on this piece (degrees). `bow` bends the pattern downwards in the middle (box units at
    x = 50). `width` > 0 strokes the path instead of filling it.
    """

    paint: str
    path: Path
    marks: tuple[Mark, ...] = ()
    angle: float = 0.0
    bow: float = 0.0
    width: float = 0.0


@dataclass(frozen=True)
class Article:
    """An article: parts in painting order, the centre of a close-up, and whether it stands on a floor."""

    parts: tuple[Part, ...]
    focus: Point = (0.0, 0.0)
    stands: bool = False
    upright: bool = False  # stripes are vertical, not horizontal
    weave: float = 1.0  # scale of the pattern: small or narrow pieces need a finer one


def path(text: str) -> Path:
    """Points of an outline written with the absolute SVG commands M, L, Q, C; a leading | adds its mirror image."""
    points: list[Point] = []
    for command, body in re.findall(r"([MLQC])([^MLQC]*)", text):
        numbers = [float(n) for n in body.replace(",", " ").split()]
        pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
        if command in "ML":
            points += pairs
            continue
        step = 2 if command == "Q" else 3
        for i in range(0, len(pairs), step):
            points += _curve([points[-1], *pairs[i : i + step]])
    if text.startswith("|"):
        points += [(-x, y) for x, y in reversed(points)]
    return tuple(points)


def _curve(control: list[Point]) -> list[Point]:
    """Points of a Bezier curve without its first one, by De Casteljau's algorithm."""
    found: list[Point] = []
    for step in range(1, _CURVE_STEPS + 1):
        t, level = step / _CURVE_STEPS, control
        while len(level) > 1:
            level = [((1 - t) * a[0] + t * b[0], (1 - t) * a[1] + t * b[1]) for a, b in pairwise(level)]
        found += level
    return found


def oval(x: float, y: float, rx: float, ry: float | None = None, steps: int = 20) -> Path:
    """An ellipse with centre (x, y), or a circle without `ry`, as a polygon with `steps` corners."""
    turns = [2 * math.pi * i / steps for i in range(steps)]
    return tuple((x + rx * math.cos(t), y + (rx if ry is None else ry) * math.sin(t)) for t in turns)


def _mark(kind: str, text: str | Path, width: float = 0.0) -> Mark:
    return Mark(kind, path(text) if isinstance(text, str) else text, width)


def _part(paint: str, text: str | Path, *marks: Mark, angle: float = 0.0, bow: float = 0.0, width: float = 0.0) -> Part:
    return Part(paint, path(text) if isinstance(text, str) else text, marks, angle, bow, width)


def _flip(points: Path) -> Path:
    return tuple((-x, y) for x, y in points)


def _pair(part: Part) -> tuple[Part, Part]:
    """The part and its mirror image."""
    marks = tuple(mark._replace(path=_flip(mark.path)) for mark in part.marks)
    return part, replace(part, path=_flip(part.path), marks=marks, angle=-part.angle)


def _twice(kind: str, text: str, width: float = 0.0) -> tuple[Mark, Mark]:
    mark = _mark(kind, text, width)
    return mark, mark._replace(path=_flip(mark.path))


def _shirt() -> Article:
    sleeve = _part(
        "cloth",
        "M17 -38 C27 -36 32 -31 35 -21 L45 21 L30 26 L21 -9",
        _mark("shade", "M21 -9 L27 -20 L38 26 L28 30"),
        _mark("seam", "M27 -18 L33 2", 0.5),
        angle=-14,
    )
    cuff = _part("deep", "M45.2 19.5 L47 28.5 Q39 32 31.5 33 L29 25 Q38 23.5 45.2 19.5")
    collar = _part(
        "self",
        "M0 -31.5 L9 -44 Q12.5 -42.5 15 -38 Q13 -31 9.5 -25.5 Q4 -27.5 0 -31.5",
        _mark("shade", "M0 -31.5 Q4 -27.5 9.5 -25.5 Q13 -31 15 -38 L12.6 -39 Q11 -33 8.5 -29 Q4 -30 1 -33"),
    )
    body = _part(
        "cloth",
        "|M0 -34 L9 -41 L19 -37.5 C24 -36 27 -32 27.5 -26 C26 -14 24.5 0 25 14 L26.5 36 Q26.5 40 23 41 Q14 43.5 0 43.5",
        *_twice("shade", "M27 -27 C24 -16 22 0 22.5 14 C22.5 26 24 36 23 46 L30 44 L30 -30"),
        _mark("shade", "M-14 46 C-10 30 -12 22 -18 12 C-8 20 -6 34 -9 46"),
        _mark("shade", "M0 -24 Q8 -19 11 -24 L17 -38 L8 -30"),
        *_twice("seam", "M18 -38 C21 -30 21.5 -20 24 -10", 0.6),
        _mark("glow", "M-3.4 -36 L3.4 -36 L3.4 46 L-3.4 46"),
        _mark("seam", "M3.4 -36 L3.4 46", 0.7),
        _mark("seam", "M-3.4 -36 L-3.4 46", 0.4),
        _mark("glow", "M8 -17 L19 -17 L19 -6 L13.5 -3.5 L8 -6"),
        _mark("seam", "M8 -17 L19 -17 L19 -6 L13.5 -3.5 L8 -6 L8 -17", 0.7),
        *(_mark("ivory", oval(0, y, 1.35)) for y in (-21, -8, 5, 18, 31)),
    )
    inside = _part("night", "|M0 -44.5 Q8 -45 10.5 -42 L8 -31 L0 -28")
    return Article((*_pair(sleeve), *_pair(cuff), inside, body, *_pair(collar)), focus=(2, -12))


def _dress() -> Article:
    top = _part(
        "cloth",
        "|M0 -32 C5 -32 8 -37 8.5 -47 L13.5 -47 C13.5 -40 15 -34 19 -29 C18 -21 14.5 -14 13.5 -7 L0 -6",
        *_twice("shade", "M19 -30 C14 -22 11 -15 10.5 -6 L16 -6"),
        *_twice("seam", "M9 -6 C10 -13 9 -18 7.5 -22", 0.5),
    )
    skirt = _part(
        "cloth",
        "|M0 -6 L13.5 -7 C18 8 27 26 34 41 C31 44.5 27 43 23 45 C19 47.5 15 45.5 11 47.5 C7 49 4 47.5 0 48",
        *_twice("shade", "M13 -7 C17 12 25 30 31 46 L40 44 L20 0"),
        *_twice("shade", "M7 -6 C9 12 14 32 23 50 L14 50 C11 32 8 12 7 -6"),
        _mark("shade", "M0 -6 C0 14 -1 32 -3 50 L4 50 C3 32 1 12 0 -6"),
        *_twice("glow", "M9.5 -6 C14 12 20 30 27 48 L23 48 C17 30 12 12 9.5 -6"),
        bow=3,
    )
    belt = _part("deep", "|M0 -9.5 L14 -10 L14.5 -5.2 L0 -4.4", _mark("brass", oval(0, -7.2, 2.6, 2.2)))
    back = _part("night", "|M0 -37 C5 -37 8 -40 9 -44 L10 -34 L0 -29")
    return Article((back, top, skirt, belt), focus=(0, -8))


def _trousers() -> Article:
    leg = _part(
        "cloth",
        "M-1 -42 L18 -43 C22 -30 24.5 -14 24.5 0 L23.5 47 Q16 49 9 47.6 L4.5 -2 L0 -15",
        _mark("shade", "M-1 -15 L5 -4 L10 48 L14 48 C12 28 10 4 8 -12"),
        _mark("shade", "M25 -8 C22 10 20 30 20 50 L26 50"),
        _mark("seam", "M15.5 -36 C15 -10 15.5 20 16.5 49", 0.5),
        _mark("seam", "M11 -38 C12 -31 16 -28 23 -27", 0.8),
        _mark("shade", "M11 -38 C12 -31 16 -28 23 -27 L23 -25.5 C15 -26.5 10 -31 9.5 -38"),
        angle=-2,
    )
    hem = _part("deep", "M24 43.5 L24 48 Q16 50 8.6 48.8 L8.4 44.6 Q16 46 24 43.5")
    band = _part(
        "deep",
        "|M0 -46 L17.5 -47 L18.6 -40.5 L0 -39.4",
        *_twice("loop", "M10 -49 L10.6 -38", 1.8),
        _mark("brass", oval(0, -43, 1.6)),
    )
    fly = _part("cloth", "M-0.6 -41 L4.6 -41 Q5 -26 0 -17", _mark("seam", "M4.4 -42 Q5 -26 0 -18", 0.7), angle=-2)
    seam = _part("night", "M0 -40 L0 -15", width=0.6)
    return Article((*_pair(leg), *_pair(hem), fly, seam, band), focus=(0, -16), upright=True, weave=0.8)


def _skirt() -> Article:
    pleats = tuple(
        mark
        for x in (-13.5, -8, -2.6, 2.6, 8, 13.5)
        for mark in (
            _mark("shade", f"M{x} -28 L{x * 2.35 + 3.4} 46 L{x * 2.35 - 2.4} 46"),
            _mark("seam", f"M{x} -28 L{x * 2.35 + 3.4} 46", 0.5),
        )
    )
    hem = "L36 36.4 L32 36.2 L26 39.4 L21 38.6 L14.5 41 L9.5 39.8 L3 41.4 L-3 41.4"
    body = _part(
        "cloth",
        "|M0 -27 L18 -28.5 C23 -8 32 14 40 33 " + hem.replace(" L-3 41.4", " L0 40.6"),
        *pleats,
        *_twice("shade", "M17 -30 C22 -8 30 14 37 36 L46 36"),
        bow=5,
    )
    band = _part("deep", "|M0 -36 L17 -37 Q18 -33 18.6 -28 L0 -26.4", _mark("ivory", oval(13.5, -31.6, 1.5)))
    inside = _part("night", "|M0 -39 Q12 -39.4 17 -37 L0 -34")
    return Article((inside, body, band), focus=(0, -8))


def _sneaker() -> Article:
    upper = _part(
        "cloth",
        "M45 17 C47 6 43 -6 45.5 -17 C46 -22 42 -24 38 -21 C33 -15 25 -13 18 -17 L9 -24 L-14 -8"
        " C-22 -3 -33 -2 -40 2 C-46 6 -48 11 -47.5 17",
        _mark("shade", "M-50 17 C-34 13 -6 16 14 12 C26 9 38 11 48 8 L48 20 L-50 20"),
        _mark("seam", "M18 -16 C14 -4 13 6 15 18", 0.7),
    )
    tongue = _part(
        "deep", "M16 -17 L13 -31 C12 -34 8 -35 5 -32 L-4 -22 L-2 -10", _mark("shade", "M12 -30 L4 -20 L8 -10 L18 -16")
    )
    heel = _part(
        "deep",
        "M45 17 C47 6 43 -6 45.5 -17 C46 -22 42 -24 38 -21 C35 -17.5 32 -16 29 -15 C32 -4 30 8 26 17",
        _mark("shade", "M50 17 L38 17 C42 4 40 -8 42 -24 L50 -24"),
    )
    lining = _part(
        "ivory", "M45 -16.5 C46 -22 42 -24 38 -21 C33 -15 25 -13 18 -17 L16.5 -14.5 C25 -9.5 36 -11.5 41 -18.5"
    )
    stay = _part("deep", "M19.5 -16.5 L9 -24.5 L-17 -6.5 C-15 -1 -11 1 -6 0 L8 -8 C14 -8 17 -11 19.5 -16.5")
    toe = _part(
        "ivory",
        "M-49 18 C-49 9 -44 3.4 -36 0.6 C-28 3 -23 9 -22 18",
        _mark("haze", "M-49 18 C-40 13 -30 13 -20 16 L-20 20"),
    )
    laces = tuple(
        _part("ivory", f"M{x - 3.6} {y - 3.4} Q{x + 1} {y - 1.4} {x + 5.4} {y + 4.2}", width=2.5)
        for x, y in ((-9, -8.6), (-3, -12.8), (3, -17), (8.4, -20.8))
    )
    sole = _part(
        "ivory",
        "M-48.5 15 C-30 19 -10 17 12 17.5 C26 18 38 17 47 14.5 C48.5 20 48.5 25 45 26.5 C20 28 -22 28 -43 26.5"
        " C-48 26 -50 20 -48.5 15",
        _mark("haze", "M-50 22.4 C-20 25 20 25 50 22.4 L50 30 L-50 30"),
        _mark("band", "M-49 18.6 C-30 21.8 -10 20.6 12 21 C26 21.4 38 20.6 48 18.4", 1.1),
    )
    return Article((tongue, upper, lining, heel, stay, *laces, toe, sole), focus=(-8, 0), stands=True, weave=0.82)


def _boot() -> Article:
    upper = _part(
        "cloth",
        "M-9 -38 L22 -38 C23 -22 24 -6 26 6 C27 14 27 24 26 34 L-42 34 C-45 24 -42 17 -34 13 C-22 7 -12 6 -10 -8",
        _mark("shade", "M12 -40 C15 -16 11 2 15 14 C18 22 18 30 17 36 L30 36 L26 -40"),
        _mark("shade", "M-46 34 C-32 27 -16 30 4 29 C14 28 22 28 30 26 L30 40 L-46 40"),
        _mark("glow", "M-5 -38 C-6 -18 -4 -2 -10 8 C-16 15 -26 16 -34 21 C-26 13 -14 12 -10 2 C-7 -8 -8 -24 -8 -38"),
        _mark("shade", "M-10 -7 C-4 0 4 2 10 0 C4 5 -5 5 -12 1"),
    )
    gore = _part(
        "night",
        "M3 -34 L14 -34 C15 -20 13 -8 10.5 2 Q8.5 4 6.8 2 C4 -8 2.4 -20 3 -34",
        *(_mark("glow", f"M{x} -34 L{x * 0.5 + 4.3} 3", 0.5) for x in (5, 7, 9, 11, 13)),
    )
    top = _part(
        "deep",
        "M-10 -44 Q6 -41.5 22.4 -44 L23 -34 Q6 -31.5 -9.6 -34",
        _mark("shade", "M12 -46 L12 -30 L26 -30 L26 -46"),
    )
    mouth = _part("night", "M-10 -44 Q6 -47.5 22.4 -44 Q6 -40.5 -10 -44")
    tab = _part("tan", "M19 -42 L19 -48 Q20.8 -50.4 22.6 -48 L22.6 -40", width=2.0)
    cap = _part(
        "deep",
        "M-42 34 C-45 24 -42 17 -34 13 C-28 18 -25 26 -26 34",
        _mark("glow", "M-40 25 C-39 20 -36 18 -33 17 C-35 20 -37 22 -40 25"),
    )
    heel = _part("ink", "M6 36 L28 34 L27.6 46 Q27.4 47.4 26 47.4 L9 47.4 Q7 47.4 7 45.4")
    sole = _part(
        "ink",
        "M-44 33 C-20 35 4 34 27 32.4 Q28.6 35 28 38 L6 41 C-8 41.6 -30 42 -41 41 Q-46 39 -44 33",
        _mark("welt", "M-45 34.4 C-20 36.4 4 35.4 29 33.6", 1.2),
    )
    return Article((upper, cap, gore, top, mouth, tab, heel, sole), focus=(-4, 2), stands=True, weave=0.86)


def _handbag() -> Article:
    far = _part("umber", "M-13 -12 C-13 -34 -9 -43 0 -43 C9 -43 13 -34 13 -12", width=2.6)
    near = _part("tan", "M-19 -4 C-19 -38 -13 -47.5 0 -47.5 C13 -47.5 19 -38 19 -4", width=3.6)
    gloss = _part("sand", "M-19.8 -8 C-19.6 -38 -13 -48.4 0 -48.4", width=0.8)
    body = _part(
        "cloth",
        "|M0 -13 L29 -13 C32 -13 33.4 -11 34 -8 L41.5 37 C42 41 40 43 36 43 L0 43",
        *_twice("shade", "M31 -14 C30 6 33 28 38 46 L48 46 L36 -14"),
        _mark("shade", "M-46 34 C-20 39 20 39 46 34 L46 50 L-46 50"),
        _mark("shade", "|M0 7 C12 7 24 5 34 1 L34 -16 L0 -16"),
    )
    corner = _part(
        "tan", "M42 30 C36 31 31 36 30 44 L45 44", _mark("stitch", "M42.5 28.4 C34.5 29.4 29.4 35 28.4 43.4", 0.6)
    )
    flap = _part(
        "tan",
        "|M0 -14.4 L29.5 -14.4 C33 -14.4 34.4 -12 35 -9 L36 -2 C26 2 14 4.4 0 4.4",
        _mark("stitch", "|M36 -4 C26 0 14 2.4 0 2.4", 0.6),
        _mark("sheen", "|M0 -14.4 L32 -14.4 L33 -10 C22 -8.6 12 -8 0 -8"),
    )
    ring = _pair(_part("brass", oval(19, -4.4, 2.8), _mark("umber", oval(19, -4.4, 1.4))))
    clasp = _part(
        "brass", "|M0 -0.5 L5 -0.5 Q6.4 -0.5 6.4 1 L6.4 7 Q6.4 9.5 4 9.5 L0 9.5", _mark("umber", oval(0, 5, 1.5))
    )
    return Article((far, body, *_pair(corner), flap, *ring, near, gloss, clasp), focus=(0, 0), stands=True)


def _backpack() -> Article:
    strap = _part("night", "M20 -34 C35 -28 40 -6 38.4 20 C38 32 35 38 29 42", width=5)
    loop = _part("umber", "M-9 -38 C-9 -51.4 9 -51.4 9 -38", width=3.4)
    body = _part(
        "cloth",
        "|M0 -41 L11 -41 C24 -41 32.4 -33 32.4 -20 L34 36 C34.4 43 31 46.4 25 46.4 L0 46.4",
        *_twice("shade", "M22 -46 C28 -30 29 10 29 50 L40 50 L40 -40"),
        _mark("deepen", "|M0 7 L21 7 C26 7 28 10 28 14 L28.4 38 C28.4 42 25 45.4 20 45.4 L0 45.4"),
    )
    lid = _part(
        "deep",
        "|M0 -41.6 L11 -41.6 C25 -41.6 33 -33 33 -20 L33 -15 C22 -10 11 -9 0 -9",
        _mark("shade", "M16 -50 C26 -38 27 -22 26 -8 L40 -8 L40 -50"),
        _mark("stitch", "|M33 -17.4 C22 -12.4 11 -11.4 0 -11.4", 0.6),
        _mark("glow", "M-29 -26 C-27 -34 -21 -38 -13 -38.8 C-19 -36 -23 -32 -25 -25"),
    )
    under = _part("gloom", "|M0 -10 C11 -10 22 -11 33 -16 L33 -12.6 C22 -7 11 -6 0 -6")
    pocket = _part(
        "cloth",
        "|M0 9 L20 9 C23.4 9 25 11 25 14 L25.6 36 C25.6 40 23.4 42 20 42 L0 42",
        *_twice("shade", "M21 8 C22 20 22 32 22 44 L30 44 L30 8"),
        _mark("shade", "M-30 15 L30 15 L30 18 L-30 18"),
    )
    top = _part(
        "deep",
        "|M0 8.6 L20 8.6 C24 8.6 25.4 11 25.4 15.4 L0 15.4",
        _mark("brasswire", "M-21.6 12.2 L21.6 12.2", 1.2),
    )
    pull = _part("tan", "M18 12 L20 19.6", width=2.4)
    belts = _pair(_part("tan", "M13.4 -24 L15 7", _mark("sand", "M12 -2 L12 2", 1), width=4.0))
    buckles = _pair(
        _part(
            "brass",
            "M10.8 -5.6 L17.6 -5.9 L18 0.1 L11.2 0.4",
            _mark("umber", "M12.6 -4 L16.2 -4.1 L16.4 -1.5 L12.8 -1.4"),
        )
    )
    return Article(
        (*_pair(strap), loop, body, under, pocket, top, pull, lid, *belts, *buckles), focus=(0, 6), stands=True
    )


def _cap() -> Article:
    crown = _part(
        "cloth",
        "M-24 17 C-26 -8 -14 -28 9 -29 C32 -29.4 44 -12 43 17 C24 23 -4 23 -24 17",
        _mark("shade", "M22 -30 C36 -18 36 4 32 24 L50 24 L50 -30"),
        _mark("shade", "M-30 12 C-6 18 24 18 50 12 L50 30 L-30 30"),
        _mark("glow", "M-17 -2 C-14 -14 -6 -22 3 -25 C-4 -18 -9 -10 -11 0"),
        _mark("seam", "M9 -29 C-6 -20 -9 0 -6 22", 0.8),
        _mark("seam", "M9 -29 C22 -20 26 0 24 22", 0.8),
        *(_mark("deepen", oval(x, y, 1.2)) for x, y in ((0, -12), (17, -13), (33, -11), (-13, -8))),
        bow=4,
    )
    knob = _part("deep", oval(9, -29.4, 4, 2.2))
    brim = _part(
        "deep",
        "M-22 11 C-10 15 6 17.6 18 18.6 C10 24 -8 27 -24 26 C-38 25 -48 27 -49 24.6 C-49.6 21 -38 11.4 -22 11",
        _mark("shade", "M-50 25 C-36 20 -10 25 20 17 L20 30 L-50 30"),
        _mark("stitch", "M-45 23.4 C-37 16 -28 14 -20 14.4 C-8 17 2 19 10 20", 0.5),
        _mark("stitch", "M-40 23.4 C-34 18.4 -27 16.8 -20 17.2 C-9 19.6 0 21 6 21.6", 0.5),
    )
    band = _part("night", "M18 18.6 C30 18.6 38 18 43 16.4 L43 20 C36 22 26 22.6 14 21")
    return Article((band, crown, knob, brim), focus=(-2, -2), stands=True, weave=0.9)


def _mug() -> Article:
    handle = _part("self", "M24 -18 C46 -24 50 4 40 15 C35 20 30 21 24 22", width=7.5)
    inner = _part("deep", "M25 -15.4 C43 -21 46.4 3 37.8 12.6 C33 17.6 29 18.4 25 19.6", width=1.6)
    body = _part(
        "cloth",
        "M-33 -34 C-33 -27 27 -27 27 -34 L26 30 C25.6 38 20 42.6 12 43 Q-3 44.6 -18 43 C-26 42.6 -31.6 38 -32 30",
        _mark("shade", "M10 -36 C13 -10 13 20 8 48 L30 48 L30 -36"),
        _mark("shade", "M19 -36 C21 -10 21 20 17 48 L30 48 L30 -36"),
        _mark("shade", "M-36 -36 L-30 -30 C-29 0 -30 26 -25 46 L-36 46"),
        _mark(
            "gleam", "M-24 -24 C-25 -4 -25 14 -23 30 Q-21.4 33 -19.6 30 C-20.6 12 -20.6 -4 -19.4 -23.4 Q-22 -26 -24 -24"
        ),
        bow=14,
    )
    rim = _part("pale", oval(-3, -34, 30, 8.4, 36))
    well = _part("night", oval(-3, -33.7, 27.2, 6.6, 36))
    coffee = _part(
        "coffee",
        "M-27.6 -31 C-18 -35 12 -35 21.6 -31 C14 -25.6 -20 -25.6 -27.6 -31",
        _mark("sheen", "M-22 -30.6 C-14 -33 -6 -33.4 2 -33.2 C-6 -31.6 -14 -30.4 -19 -29"),
    )
    return Article((handle, inner, body, rim, well, coffee), focus=(0, -8), stands=True)


def _umbrella() -> Article:
    rod = _part("umber", "M0 -44 L0 37 C0 48.6 -14 48.6 -14 38.6", width=2.4)
    grip = _part("tan", "M0 26 L0 37 C0 48.6 -14 48.6 -14 38.6", width=4.2)
    tip = _part("umber", "M0 -49 L0 -36", width=1.8)
    under = _part("night", "|M0 2 C14 2 30 0 45 6 Q36 -6 30 -8 L0 -10")
    side = _part(
        "cloth",
        "M0 -40 C26 -39 44 -20 48 7 C44 2 37 0.4 29 3.4 C27 -14 16 -32 0 -40",
        _mark("shade", "M0 -40 C22 -32 34 -14 36 10 L56 14 L50 -30"),
        angle=38,
    )
    middle = _part(
        "cloth",
        "|M0 -40 C15 -32 27 -14 29.6 3.6 C27 -1 21 -2.4 10.6 2.6 L10.6 2.6 C8 -1 4 -2.4 0 -2.4",
        _mark("seam", "M0 -40 C7 -28 10.4 -12 10.6 4", 0.6),
        _mark("seam", "M0 -40 C-7 -28 -10.4 -12 -10.6 4", 0.6),
        _mark("shade", "M0 -40 C7 -28 10.4 -12 10.6 4 L32 6 C28 -14 16 -32 0 -40"),
        _mark("glow", "M-2 -38 C-16 -30 -22 -16 -25 -3 C-25 -3 -20 -4 -18 -2 C-17 -14 -12 -28 -2 -38"),
    )
    crease = _pair(_part("gloom", "M0 -40 C15 -32 27 -14 29.6 3.6", width=0.7))
    knob = _part("deep", oval(0, -39.6, 3, 1.8))
    return Article((under, rod, grip, tip, *_pair(side), middle, *crease, knob), focus=(0, -10))


def _armchair() -> Article:
    legs = _pair(_part("wood", "M26 34 L35 34 L33 48 L29.6 48"))
    far = _pair(_part("umber", "M18 36 L23 36 L22 44 L19.6 44"))
    back = _part(
        "cloth",
        "|M0 -43 C10 -43.6 20 -42 26 -38 C32 -34 33 -28 33 -20 L33 20 L0 20",
        *_twice("shade", "M29 -44 C26 -30 27 -6 27 20 L38 20 L38 -40"),
        _mark("shade", "M-30 -2 L30 -2 L30 22 L-30 22"),
        _mark("seam", "|M0 -40 C10 -40.4 18 -39 23.4 -35.6 C28.4 -32 29.4 -27 29.4 -20 L29.4 20", 0.6),
        *(_mark("button", oval(x, y, 1.5)) for x, y in ((-13, -24), (0, -25), (13, -24), (-6.5, -12), (6.5, -12))),
    )
    front = _part(
        "cloth",
        "|M0 18 L30 18 L30 37 L0 37",
        _mark("shade", "M-40 15 L40 15 L40 24 L-40 24"),
        _mark("shade", "M-40 33 L40 33 L40 40 L-40 40"),
    )
    seat = _part(
        "cloth",
        "|M0 3 L22 3 C26 3 28 5 28 9 L28 15 C28 19 26 20.4 22 20.4 L0 20.4",
        _mark("shade", "M-40 14 L40 14 L40 24 L-40 24"),
        _mark("glow", "M-40 2 L40 2 L40 8 L-40 8"),
    )
    arm = _part(
        "cloth",
        "M25 4 C25 -5 29 -9 35 -9 C42 -9 46 -4 46 4 L43 34 Q42.6 38 39 38 L29 38 Q25.6 38 25.6 34",
        _mark("shade", "M25 4 L25 40 L29 40 C27.6 24 27 14 29 2"),
        _mark("shade", "M40 -10 C42 6 39 24 38 40 L48 40 L50 -10"),
        _mark("seam", "M28 38 C27.6 24 28.4 14 28.6 4 C29 -3 31 -6 35 -6 C40 -6 43 -3 43 4 L40 38", 0.6),
    )
    return Article((*far, *legs, back, front, seat, *_pair(arm)), focus=(0, -4), stands=True)


_DRAWN: tuple[Callable[[], Article], ...] = (
    _shirt, _dress, _trousers, _skirt, _sneaker, _boot, _handbag, _backpack, _cap, _mug, _umbrella, _armchair,
)  # fmt: skip
SHAPES: dict[str, Article] = {build.__name__[1:]: build() for build in _DRAWN}
