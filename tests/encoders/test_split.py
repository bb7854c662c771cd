"""Splitting an embedding over the cells of a picture: exact for each network of a suitable form, refused for others."""

import numpy as np
import onnxruntime
import pytest
import timm
import torch

from retrieval.encoders.image import Encoder
from retrieval.encoders.network.split import split_of

# What each one shows: its pooling, its features, what comes after the pooling.
SUITABLE = {
    "test_resnet": {},  # a map, average pooling
    "test_convnext": {},  # a layer norm after pooling
    "test_vit2": {},  # tokens after a class token, average pooling, a layer norm
    "vit_tiny_patch16_dinov3": {"img_size": 64, "depth": 1},
    "swin_tiny_patch4_window7_224": {"img_size": 64, "window_size": 2, "depths": (1, 1, 1, 1), "embed_dim": 24},
    "vit_base_patch16_siglip_gap_224": {"img_size": 64, "depth": 1, "embed_dim": 48},
    "gmlp_ti16_224": {"img_size": 64},
}
UNSUITABLE = {
    "test_vit": {},  # a class token
    "mobilenetv3_small_050": {},  # a layer with an activation after pooling
    "vit_base_patch16_siglip_224": {"img_size": 64, "depth": 1, "embed_dim": 48},  # attention pooling
    "test_vit3": {},  # attention pooling
}


def network(name, dim=0, **options):
    """A network whose norms and last layer are not close to the identity."""
    torch.manual_seed(0)
    base = "vit_small_patch16_dinov3" if name == "vit_tiny_patch16_dinov3" else name
    model = timm.create_model(base, pretrained=False, num_classes=dim, **options).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data.add_(torch.rand_like(parameter))
    if dim:  # some start at zero
        model.get_classifier().weight.data.normal_(0, 0.1)
    side = options.get("img_size") or model.pretrained_cfg["input_size"][1]
    return model, (3, side, side)


@pytest.mark.parametrize("dim", [0, 7])
@pytest.mark.parametrize("name", SUITABLE)
def test_parts_and_bias_add_up_to_the_embedding(name, dim, tmp_path):
    model, size = network(name, dim, **SUITABLE[name])
    split = split_of(model, size)
    pixels = torch.randn(3, *size)
    with torch.inference_mode():
        embedding, parts = split(pixels)
        assert torch.equal(embedding, model(pixels))
    count, height, width, width_of_embedding = parts.shape
    assert (count, width_of_embedding) == (3, embedding.shape[1])
    assert height * width > 1
    largest = embedding.abs().max()
    assert (parts.sum(dim=(1, 2)) + split.bias - embedding).abs().max() <= 2e-6 * largest
    _check_export(split, pixels, tmp_path / "split.onnx")


def _check_export(split, pixels, path):
    axes = {name: {0: "batch"} for name in ("pixels", "embedding", "parts")}
    names = {"input_names": ["pixels"], "output_names": ["embedding", "parts"], "dynamic_axes": axes}
    torch.onnx.export(split, (pixels[:2],), str(path), opset_version=18, dynamo=False, **names)
    assert not split.model.training
    session = onnxruntime.InferenceSession(str(path))
    for few in (pixels[:1], pixels):  # other numbers of pictures than the one it was exported with
        with torch.inference_mode():
            expected = [output.numpy() for output in split(few)]
        for found, output in zip(session.run(None, {"pixels": few.numpy()}), expected, strict=True):
            assert np.allclose(found, output, atol=1e-5 * np.abs(output).max())


@pytest.mark.parametrize("name", UNSUITABLE)
def test_embedding_that_is_no_sum_over_cells_is_not_split(name):
    model, size = network(name, **UNSUITABLE[name])
    assert split_of(model, size) is None


@pytest.mark.parametrize("layer", [torch.nn.ReLU(), torch.nn.GELU(), torch.nn.Softsign()])
def test_activation_in_the_head_is_found(layer):
    model, size = network("test_resnet", 7)
    model.fc = torch.nn.Sequential(model.fc, layer, torch.nn.Linear(7, 7))
    assert split_of(model, size) is None


def test_maximum_pooling_is_found():
    for pool in ("max", "avgmax", "catavgmax"):
        model = timm.create_model("test_resnet", pretrained=False, num_classes=0, global_pool=pool).eval()
        assert split_of(model, (3, 64, 64)) is None


def test_norm_after_pooling_is_exact_for_cells_of_every_size():
    model, size = network("test_convnext", 7)
    split = split_of(model, size)
    assert split.norm.centres
    assert split.norm.epsilon == pytest.approx(model.head.norm.eps, rel=1e-4)
    features = model.forward_features(torch.randn(1, *size))
    for scale in (1e-4, 1.0, 1e4):  # where what the norm adds to the variance counts, and where it does not
        with torch.inference_mode():
            expected = model.forward_head(scale * features)
            found = split.parts(scale * features).sum(dim=(1, 2)) + split.bias
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_transformer_explains_a_picture(pictures):
    encoder = Encoder.create("test_vit2", pretrained=False, seed=0)
    assert encoder.explains
    from retrieval.images.open import open_image

    image = open_image(min(pictures.rglob("*.png")))
    cells = encoder.cells(image)
    assert cells.grid == (10, 10)
    length = np.linalg.norm(cells.embedding)
    assert np.allclose(cells.embedding / length, encoder.embed_images([image])[0], atol=1e-5)
