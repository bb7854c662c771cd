"""From files to batches: the cache of decoded pictures, augmentation, and which images form a batch."""

from collections import Counter

import numpy as np
import pytest
import torch
from conftest import noise, png, sha256, tiny_recipe
from PIL import Image

from retrieval.errors import ImageError
from retrieval.images.open import open_image
from retrieval.sources.base import RawImage
from training.data.batches import Batches, ClassSampler, augmentation
from training.data.pixels import Pixels
from training.model.learner import Learner, starting_encoder
from training.starter.catalogue import catalogue, draw

SIDE = 48


def rows_of(files):
    """A function from a row to its undecoded image; each file is given as bytes or as a path."""
    return [
        RawImage(f"row {number}", data=file) if isinstance(file, bytes) else RawImage(f"row {number}", path=str(file))
        for number, file in enumerate(files)
    ].__getitem__


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pictures of several shapes, in memory and on disk; row 3 is not a picture and row 6 is truncated."""
    folder = tmp_path_factory.mktemp("files")
    drawn = [draw(item, 80) for item in catalogue()[::150]]
    wide, tall = drawn[0].resize((120, 50)), drawn[1].resize((30, 90))
    cut = folder / "cut.png"
    cut.write_bytes(png(drawn[2])[:500])
    return [
        png(wide),
        png(tall),
        noise(folder / "noise.jpg", 1),
        b"no picture",
        *map(png, drawn[3:5]),
        cut,
        png(drawn[5]),
    ]


GOOD = (0, 1, 2, 4, 5, 7)


def direct(file):
    image = open_image(file).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(image).transpose(2, 0, 1)


def filled(files, rows, images_kept):
    pixels = Pixels(rows_of(files), SIDE, "bilinear", images_kept * 3 * SIDE * SIDE / 1e9)
    pixels.fill(rows)
    return pixels


@pytest.mark.parametrize(("room", "kept"), [(0, 0), (3, 3), (3.9, 3), (100, 6)])
def test_cached_pictures_equal_freshly_decoded_ones(files, room, kept):
    pixels = filled(files, range(len(files)), room)
    assert pixels.kept == kept
    for row in GOOD:
        assert pixels[row].dtype == torch.uint8
        assert np.array_equal(pixels[row].numpy(), direct(files[row]))
    assert np.array_equal(pixels.batch([7, 0, 7]).numpy(), np.stack([direct(files[row]) for row in (7, 0, 7)]))


def test_only_requested_rows_are_decoded_in_advance(files):
    pixels = filled(files, [7, 2], 100)
    assert pixels.kept == 2
    assert sorted(pixels.sha256) == sorted(pixels.grey) == [2, 7]
    assert np.array_equal(pixels[0].numpy(), direct(files[0]))


def test_cached_pictures_do_not_need_their_files(tmp_path):
    paths = [noise(tmp_path / f"{number}.png", number) for number in range(4)]
    pixels = filled(paths, range(4), 2)
    expected = [direct(path) for path in paths]
    for path in paths:
        path.unlink()
    for row in (0, 1):
        assert np.array_equal(pixels[row].numpy(), expected[row])
    with pytest.raises(ImageError):
        pixels[2]


def test_unreadable_images_are_found_when_filling_the_cache(files):
    said = []
    pixels = Pixels(rows_of(files), SIDE, "bilinear", 1)
    pixels.fill(range(len(files)), lambda done, total: said.append((done, total)))
    assert said == [(8, 8)]
    assert sorted(pixels.bad) == [3, 6]
    assert "cut short" in pixels.bad[6]
    for row, reason in pixels.bad.items():
        with pytest.raises(ImageError) as raised:
            pixels[row]
        assert str(raised.value) == reason
    assert set(pixels.sha256) == set(pixels.grey) == set(GOOD)
    for row in GOOD:
        content = files[row] if isinstance(files[row], bytes) else files[row].read_bytes()
        assert pixels.sha256[row] == sha256(content)
        grey, image = pixels.grey[row], open_image(files[row])
        assert grey.dtype == np.uint8
        assert max(grey.shape) == 64
        assert grey.shape[0] / grey.shape[1] == pytest.approx(image.height / image.width, rel=0.03)
        assert float(grey.mean()) == pytest.approx(np.asarray(image.convert("L")).mean(), abs=1)


def test_training_pixels_equal_what_the_encoder_sees(files):
    recipe = tiny_recipe()
    encoder = starting_encoder(recipe)
    images = [open_image(files[row]) for row in GOOD]
    expected, embedded = (
        torch.stack([torch.from_numpy(encoder.preprocess(image)) for image in images]),
        encoder.embed_images(images),
    )
    learner = Learner(encoder, recipe, 3)
    pixels = Pixels(rows_of(files), recipe.test_size, encoder.data_config["interpolation"], 1)
    pixels.fill(GOOD)
    assert torch.allclose(learner.normalised(pixels.batch(GOOD)), expected, atol=1e-5)
    vectors = torch.nn.functional.normalize(learner.embed(pixels.batch(GOOD), recipe.test_size), dim=1)
    assert np.allclose(vectors.numpy(), embedded, atol=1e-5)


# Augmentation


ALL = {"crop": 0.4, "flip": True, "jitter": 0.3, "rotation": 20, "shift": 0.2, "erasing": 0.5}
NONE = {"crop": 1, "flip": False, "jitter": 0, "rotation": 0, "shift": 0, "erasing": 0}


def batches(files, **changes):
    recipe = tiny_recipe(image_size=32, **changes)
    return Batches(filled(files, GOOD, 3), {row: row % 3 for row in GOOD}, augmentation(recipe))


def test_augmented_picture_depends_only_on_its_key(files):
    whole = batches(files, **ALL)
    keys = [(row, draw) for row in GOOD for draw in (5, 2**61)]
    first = [whole[key] for key in keys]
    assert [int(item["labels"]) for item in first] == [row % 3 for row, _ in keys]
    assert all(item["pixels"].shape == (3, 32, 32) and item["pixels"].dtype == torch.uint8 for item in first)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    for key, item in reversed(list(zip(keys, first, strict=True))):
        assert torch.equal(whole[key]["pixels"], item["pixels"])
    assert torch.equal(torch.get_rng_state(), before), "and draws nothing from the generator that dropout draws from"
    for one, other in zip(first[::2], first[1::2], strict=True):
        assert not torch.equal(one["pixels"], other["pixels"])


def test_worker_processes_make_the_same_pictures(files):
    whole = batches(files, **ALL)
    keys = [(row, draw) for draw in range(2) for row in GOOD]
    loaded = torch.utils.data.DataLoader(whole, batch_size=4, sampler=keys, num_workers=2)
    pictures = torch.cat([batch["pixels"] for batch in loaded])
    assert torch.equal(pictures, torch.stack([whole[key]["pixels"] for key in keys]))


def test_picture_is_unchanged_without_augmentation(files):
    plain = batches(files, **NONE)
    for row in GOOD:
        image = Image.fromarray(direct(files[row]).transpose(1, 2, 0)).resize((32, 32), Image.Resampling.BILINEAR)
        found, expected = plain[row, 3]["pixels"].float(), torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
        assert float((found - expected).abs().max()) <= 1.5
    flipped = batches(files, **{**NONE, "flip": True})
    straight, mirrored = plain[0, 0]["pixels"], plain[0, 0]["pixels"].flip(2)
    found = [flipped[0, draw]["pixels"] for draw in range(60)]
    counts = [sum(torch.equal(picture, each) for picture in found) for each in (straight, mirrored)]
    assert sum(counts) == 60
    assert 15 <= counts[0] <= 45


@pytest.mark.parametrize("key", ["crop", "jitter", "rotation", "shift", "erasing"])
def test_each_augmentation_setting_changes_pictures(files, key):
    plain, changed = batches(files, **NONE), batches(files, **{**NONE, key: ALL[key]})
    different = [not torch.equal(plain[0, draw]["pixels"], changed[0, draw]["pixels"]) for draw in range(40)]
    assert 10 <= sum(different) <= (30 if key == "erasing" else 40)


# Batches of classes


def sampler(sizes, **changes):
    """A sampler over classes with these numbers of images; row = 1000 * class + number."""
    rows_of = [[1000 * label + number for number in range(size)] for label, size in enumerate(sizes)]
    return ClassSampler(rows_of, tiny_recipe(**changes))


def drawn(made, epoch=0):
    made.epoch = epoch
    return list(made)


SIZES = (2, 3, 7, 12, 20, 30, 26)


@pytest.mark.parametrize("balance", [0, 0.5, 1])
def test_batch_has_the_set_number_of_classes_and_images(balance):
    made = sampler(SIZES, classes_per_batch=5, images_per_class=4, balance=balance)
    rows = [row for row, _ in drawn(made)]
    assert len(rows) == len(made) == sum(SIZES) // 20 * 20
    for start in range(0, len(rows), 20):
        batch = rows[start : start + 20]
        groups = [batch[place : place + 4] for place in range(0, 20, 4)]
        labels = [{row // 1000 for row in group} for group in groups]
        assert all(len(label) == 1 for label in labels)
        assert len(set.union(*labels)) == 5
        for group in groups:
            size = SIZES[group[0] // 1000]
            assert all(row % 1000 < size for row in group)
            assert len(set(group)) == 4 if size >= 4 else len(set(group)) <= size


def test_batches_depend_only_on_seed_and_epoch():
    made = sampler(SIZES, classes_per_batch=3, images_per_class=4, seed=1)
    first, second = drawn(made), drawn(made, epoch=1)
    assert first != second
    assert len({*first, *second}) == 2 * len(made), "no picture is made twice in the same way"
    np.random.seed(5)
    torch.manual_seed(5)
    assert drawn(made) == first
    assert drawn(sampler(SIZES, classes_per_batch=3, images_per_class=4, seed=1), epoch=1) == second
    assert drawn(sampler(SIZES, classes_per_batch=3, images_per_class=4, seed=2)) != first


@pytest.mark.parametrize("balance", [0, 0.5, 1])
def test_classes_are_drawn_as_often_as_the_balance_setting_says(balance):
    sizes = (5, 10, 20, 45)
    made = sampler(sizes, classes_per_batch=2, images_per_class=2, balance=balance)
    found = Counter(row // 1000 for epoch in range(150) for row, _ in drawn(made, epoch)[::2])
    batches = 150 * (80 // 4)
    share = np.array(sizes, float) ** balance
    share /= share.sum()
    # The probability of being one of two classes drawn in turn without replacement.
    for label, own in enumerate(share):
        chance = own + sum(first * own / (1 - first) for other, first in enumerate(share) if other != label)
        deviation = (batches * chance * (1 - chance)) ** 0.5
        assert abs(found[label] - batches * chance) < 5 * deviation + 1e-9, label


def test_images_of_a_class_are_drawn_equally_often():
    made = sampler((6, 6), classes_per_batch=2, images_per_class=3)
    found = Counter(row for epoch in range(200) for row, _ in drawn(made, epoch))
    assert len(found) == 12
    assert all(abs(count - 200) < 5 * 200**0.5 for count in found.values())


def test_one_image_per_class_means_a_plain_shuffle():
    made = sampler(SIZES, classes_per_batch=8, images_per_class=1, triplet="none", balance=0)
    rows = [row for row, _ in drawn(made)]
    everything = {1000 * label + number for label, size in enumerate(SIZES) for number in range(size)}
    assert len(rows) == len(set(rows)) == len(made) == 96
    assert set(rows) < everything
    assert rows != sorted(rows)
    assert {row for epoch in range(20) for row, _ in drawn(made, epoch)} == everything


def test_batch_with_more_classes_than_exist_is_an_error():
    with pytest.raises(ValueError, match="classes_per_batch is 8, but there are only 7 classes"):
        sampler(SIZES, classes_per_batch=8, images_per_class=2)
    assert drawn(sampler((2, 2), classes_per_batch=2, images_per_class=4)) == [], "8 images are no batch of 4"
