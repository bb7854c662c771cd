"""Resizing a picture where it is decoded, as preprocessing would: not a bit of the network's input changes."""

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform

from retrieval.encoders.base import resize_by, resize_of
from retrieval.images.door.views import View, within
from retrieval.images.open import thumbnail_jpeg

SIZES = [(300, 100), (101, 257), (96, 96), (1333, 501), (20, 1999), (160, 161), (3, 2), (347, 480)]


def config(mode, percent, shown, interpolation="bicubic"):
    zeros, ones = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    sizes = {"input_size": (3, *shown), "crop_pct": percent, "crop_mode": mode, "interpolation": interpolation}
    return {**sizes, "mean": zeros, "std": ones}


@pytest.mark.parametrize(
    "settings",
    [
        *[config(mode, 1.0, (160, 160)) for mode in ("squash", "center", "border")],
        *[config(mode, 0.875, (96, 160)) for mode in ("squash", "center", "border")],
        config("center", 0.95, (224, 224), "bilinear"),
        config("center", 1.15, (112, 112), "lanczos"),
        config("squash", 0.9, (64, 32), "nearest"),
    ],
    ids=str,
)
def test_input_of_the_network_is_the_same_to_the_bit(settings):
    transform, view = create_transform(**settings, is_training=False), View(resize=resize_by(settings))
    dice, smaller = np.random.default_rng(0), 0
    for size in SIZES:
        image = Image.fromarray(dice.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
        seen = view.of(image)
        smaller += seen is not image
        assert seen.width * seen.height <= image.width * image.height
        assert torch.equal(transform(seen), transform(image)), size
    assert smaller >= 2


def test_encoder_says_how_it_resizes_unless_it_is_unknown(encoder):
    assert resize_of(encoder) == resize_by(encoder.data_config)
    assert resize_by({**encoder.data_config, "crop_mode": "fancy"}) is None
    assert resize_by({**encoder.data_config, "interpolation": "random"}) is None

    class Foreign:
        dim, name, fingerprint, resize = 2, "", "", "bicubic"

    assert resize_of(Foreign()) is None


@pytest.mark.parametrize("size", [*SIZES, (257, 3000), (4000, 41)])
def test_thumbnail_of_a_shrunk_picture_has_the_same_bytes(size):
    dice = np.random.default_rng(1)
    image = Image.fromarray(dice.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    assert thumbnail_jpeg(View(resize=within(256)).of(image), 256) == thumbnail_jpeg(image, 256)
