"""The leak audit: it finds resaved or cropped copies of a photograph, and nothing else."""

import io
from itertools import combinations

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from conftest import DATA, STARTER, needs_data
from PIL import Image, ImageEnhance

from retrieval.encoders.image import Encoder
from retrieval.sources.base import RawImage
from training.data.audit import SIMILAR, near_duplicates, same_photograph
from training.data.pixels import GREY_SIDE, Pixels
from training.model.head import features_of
from training.model.learner import Learner, starting_encoder
from training.recipe import load_recipe
from training.starter.catalogue import ARTICLES, catalogue, draw

pytestmark = pytest.mark.usefixtures("one_thread")


def grey(picture):
    scale = GREY_SIDE / max(picture.size)
    size = (round(picture.width * scale), round(picture.height * scale))
    return np.asarray(picture.convert("L").resize(size, Image.Resampling.BOX))


def recompressed(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=15)
    return Image.open(buffer).convert("RGB")


def cropped(picture, left, top, share=0.6):
    width, height = (round(side * share) for side in picture.size)
    x, y = round((picture.width - width) * left), round((picture.height - height) * top)
    return picture.crop((x, y, x + width, y + height))


SAVED_ANEW = {
    "smaller": lambda picture: picture.resize((70, 70)),
    "larger": lambda picture: picture.resize((200, 200)),
    "recompressed": recompressed,
    "brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.3),
    "paler": lambda picture: ImageEnhance.Contrast(picture).enhance(0.6),
}
CROPPED = {
    "middle": lambda picture: cropped(picture, 0.5, 0.5),
    "corner": lambda picture: cropped(picture, 0.1, 0.9),
    "smaller": lambda picture: cropped(picture, 0.8, 0.5).resize((64, 64)),
}


@pytest.fixture(scope="module")
def pictures():
    """One drawing of each article, no two alike."""
    items = {article: [item for item in catalogue() if item.article == article] for article in ARTICLES}
    return [draw(items[article][7 * number], 128) for number, article in enumerate(ARTICLES)]


@pytest.fixture(scope="module")
def noises():
    pixels = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    return [Image.fromarray(each).resize((128, 128), Image.Resampling.BICUBIC) for each in pixels]


@pytest.mark.parametrize("change", SAVED_ANEW)
def test_resaved_picture_is_recognised_as_the_same(pictures, change):
    for picture in pictures[::3]:
        other = SAVED_ANEW[change](picture)
        assert same_photograph(grey(picture), grey(other)) >= SIMILAR
        assert same_photograph(grey(other), grey(picture)) >= SIMILAR


@pytest.mark.parametrize("change", CROPPED)
def test_cropped_picture_is_recognised_as_the_same(pictures, change):
    for picture in pictures[::3]:
        other = CROPPED[change](picture)
        assert same_photograph(grey(picture), grey(other)) >= SIMILAR
        assert same_photograph(grey(other), grey(picture)) >= SIMILAR


def test_crop_of_a_wide_picture_is_recognised_unless_rotated(pictures):
    wide = pictures[0].resize((180, 100))
    part = wide.crop((40, 5, 160, 95))
    assert same_photograph(grey(wide), grey(part)) >= SIMILAR
    assert same_photograph(grey(wide), grey(part.rotate(90, expand=True))) < SIMILAR


def test_different_pictures_score_below_the_threshold(pictures, noises):
    for one, other in [
        *combinations(pictures[:5], 2),
        *combinations(noises[:3], 2),
        *zip(pictures, noises, strict=False),
    ]:
        assert same_photograph(grey(one), grey(other)) < SIMILAR


def test_blank_pictures_never_match(pictures):
    white, black = Image.new("RGB", (128, 128), "white"), Image.new("RGB", (128, 128), "black")
    nearly = Image.fromarray(250 + np.random.default_rng(0).integers(0, 5, (128, 128, 3), dtype=np.uint8))
    for one, other in [(white, white), (white, black), (white, pictures[0]), (nearly, nearly), (black, nearly)]:
        assert same_photograph(grey(one), grey(other)) < SIMILAR


def audited(held_out, train, **options):
    """The pairs found with the starter's encoder, as (index in `held_out`, index in `train`)."""
    everything = [*held_out, *train]
    features = torch.from_numpy(Encoder.load(STARTER).embed_images(everything))
    rows = [3 * number + 1 for number in range(len(everything))]  # like rows of a dataset: not consecutive
    pairs = near_duplicates(
        rows[: len(held_out)],
        rows[len(held_out) :],
        dict(zip(rows, features, strict=True)),
        dict(zip(rows, map(grey, everything), strict=True)),
        **options,
    )
    assert all(SIMILAR <= pair.similarity <= 1 for pair in pairs)
    return [(rows.index(pair.held_out), rows.index(pair.other) - len(held_out)) for pair in pairs]


def test_audit_finds_exactly_the_resaved_pictures(pictures, noises):
    """Some held-out pictures are resaved training pictures; the others resemble none of them."""
    held_out = [change(picture) for picture in pictures[:3] for change in SAVED_ANEW.values()]
    strangers = [*pictures[6:10], *noises[:2]]
    train = [*pictures[:6], *noises[2:]]
    said = []
    found = audited([*held_out, *strangers], train, progress=lambda done, total: said.append((done, total)))
    assert found == [(number, number // len(SAVED_ANEW)) for number in range(len(held_out))]
    assert said == [(len(held_out) + len(strangers),) * 2]


def test_audit_finds_most_crops(pictures, noises):
    """Most, not all: the features of a crop can differ from those of the whole picture."""
    held_out = [change(picture) for picture in pictures[:6] for change in CROPPED.values()]
    found = audited(held_out, [*pictures, *noises])
    assert len(found) >= 0.75 * len(held_out)
    assert all(row == number // len(CROPPED) for number, row in found)


def test_audit_lists_each_image_once_with_its_best_match(pictures):
    train = [pictures[1], recompressed(pictures[0]), pictures[0], cropped(pictures[0], 0, 0, 0.8)]
    assert audited([pictures[0], pictures[0]], train) == [(0, 2), (1, 2)]
    assert audited([], train) == []


@needs_data
def test_audit_finds_faces_easy_photographs_among_faces():
    """In Caltech-101, Faces_easy holds cropped photographs of Faces; 70% of them have their original in train."""
    file = pq.ParquetFile(DATA / "caltech101" / "train.parquet")
    names = datasets.Features.from_arrow_schema(file.schema_arrow)["label"].names
    table = file.read()
    label = table["label"].to_numpy()
    faces, easy = (np.flatnonzero(label == names.index(name)) for name in ("Faces", "Faces_easy"))
    draw_from = np.random.default_rng(0).permutation(np.flatnonzero(~np.isin(label, label[[faces[0], easy[0]]])))
    held_out = [*easy[::10], *draw_from[:20]]
    train = [*faces, *draw_from[20:120]]
    images = table.select(["image"]).take([*held_out, *train])["image"].to_pylist()
    rows = np.arange(len(images))
    stored = [RawImage("", data=image["bytes"]) for image in images]

    weights = str(DATA / "weights" / "mobilenetv2_100.imagenet.safetensors")
    recipe = load_recipe("frozen", {"backbone": "mobilenetv2_100", "weights": weights, "test_size": 112})
    encoder = starting_encoder(recipe)
    pixels = Pixels(stored.__getitem__, 112, encoder.data_config["interpolation"], 1)
    pixels.fill(rows)
    features = dict(enumerate(features_of(Learner(encoder, recipe, 2), pixels, rows, 112)))
    count = len(held_out)
    pairs = near_duplicates(rows[:count].tolist(), rows[count:].tolist(), features, pixels.grey)

    found = [(names[label[held_out[pair.held_out]]], names[label[train[pair.other - count]]]) for pair in pairs]
    assert set(found) == {("Faces_easy", "Faces")}
    assert 0.55 * len(easy[::10]) <= len(found) <= 0.9 * len(easy[::10])
