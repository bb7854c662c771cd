"""The HTML of the search tab: results, the parts of the query, earlier searches, and the line above the results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from retrieval.evaluation.confidence import percent
from retrieval.images.columns import texts_of
from retrieval.images.gallery import Row
from retrieval.search import Hit, Part, Searcher
from retrieval.ui import strings
from retrieval.ui.links import link_of
from retrieval.ui.originals import Originals, file_name
from retrieval.ui.pieces.html import render
from retrieval.ui.pieces.thumbnails import PREVIEW, ThumbnailFiles
from retrieval.ui.visit import Asked, Visit, is_gone, mark_of

_STEPS = 8  # of the trail that are shown
_STEP = 128  # pixels a side of its pictures: small, as every answer sends them again


def revision_of(searcher: Searcher) -> str:
    """The SHA-256 of the manifest of a Searcher's artifact: what an artifact is, to the last byte; "" without one."""
    return str(searcher.artifact.manifest["manifest_sha256"]) if searcher.artifact else ""


def name_of(row: Row | Hit) -> str:
    """What a person would call an image: its label, or else where it comes from."""
    return row.label or file_name(row.source)


@dataclass(frozen=True)
class Tile:
    """An image of the gallery as a template shows it: its row, what it is called, and the address of its thumbnail."""

    row: int
    name: str
    src: str
    file: str = ""
    """The name of its file, if it is called something else."""
    facts: tuple[tuple[str, list[str]], ...] = ()
    """Its source and its attributes: name and values. Those without a value are left out."""
    original: str | None = None
    """The address of the original; None if it is not available."""


class Cards:
    """HTML of a gallery's images, and of visitors' pictures."""

    def __init__(self, searcher: Searcher, thumbnails: ThumbnailFiles, originals: Originals | None = None) -> None:
        self._searcher, self._thumbnails, self._originals = searcher, thumbnails, originals or Originals()
        self.of = revision_of(searcher)

    def name(self, part: Part) -> str:
        """What a part of a query is called."""
        if part.words:
            return strings.FOUND_WORDS.format(words=part.words)
        name = strings.FOUND_PICTURE
        if part.row is not None:
            name = name_of(self._searcher.gallery.take([part.row])[0])
        return strings.FOUND_REGION.format(name=name) if part.region else name

    def title(self, asked: Asked) -> str:
        """What a whole query is called."""
        if len(asked.parts) == 1:
            name = self.name(asked.parts[0])
            return name if asked.parts[0].weight > 0 else strings.FOUND_UNLIKE.format(name=name)
        likes = sum(part.weight > 0 for part in asked.parts)
        unlikes = len(asked.parts) - likes
        sentence = strings.FOUND_BOTH if likes and unlikes else strings.FOUND_LIKES if likes else strings.FOUND_UNLIKES
        return sentence.format(likes=likes, unlikes=unlikes)

    def source(self, part: Part, side: int = PREVIEW) -> str:
        """The URL of a part's picture; an uploaded one is shrunk to at most `side` pixels a side."""
        if part.row is not None:
            return self._thumbnails.url(part.row, ".")
        return self._thumbnails.preview(str(part.image), side)

    def tile(self, row: int, values: Row | Hit) -> Tile:
        """A row of the gallery, with its values, for a template."""
        name, file = name_of(values), file_name(values.source)
        facts = [(strings.SOURCE, values.source), *values.attributes.items()]
        shown = tuple((fact, texts) for fact, value in facts if (texts := texts_of(value)))
        original = self._originals.link(self._searcher.gallery, row, values, ".")
        return Tile(row, name, self._thumbnails.url(row, "."), file if file != name else "", shown, original)

    def tiles(self, rows: Sequence[int]) -> list[Tile]:
        """Rows of the gallery for a template."""
        return [self.tile(row, values) for row, values in zip(rows, self._searcher.gallery.take(rows), strict=True)]

    def status(self, asked: Asked, hits: Sequence[Hit]) -> str:
        """The line above the results: whether the best is a confident match, and how many there are."""
        if not asked.parts:
            return render("message", message=strings.EMPTY)
        if not hits:
            own = sum(part.row is not None for part in asked.parts)
            alone = own == len(self._searcher.gallery)
            return render("message", message=strings.NO_OTHERS if alone else strings.NO_HITS)
        best = hits[0].confident
        aside = self._why_no_verdict(asked, hits[0]) if best is None else "" if best else strings.NOT_CONFIDENT_WHY
        return render("status", confident=best, count=len(hits), name=self.title(asked), aside=aside)

    def _why_no_verdict(self, asked: Asked, best: Hit) -> str:
        if self._searcher.confidence is None:
            return strings.NO_CHANCE
        if best.chance is not None:
            return strings.NO_THRESHOLD
        first = asked.parts[0]
        whole = len(asked.parts) == 1 and first.weight > 0 and not (first.words or first.region)
        if whole:
            return strings.NO_CHANCE_LABEL if best.label is None else strings.NO_THRESHOLD
        return strings.NO_CHANCE_OTHERWISE

    def around(self, rows: Sequence[int], more: bool) -> str:
        """Images to browse before the first search."""
        return render("around", tiles=self.tiles(rows), more=more, of=self.of)

    def hits(self, hits: Sequence[Hit], more: bool) -> str:
        """The results. If the best is not a confident match, they are dimmed and show no match probability."""
        unsure = bool(hits) and hits[0].confident is False
        tiled = [(hit, self.tile(hit.row, hit), self.tiles(hit.alike) if hit.alike else []) for hit in hits]
        return render("hits", hits=tiled, more=more, unsure=unsure, percent=percent, of=self.of)

    def examples(self, rows: Sequence[int]) -> str:
        """Example pictures to start with."""
        return render("examples", tiles=self.tiles(rows), of=self.of)

    def parts(self, asked: Asked) -> str:
        """The parts of the query: each can be switched between liked and disliked, removed, or narrowed to a region."""
        parts = [
            (part, mark_of(part), self.name(part), "" if part.words else self.source(part)) for part in asked.parts
        ]
        return render("parts", parts=parts, pictures=any(not part.words for part in asked.parts))

    def tools(self, visit: Visit, k: int) -> str:
        """Earlier searches, and buttons for the whole search: undo, clear, copy link, download."""
        link = link_of(visit.asked, k, self._searcher.gallery)
        return render("tools", link=link, step=len(visit.before), trail=self._trail(visit), query=visit.asked)

    def _trail(self, visit: Visit) -> list[tuple[int, str, str]]:
        """Earlier searches as (step, title, URL of a picture); steps that changed only the filters are left out."""
        steps = []
        for place, asked in enumerate(visit.before):
            following = visit.before[place + 1] if place + 1 < len(visit.before) else visit.asked
            if asked.parts and asked.parts != following.parts:
                steps.append((place, asked))
        return [(place, self.title(asked), self._first_picture(asked)) for place, asked in steps[-_STEPS:]]

    def _first_picture(self, asked: Asked) -> str:
        """The URL of its first picture that still exists; empty if there is none."""
        first = next((part for part in asked.parts if not part.words and not is_gone(part)), None)
        return self.source(first, _STEP) if first else ""
