"""Splitting an embedding over the cells of a picture: exact for each network of a suitable form, refused for others."""

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from timm.layers import LayerNormAct, RmsNorm2d

from retrieval.encoders.image import Encoder
from retrieval.encoders.network.backbone import put_head
from retrieval.encoders.network.heads import Head
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


@pytest.mark.parametrize("bias", [0.0, 30.0, 1e4])
@pytest.mark.parametrize("name", ["test_convnext", "test_vit2", "test_vit4", "test_resnet"])
def test_relu_that_a_norm_keeps_from_clipping_is_found(name, bias):
    """A norm bounds what the head gets, so that large biases hide the ReLU from pictures of every contrast."""
    model, size = network(name)
    put_head(model, "64-relu-7")
    head = next(part for part in model.eval().modules() if isinstance(part, Head))
    head[0].bias.data.fill_(bias)
    assert split_of(model, size) is None
    del head[1]  # the same without the ReLU
    assert split_of(model, size) is not None


def test_relu_in_the_norm_itself_is_found():
    model, size = network("test_convnext", 7)
    model.head.norm = torch.nn.Sequential(
        torch.nn.Flatten(), LayerNormAct(model.num_features), torch.nn.Unflatten(1, (-1, 1, 1))
    )
    model.head.norm[1].bias.data.fill_(1e4)
    assert split_of(model.eval(), size) is None
    model.head.norm[1].act = torch.nn.Identity()
    assert split_of(model, size) is not None


@pytest.mark.parametrize("name", ["test_vit4", "test_convnext"])
def test_rms_norm_after_pooling_is_exact(name):
    model, size = network(name, 7)
    if name == "test_convnext":  # not its own norm
        model.head.norm = RmsNorm2d(model.num_features)
        model.head.norm.weight.data.add_(torch.rand(model.num_features))
    split = split_of(model.eval(), size)
    assert not split.norm.centres
    assert split.norm.epsilon == pytest.approx(1e-6, rel=1e-4)
    with torch.inference_mode():
        embedding, parts = split(torch.randn(3, *size))
    assert (parts.sum(dim=(1, 2)) + split.bias - embedding).abs().max() <= 2e-6 * embedding.abs().max()


class OwnNorm(torch.nn.Module):
    def forward(self, cells):
        return cells / (cells.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()


def test_norm_behind_which_nothing_can_be_tested_is_refused():
    model, size = network("test_convnext", 7)
    model.head.norm = OwnNorm()
    assert split_of(model, size) is None


@pytest.mark.parametrize(
    ("name", "height", "width", "options"),
    [
        ("test_resnet", 64, 128, {}),
        ("test_vit2", 64, 96, {"img_size": (64, 96)}),
        ("vit_small_patch16_dinov3", 96, 64, {"img_size": (96, 64), "depth": 1}),
        ("swin_tiny_patch4_window7_224", 64, 128, {**SUITABLE["swin_tiny_patch4_window7_224"], "img_size": (64, 128)}),
    ],
)
def test_bright_patch_changes_the_part_of_its_own_cell_most(name, height, width, options):
    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False, num_classes=0, **options).eval()
    split = split_of(model, (3, height, width))
    with torch.inference_mode():
        plain = split(torch.zeros(1, 3, height, width))[1][0]
        rows, columns = plain.shape[:2]
        assert rows / columns == height / width  # not square, so that rows cannot be taken for columns
        down, right = height // rows, width // columns
        for row in range(rows):
            for column in range(columns):
                picture = torch.zeros(1, 3, height, width)
                picture[..., row * down : (row + 1) * down, column * right : (column + 1) * right] = 3
                change = (split(picture)[1][0] - plain).norm(dim=2)
                assert divmod(int(change.argmax()), columns) == (row, column)


def test_transformer_explains_a_picture(pictures):
    encoder = Encoder.create("test_vit2", pretrained=False, seed=0)
    assert encoder.explains
    from retrieval.images.open import open_image

    image = open_image(min(pictures.rglob("*.png")))
    cells = encoder.cells(image)
    assert cells.grid == (10, 10)
    length = np.linalg.norm(cells.embedding)
    assert np.allclose(cells.embedding / length, encoder.embed_images([image])[0], atol=1e-5)
