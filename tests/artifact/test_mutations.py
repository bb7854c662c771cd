"""Mutated artifacts, half of them sealed again: each is refused in one sentence, or opens and can be searched.

`LOOKALIKE_MUTATIONS=500` makes that many mutants of each file, and mutates the files of a text model and a map, too.
"""

import json
import os
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import contents, reseal, sealed

from retrieval import Searcher
from retrieval.artifact.layout import LAYOUT
from retrieval.artifact.parts.map import write_map
from retrieval.errors import ImageError, LookalikeError
from retrieval.images.open import open_image

ASKED = int(os.environ.get("LOOKALIKE_MUTATIONS", "0"))
COUNT = ASKED or 10
NUMBERS = [0, 1, -1, 59, 60, 255, 2**15, 2**31 - 1, 2**31, 2**32, 10**9, 2**62, 2**63 - 1]
WORDS = [b"null", b"-1", b"1e999", b"NaN", b"[]", b"{}", b'"x"', b"true", b"9" * 50, b"0.5", b"[[[[", b'"\\ud800"']


def mutated(content, draw):
    """A copy with something changed: bits, numbers, words of JSON, or a part cut out, repeated or moved."""
    data = bytearray(content)
    place = draw.randrange(draw.choice([len(data), min(len(data), 300)]))
    if draw.random() < 0.2:
        place = max(0, len(data) - 1 - place)  # the footer of a parquet file
    way = draw.randrange(7)
    if way == 0:
        data[place] ^= 1 << draw.randrange(8)
    elif way == 1:
        width = draw.choice([1, 4, 8])
        number = draw.choice(NUMBERS) % 2 ** (8 * width)
        data[place : place + width] = number.to_bytes(width, "little")
    elif way == 2:
        data[place : place + draw.randrange(1, 9)] = draw.choice(WORDS)
    elif way == 3:
        del data[place : place + draw.choice([1, 8, 1_000])]
    elif way == 4:
        data[place:place] = data[place : place + draw.choice([1, 8, 1_000])]
    elif way == 5:
        del data[place:]
    else:
        for _ in range(8):
            data[draw.randrange(len(data))] = draw.randrange(256)
    return bytes(data)


def restated(content, draw):
    """A JSON file in which one value, at any depth, is another one."""
    held = json.loads(content)
    inside, steps = held, draw.randrange(1, 5)
    for step in range(steps):
        place = draw.choice(list(inside) if isinstance(inside, dict) else range(len(inside)))
        if step == steps - 1 or not isinstance(inside[place], dict | list) or not inside[place]:
            inside[place] = draw.choice(
                [None, -1, 0, 7, 10**9, 1e300, 0.5, True, "", "x" * 300, [], [[1]], {}, {"a": 1}]
            )
            break
        inside = inside[place]
    return json.dumps(held).encode()


def answers(folder, picture):
    """What a search finds, after a look at all that is shown of each hit; every hit must be an image of the gallery."""
    searcher = Searcher.open(folder)
    hits = searcher.search(picture, k=5, fold=True)
    assert {hit.id for hit in hits} <= set(searcher.gallery.ids)
    assert all(-1 <= hit.score <= 1 for hit in hits)
    json.dumps([hit.attributes for hit in hits], default=str)
    for row in range(len(searcher.gallery)):
        try:
            open_image(searcher.gallery.thumbnail(row))
        except ImageError:
            continue  # a picture of the gallery may be damaged
    return [(hit.id, hit.label, round(hit.score, 3)) for hit in hits]


def check(folder, name, draw, right, picture, seen):
    whole = contents(folder)
    for number in range(COUNT):
        is_sealed = number % 2 == 1
        change = restated if name.endswith(".json") and draw.random() < 0.5 else mutated
        (folder / name).write_bytes(change(whole[name], draw))
        if is_sealed and name != LAYOUT.manifest:
            reseal(folder)
        elif is_sealed and change is restated:
            (folder / name).write_bytes(sealed(json.loads((folder / name).read_bytes())))
        try:
            found = answers(folder, picture)
        except LookalikeError as error:
            assert "\n" not in str(error) and len(str(error)) < 2_000
            seen[name, "refused"] += 1
        else:
            same = (folder / name).read_bytes() == whole[name]
            assert is_sealed or same or found == right, f"mutant {number} of {name} has other answers"
            seen[name, "same answers" if found == right else "other answers"] += 1
        for each in (name, LAYOUT.manifest):
            (folder / each).write_bytes(whole[each])


@pytest.fixture
def picture(pictures):
    return next(pictures.rglob("*.png"))


@pytest.mark.parametrize("name", [*LAYOUT.names(), LAYOUT.exported, f"{LAYOUT.plots}/reliability.png"])
def test_mutants_of_each_file_are_refused_or_can_be_searched(copied_artifact, picture, name):
    seen = Counter()
    check(copied_artifact, name, random.Random(name), answers(copied_artifact, picture), picture, seen)
    print(dict(seen))
    assert sum(seen.values()) == COUNT


@pytest.mark.skipif(not ASKED, reason="LOOKALIKE_MUTATIONS=N mutates text models, too, which takes minutes")
def test_mutants_of_a_text_model_and_a_map_are_refused_or_can_be_searched(twins, picture, tmp_path):
    folder = Path(shutil.copytree(twins, tmp_path / "twins"))
    store = Searcher.open(folder).store
    section = write_map(folder, store.vectors(np.arange(len(store))), "pca")
    manifest = json.loads((folder / LAYOUT.manifest).read_bytes())
    manifest["files"][LAYOUT.map] = {}
    (folder / LAYOUT.manifest).write_text(json.dumps(manifest))
    reseal(folder, **section)
    seen, right = Counter(), answers(folder, picture)
    for name in [LAYOUT.map, *LAYOUT.text_in(folder)]:
        check(folder, name, random.Random(name), right, picture, seen)
    print(dict(seen))
