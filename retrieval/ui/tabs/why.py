"""Why similar: the query's pictures and a hit side by side, with what each place adds to the cosine."""

from __future__ import annotations

import json

import numpy as np
import numpy.typing as npt
from PIL import Image

from retrieval.encoders.explain import Box, HeatMap
from retrieval.errors import EncoderError
from retrieval.search import Part, Searcher, is_indexed
from retrieval.ui import strings
from retrieval.ui.pieces.cards import Cards, name_of
from retrieval.ui.pieces.html import attributes, fill, text
from retrieval.ui.pieces.thumbnails import data_url
from retrieval.ui.visit import Asked

_MORE, _LESS = "#d55e00", "#0072b2"  # of Okabe and Ito: told apart with any kind of colour vision
_STRONGEST = 0.75  # opacity
_SAME = 5e-5  # of a cosine: to four digits


class Why:
    """Makes the content of the dialogue."""

    def __init__(self, searcher: Searcher, cards: Cards) -> None:
        self._searcher, self._cards = searcher, cards

    def of(self, asked: Asked, row: int) -> str:
        """Why that row is similar to what is asked for; for an encoder that cannot say, its words for that."""
        pictures = [part for part in asked.parts if not part.words]
        name = name_of(self._searcher.gallery.take([row])[0])
        blocks = [f"<p>{text(strings.WHY_SEVERAL)}</p>"] if len(asked.parts) > 1 else []
        if len(pictures) < len(asked.parts):
            blocks.append(f"<p>{text(strings.WHY_WORDS)}</p>")
        try:
            blocks += [self._pair(part, row, name, alone=len(asked.parts) == 1) for part in pictures]
            blocks.append(f'<p class="aside">{text(strings.WHY_HELP)}</p>' if pictures else "")
        except EncoderError as error:
            blocks.append(f'<p class="cannot">{text(error)}</p>')
        title = f'<h2 id="why-title">{text(strings.WHY_TITLE)}</h2>'
        close = f"<button {attributes(data_close=True, aria_label=strings.CLOSE)}>×</button>"
        return f'<dialog aria-labelledby="why-title"><header>{title}{close}</header>{"".join(blocks)}</dialog>'

    def _pair(self, part: Part, row: int, name: str, *, alone: bool) -> str:
        found = Part(row=row)
        why = self._searcher.explain_parts(part, found)
        largest = max(float(np.abs(each.cells).max()) for each in (why.query, why.hit)) or 1.0
        exactly = strings.WHY_SUM if alone else strings.WHY_SUM_ALONE
        asked = f"{self._cards.name(part)} ({strings.UNLIKED})" if part.weight < 0 else self._cards.name(part)
        figures = [
            _figure(title, called, picture, heat, _sum(heat, why.cosine, exactly, thumbnail), largest)
            for title, called, picture, heat, thumbnail in (
                (strings.WHY_QUERY, asked, self._searcher.picture(part), why.query, is_indexed(part)),
                (strings.WHY_HIT, name, self._searcher.picture(found), why.hit, True),
            )
        ]
        data = attributes(class_="pair", data_pairs=_numbers(why.pairs), data_largest=largest)
        return f"<div {data}>{''.join(figures)}</div>"


def _figure(title: str, name: str, picture: Image.Image, heat: HeatMap, said: str, largest: float) -> str:
    rows, columns = heat.cells.shape
    label = strings.WHY_MAP.format(name=name, rows=rows, columns=columns, sum=f"{heat.sum:.4f}")
    return (
        f"<figure><figcaption><strong>{text(title)}</strong> {text(name)}</figcaption>"
        f'<div class="heat" style="aspect-ratio:{picture.width}/{picture.height}">'
        f"<img {attributes(src=data_url(picture), alt=name)}>{_overlay(heat, largest, label)}</div>"
        f'<p class="sum">{said}</p><p class="cell" aria-live="polite">&nbsp;</p></figure>'
    )


def _sum(heat: HeatMap, cosine: float, exactly: str, thumbnail: bool) -> str:
    """What the cells of a map add up to, and whether that is the cosine."""
    cells = f"{heat.cells.sum(dtype=np.float64):.4f}"
    sentence = exactly if abs(heat.sum - cosine) < _SAME else strings.WHY_SUM_NEAR
    said = fill(sentence, cells=cells, bias=f"{heat.bias:.4f}", sum=f"{heat.sum:.4f}", cosine=f"{cosine:.4f}")
    return f"{said} ({text(strings.WHY_THUMBNAIL)})" if thumbnail else said


def _overlay(heat: HeatMap, largest: float, label: str) -> str:
    """The cells as squares over the part of the picture that the network saw."""
    rows, columns = heat.cells.shape
    squares = "".join(
        f'<rect x="{column}" y="{row}" width="1" height="1" {_paint(float(heat.cells[row, column]) / largest)}>'
        f"<title>{heat.cells[row, column]:+.4f}</title></rect>"
        for row in range(rows)
        for column in range(columns)
    )
    svg = attributes(
        viewBox=f"0 0 {columns} {rows}",
        preserveAspectRatio="none",
        style=_over(heat.box),
        tabindex=0,
        role="img",
        aria_label=label,
        data_cells=_numbers(heat.cells),
        data_said=strings.WHY_CELL,
    )
    return f"<svg {svg}>{squares}</svg>"


def _paint(share: float) -> str:
    return f'fill="{_MORE if share > 0 else _LESS}" fill-opacity="{min(abs(share), 1) * _STRONGEST:.3f}"'


def _over(box: Box) -> str:
    left, top, right, bottom = (100 * share for share in box)
    return f"left:{left:.2f}%;top:{top:.2f}%;width:{right - left:.2f}%;height:{bottom - top:.2f}%"


def _numbers(values: npt.NDArray[np.float32]) -> str:
    return json.dumps([[round(float(value), 5) for value in row] for row in values], separators=(",", ":"))
