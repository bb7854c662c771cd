"""Preprocessing with Pillow and NumPy: not a bit differs from timm's own transform."""

from itertools import product

import numpy as np
import pytest
import timm
from PIL import Image
from timm.data import create_transform, resolve_data_config, resolve_model_data_config

from retrieval.encoders.preprocess import Transform, data_config_of
from retrieval.errors import EncoderError

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
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
                with pytest.raises(ValueError):
                    ours(picture)
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
