"""Explain: the cosine of a hit is split into contributions of the cells of both images, which sum to it again."""

import math
import threading

import numpy as np
import pytest
import torch
from conftest import DATA, needs_data
from PIL import Image

from retrieval.artifact.load import load_artifact
from retrieval.encoders.explain import explain, seen_box
from retrieval.encoders.image import Encoder
from retrieval.errors import EncoderError
from retrieval.images.open import open_image
from retrieval.query import Query
from retrieval.search import Searcher
from training.starter.catalogue import ARTICLES, Item, draw

MOBILENET = DATA / "weights" / "mobilenetv2_100.imagenet.safetensors"
SHIRT, MUG = (Item(article, "red", "striped", "front", seed=7) for article in ("shirt", "mug"))


def with_statistics(encoder):
    """The encoder with batch norm statistics as after training, not the zeros and ones of a fresh network."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in encoder.model.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.1, generator=generator)
                part.running_var.uniform_(0.5, 1.5, generator=generator)
                part.weight.uniform_(0.5, 1.5, generator=generator)
                part.bias.normal_(0, 0.1, generator=generator)
    return Encoder.of(encoder.model)


def random_one(backbone, **options):
    return with_statistics(Encoder.create(backbone, pretrained=False, **{"seed": 0, **options}))


def check_sums(encoder, query, hit):
    """Check every sum of an explanation against the embeddings of the two images."""
    asked, found = encoder.embed_images([query, hit]).astype(np.float64)
    why = explain(encoder, query, hit, found.astype(np.float32))
    cosine = asked @ found
    assert why.cosine == pytest.approx(cosine, abs=1e-5)
    for heat in (why.query, why.hit):
        assert (heat.cells.dtype, heat.cells.ndim) == (np.float32, 2)
        assert heat.sum == pytest.approx(cosine, abs=1e-5)
        assert heat.cells.std() > 0
    assert why.pairs.shape == (why.query.cells.size, why.hit.cells.size)
    assert why.pairs.sum(dtype=np.float64) + why.pairs_bias == pytest.approx(cosine, abs=1e-5)
    return why


@pytest.mark.parametrize("size", [0, 128])
def test_cell_contributions_sum_to_the_cosine_with_resnet50(size):
    why = check_sums(random_one("resnet50", embedding_size=size), draw(SHIRT, 256), draw(MUG, 96))
    assert why.query.cells.shape == why.hit.cells.shape == (7, 7)
    if size == 0:
        assert why.query.bias == why.hit.bias == why.pairs_bias == 0


def test_cell_contributions_sum_to_the_cosine_with_a_biased_head():
    encoder = random_one("test_resnet", embedding_size=16)
    with torch.no_grad():
        encoder.model.get_classifier().bias.normal_(0, 1, generator=torch.Generator().manual_seed(0))
    why = check_sums(Encoder.of(encoder.model), draw(SHIRT), draw(MUG))
    assert min(abs(why.query.bias), abs(why.hit.bias), abs(why.pairs_bias)) > 0.01


def test_cell_contributions_sum_to_the_cosine_on_a_rectangular_map():
    model = random_one("test_resnet").model
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (3, 96, 160)}
    assert check_sums(Encoder.of(model), draw(SHIRT), draw(MUG)).query.cells.shape == (3, 5)


def test_cell_contributions_match_a_class_activation_map(encoder):
    """The class activation map is computed here from the feature map and the weights of the head."""
    shirt, mug = draw(SHIRT), draw(MUG)
    vector = encoder.embed_images([mug])[0]
    head = encoder.model.get_classifier()
    with torch.inference_mode():
        features = encoder.model.forward_features(torch.from_numpy(encoder.preprocess(shirt))[None])[0]
        length = encoder.model(torch.from_numpy(encoder.preprocess(shirt))[None]).norm()
        activation = torch.einsum("chw,dc,d->hw", features, head.weight, torch.from_numpy(vector))
    expected = activation / (features[0].numel() * length)
    assert np.allclose(explain(encoder, shirt, mug, vector).query.cells, expected.numpy(), atol=1e-5)


def test_pair_contributions_are_products_of_the_cell_features():
    encoder = random_one("test_resnet")
    why = explain(encoder, draw(SHIRT), draw(MUG), encoder.embed_images([draw(MUG)])[0])
    with torch.inference_mode():
        one, other = (
            encoder.model.forward_features(torch.from_numpy(encoder.preprocess(picture))[None])[0].flatten(1)
            for picture in (draw(SHIRT), draw(MUG))
        )
    expected = (one.T @ other) / one.sum(dim=1).norm() / other.sum(dim=1).norm()
    assert np.allclose(why.pairs, expected.numpy(), atol=1e-5)


def test_cells_are_computed_on_the_encoder_thread():
    encoder = random_one("test_resnet")
    threads = set()
    encoder.model.conv1.register_forward_hook(lambda *_: threads.add(threading.current_thread().name))
    assert encoder.explains
    encoder.cells(draw(SHIRT))
    assert threads == {"encoder_0"}


@needs_data
def test_cell_contributions_sum_to_the_cosine_with_real_weights():
    check_sums(Encoder.create("mobilenetv2_100", weights=MOBILENET), draw(SHIRT, 256), draw(MUG, 256))


def test_explanation_matches_the_score_of_the_search(artifact):
    loaded = load_artifact(artifact)
    searcher = Searcher(loaded.encoder, loaded.store, loaded.gallery)
    for article in ARTICLES[:4]:
        picture = draw(Item(article, "green", "striped", "tilted", seed=99), 200)
        vector = loaded.encoder.embed_images([picture])[0]
        for hit in searcher.find(Query(vector), 3):
            indexed = loaded.store.vectors(np.array([hit.row]))[0]
            thumbnail = open_image(loaded.gallery.thumbnail(hit.row))
            why = explain(loaded.encoder, picture, thumbnail, indexed, vector)
            assert why.cosine == pytest.approx(hit.score, abs=1e-5)
            assert why.query.sum == pytest.approx(hit.score, abs=1e-5)
            of_thumbnail = loaded.encoder.embed_images([thumbnail])[0]
            assert why.hit.sum == pytest.approx(float(vector @ of_thumbnail), abs=1e-5)


def test_explaining_a_gallery_query_keeps_index_and_thumbnail_cosines(encoder):
    """The index holds the embedding of the original, but only the thumbnail can be explained: both cosines are kept."""
    original, hit = draw(SHIRT, 512), draw(MUG)
    thumbnail = original.resize((48, 48))
    asked, found, of_thumbnail = encoder.embed_images([original, hit, thumbnail])
    why = explain(encoder, thumbnail, hit, found, asked)
    assert why.cosine == pytest.approx(float(asked @ found), abs=1e-6)
    assert why.query.sum == pytest.approx(float(of_thumbnail @ found), abs=1e-5)
    assert abs(why.query.sum - why.cosine) > 1e-4
    assert why.hit.sum == pytest.approx(why.cosine, abs=1e-5)


@pytest.mark.parametrize(
    ("backbone", "options"),
    [
        ("test_resnet", {"head": "512-relu-256"}),
        ("mobilenetv3_small_100", {}),
        ("mobilenetv3_small_100", {"embedding_size": 16}),
        ("vit_tiny_patch16_224", {}),
        ("vit_tiny_patch16_224", {"embedding_size": 16}),
        ("test_vit3", {}),
    ],
)
def test_nonlinear_head_cannot_be_explained(backbone, options):
    encoder = random_one(backbone, **options)
    assert not encoder.explains
    vector = np.ones(encoder.dim, np.float32)
    with pytest.raises(EncoderError, match=f"'{backbone}' cannot be split into parts of the picture: ") as raised:
        explain(encoder, draw(SHIRT, 64), draw(MUG, 64), vector)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("pool", ["max", "avgmax"])
def test_non_average_pooling_cannot_be_explained(pool):
    encoder = random_one("test_resnet", embedding_size=16)
    encoder.model.reset_classifier(16, global_pool=pool)
    assert not Encoder.of(encoder.model).explains


def test_relu_that_never_clips_still_counts_as_nonlinear():
    """With a large bias no value reaches the ReLU below zero, so it never clips, and still it is not linear."""
    model = Encoder.create("test_resnet", pretrained=False, head="8-relu-4", seed=0).model
    with torch.no_grad():
        next(part for part in model.get_classifier().modules() if isinstance(part, torch.nn.Linear)).bias.fill_(1e3)
    assert not Encoder.of(model).explains


def test_head_of_only_linear_layers_is_explained():
    check_sums(random_one("test_resnet", head="32-bn-dropout0.5-16"), draw(SHIRT), draw(MUG))


def side_by_side(encoder, colours, narrow):
    """For images of two drawings side by side: how much more the left half contributes than the right, for each hit.

    The hit shows the left drawing first, then the right one. `narrow` is how many columns of cells count at either
    edge; the cells in the middle see both drawings.
    """
    for article, other in zip(ARTICLES, (*ARTICLES[1:], ARTICLES[0]), strict=True):
        kinds = list(zip((article, other), colours, strict=True))
        query = Image.new("RGB", (448, 224))
        for place, (name, colour) in enumerate(kinds):
            query.paste(draw(Item(name, colour, "plain", "front", seed=1)), (224 * place, 0))
        lead = []
        for name, colour in kinds:
            hit = draw(Item(name, colour, "plain", "front", seed=2), 128)
            heat = explain(encoder, query, hit, encoder.embed_images([hit])[0]).query.cells
            lead.append(float(heat[:, :narrow].sum() - heat[:, -narrow:].sum()))
        yield lead


def test_half_that_shows_the_hit_contributes_more_to_the_cosine(encoder):
    leads = np.array(list(side_by_side(encoder, ("charcoal", "yellow"), 2)))
    assert (leads[:, 0] > leads[:, 1]).all()  # a half contributes more when the hit shows it than when it does not
    assert (leads * [1, -1] > 0).mean() > 0.7  # and mostly more than the other half, even if that one is busier


@needs_data
def test_half_that_shows_the_hit_contributes_more_with_real_weights():
    encoder = Encoder.create("mobilenetv2_100", weights=MOBILENET)
    leads = np.array(list(side_by_side(encoder, ("blue", "blue"), 3)))
    assert (leads[:, 0] > leads[:, 1]).all()
    assert (leads * [1, -1] > 0).mean() > 0.7


def prepared(mode, percent, size):
    """An encoder with this crop mode, crop percentage and input size."""
    model = Encoder.create("test_resnet", pretrained=False, seed=0).model
    changed = {"crop_mode": mode, "crop_pct": percent, "input_size": (3, *size)}
    model.pretrained_cfg = {**model.pretrained_cfg, **changed}
    return Encoder.of(model)


@pytest.mark.parametrize("size", [(300, 100), (101, 257), (96, 96), (333, 500)])
@pytest.mark.parametrize(
    ("mode", "percent", "shown"),
    [
        ("squash", 1.0, (160, 160)),
        ("squash", 0.875, (160, 160)),
        ("center", 1.0, (160, 160)),
        ("center", 0.875, (160, 160)),
        ("center", 1.15, (160, 160)),  # padded
        ("center", 0.9, (96, 160)),
        ("border", 1.0, (160, 160)),
        ("border", 0.9, (96, 160)),
    ],
)
def test_seen_box_matches_what_the_network_sees(mode, percent, shown, size):
    """A white mark on black must come out of timm's own transform where the box predicts it."""
    encoder = prepared(mode, percent, shown)
    left, top, right, bottom = seen_box(encoder.data_config, size)
    black = Image.new("RGB", size)
    for across, down in [(0.3, 0.4), (0.5, 0.5), (0.7, 0.65)]:
        # `across` and `down` are positions in the network's input, as fractions; the mark is put at the nearest pixels.
        centre = (left + across * (right - left)) * size[0], (top + down * (bottom - top)) * size[1]
        box = [math.floor(at) + reach for reach in (-4, 4) for at in centre]
        if not (min(box[:2]) >= 0 and box[2] <= size[0] and box[3] <= size[1]):
            continue
        marked = black.copy()
        marked.paste("white", box)
        light = (
            (torch.from_numpy(encoder.preprocess(marked)) - torch.from_numpy(encoder.preprocess(black)))
            .sum(dim=0)
            .double()
        )
        for axis, low, high, length, at in ((0, left, right, size[0], box[0]), (1, top, bottom, size[1], box[1])):
            line = light.sum(dim=axis)
            found = float((line * (torch.arange(len(line)) + 0.5)).sum() / line.sum())
            assert found == pytest.approx(((at + 4) / length - low) / (high - low) * len(line), abs=0.1)


def test_seen_box_of_each_crop_mode_is_correct():
    wide = (300, 100)
    assert seen_box(prepared("squash", 1.0, (160, 160)).data_config, wide) == (0, 0, 1, 1)
    assert seen_box(prepared("center", 1.0, (160, 160)).data_config, wide) == pytest.approx((1 / 3, 0, 2 / 3, 1))
    assert seen_box(prepared("border", 1.0, (160, 160)).data_config, wide) == pytest.approx((0, -1, 1, 2), abs=0.03)
    with pytest.raises(EncoderError, match=r"crop mode is 'fancy', but only squash, center and border"):
        seen_box({**prepared("squash", 1.0, (160, 160)).data_config, "crop_mode": "fancy"}, wide)


def test_explanation_holds_the_seen_box_of_each_image():
    encoder = prepared("center", 0.875, (160, 160))
    query, hit = draw(SHIRT).resize((200, 100)), draw(MUG).resize((100, 200))
    why = explain(encoder, query, hit, encoder.embed_images([hit])[0])
    assert why.query.box == seen_box(encoder.data_config, (200, 100))
    assert why.hit.box == seen_box(encoder.data_config, (100, 200))
    assert why.query.box[2] - why.query.box[0] < 0.5 < why.hit.box[2] - why.hit.box[0]
