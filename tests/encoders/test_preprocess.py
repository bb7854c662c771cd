"""Preprocessing with Pillow and NumPy: not a bit differs from timm's own transform."""

import json
from itertools import product

import numpy as np
import pytest
import timm
from PIL import Image
from timm.data import create_transform, resolve_data_config, resolve_model_data_config

from retrieval.encoders.description import read_description
from retrieval.encoders.preprocess import Transform, data_config_of
from retrieval.errors import EncoderError

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
# Too few numbers would leave a channel as the memory was.
WRONG_NUMBERS = [
    (0.5,),
    (0.5, 0.5),
    (0.5,) * 4,
    0.5,
    "abc",
    {"a": 1, "b": 2, "c": 3},
    (0.5, True, 0.5),
    (0.5, "1", 0.5),
    (0.5, None, 0.5),
    ((0.5,),) * 3,
    (0.5, float("nan"), 0.5),
    (float("inf"),) * 3,
    (10**400,) * 3,
    (1e300,) * 3,
]
WRONG_SIZES = [
    (1, 32, 32),
    (4, 32, 32),
    (3, 32),
    (3, 32, 32, 1),
    (3, 32.0, 32),
    (3, True, 32),
    (3, 0, 32),
    (3, -32, 32),
    (3, 32, 2**40),
    (3, 32, "32"),
    {"3": 1, "32": 1, "33": 1},
    "333",
    32,
]
SIZES = [(64, 48), (9, 30), (31, 7), (33, 32), (32, 33), (1, 1)]


def pictures():
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)) for width, height in SIZES]


def settings(mode, interpolation, crop, size):
    shown = {"input_size": size, "interpolation": interpolation, "crop_pct": crop, "crop_mode": mode}
    return {**shown, "mean": MEAN, "std": STD}


@pytest.mark.parametrize("mode", ["squash", "center", "border", "unknown"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
def test_preprocessing_is_bit_for_bit_that_of_timm(mode, interpolation):
    for crop, size in product([0.5, 0.875, 1.0, 1.15], [(3, 32, 32), (3, 21, 40)]):
        chosen = settings(mode, interpolation, crop, size)
        theirs, ours = create_transform(**chosen, is_training=False), Transform(chosen)
        for picture in pictures():
            try:
                expected = theirs(picture).numpy()
            except ValueError:  # a side that Pillow would have to resize to zero pixels
                assert ours(picture).shape == size
                continue
            found = ours(picture)
            assert (found.dtype, found.shape) == (np.float32, size)
            assert np.array_equal(found, expected), (chosen, picture.size)


def test_every_value_of_a_channel_is_normalised_as_timm_does():
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    picture = Image.fromarray(np.stack([levels, levels[::-1], levels.T], axis=-1))
    for mean, std in [(MEAN, STD), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), ((0.5,) * 3, (1 / 255,) * 3)]:
        chosen = {**settings("squash", "bicubic", 1.0, (3, 16, 16)), "mean": mean, "std": std}
        assert np.array_equal(Transform(chosen)(picture), create_transform(**chosen, is_training=False)(picture))


def test_configuration_is_the_one_that_timm_resolves():
    for name in ["resnet50", "vit_small_patch16_224", "convnext_tiny", "mobilenetv4_conv_small", "test_vit"]:
        cfg = timm.get_pretrained_cfg(name).to_dict()
        assert data_config_of(cfg) == resolve_data_config(pretrained_cfg=cfg)
    assert data_config_of({}) == resolve_data_config(pretrained_cfg={"architecture": "x"})
    model = timm.create_model("test_vit", pretrained=False)
    assert data_config_of(model.pretrained_cfg) == resolve_model_data_config(model)


def test_interpolation_that_pillow_does_not_have_is_refused():
    with pytest.raises(EncoderError, match="cannot be resized with the interpolation 'random'"):
        Transform(settings("center", "random", 1.0, (3, 32, 32)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in ("mean", "std") for value in WRONG_NUMBERS),
        ("std", (0.5, 0, 0.5)),
        ("std", (0.5, 1e-46, 0.5)),
        *(("input_size", value) for value in WRONG_SIZES),
        *(
            ("crop_pct", value)
            for value in (True, "1", (1.0,), {"a": 1}, float("nan"), float("inf"), 0.01, 4.1, -1, 10**400)
        ),
        *((name, value) for name in ("interpolation", "crop_mode") for value in (1, True, ["bicubic"], {"bicubic": 1})),
        ("interpolation", "lanczos3"),
    ],
)
def test_configuration_of_another_form_is_refused(name, value, tmp_path):
    """Also one that no config.json holds, such as that of a network made in Python."""
    chosen = {**settings("center", "bicubic", 1.0, (3, 32, 32)), name: value}
    with pytest.raises(EncoderError, match=r"^pictures cannot be "):
        Transform(chosen)
    (tmp_path / "config.json").write_text(
        json.dumps({"architecture": "test_vit", "num_classes": 0, "pretrained_cfg": chosen})
    )
    if value != "lanczos3":  # which interpolations there are is Pillow's to say
        with pytest.raises(EncoderError, match=r"^config.json does not describe a timm model: ValueError\("):
            read_description(tmp_path / "config.json")


@pytest.mark.parametrize(("crop", "side"), [(4.0, 3), (0.1, 2_048)])
def test_picture_is_never_resized_to_nothing_nor_to_very_many_pixels(crop, side):
    with pytest.raises(EncoderError, match="input_size / crop_pct must be 1 to 4,096 pixels a side"):
        Transform(settings("center", "bicubic", crop, (3, 32, side)))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("interpolation", ["nearest", "bicubic", "lanczos"])
def test_very_long_picture_is_cropped_before_it_is_resized(interpolation, turned):
    """A strip of 4 x 9,000 pixels would have 58 million if it were 160 wide, and one of 1 x 60,000 a trillion."""
    levels = np.random.default_rng(0).integers(0, 256, (9_000, 4, 3), dtype=np.uint8)
    picture = Image.fromarray(levels).transpose(Image.Transpose.ROTATE_90) if turned else Image.fromarray(levels)
    chosen = settings("center", interpolation, 0.875, (3, 140, 140))
    expected = create_transform(**chosen, is_training=False)(picture).numpy()
    assert np.abs(Transform(chosen)(picture) - expected).mean() < 0.02  # about a level of 256; noise from 0 to 255
    longer = Image.new("RGB", (60_000, 1) if turned else (1, 60_000))
    assert Transform(settings("center", interpolation, 0.5, (3, 2_048, 2_048)))(longer).any()
