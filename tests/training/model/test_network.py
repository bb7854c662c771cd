"""The network in training: which parts learn, at which learning rates, and how its head is initialised."""

import numpy as np
import pytest
import scipy.linalg
import torch
from conftest import tiny_recipe
from PIL import Image

from retrieval.encoders.image import Encoder
from retrieval.errors import EncoderError, RecipeError
from retrieval.evaluation.metrics import query_figures
from training.model.head import features_of, finish_head, start_head
from training.model.learner import Learner, at_size, starting_encoder

CLASSES = 4


def learner(classes=CLASSES, **changes):
    recipe = tiny_recipe(**changes)
    return Learner(starting_encoder(recipe), recipe, classes)


def pixels(count=16, side=64):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module, before):
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


def learn(model, steps=3):
    """Take some steps as the Trainer does; return the names of the tensors that changed."""
    before = state(model.network)
    optimiser = torch.optim.AdamW(model.parameter_groups())
    labels = torch.arange(16) % CLASSES
    for _ in range(steps):
        model.train()
        model(pixels(), labels)["loss"].backward()
        model.forget_closed()
        optimiser.step()
        optimiser.zero_grad()
    return changed(model.network, before)


def parts(name):
    """The stride at which a tensor of test_efficientnet works; 0 for the head."""
    if name.startswith("classifier"):
        return 0
    if name.startswith(("conv_head", "bn2")):
        return 32
    return 2 ** (int(name.split(".")[1]) + 1) if name.startswith("blocks") else 2


# What learns


@pytest.mark.parametrize("stride", [0, 2, 8, 32])
def test_frozen_stages_do_not_change(stride):
    """Neither weights nor batch-norm statistics change; everything else learns."""
    model = learner(frozen_stride=stride)
    found = learn(model)
    names = set(model.network.state_dict())
    assert found == {name for name in names if not 0 < parts(name) <= stride}
    assert any("running_mean" in name for name in found) is (stride < 32)


@pytest.mark.parametrize(
    ("backbone", "stride", "still"),
    [
        ("test_resnet", 4, ("conv1", "bn1", "layer1")),
        ("resnet18", 8, ("conv1", "bn1", "layer1", "layer2")),
        ("mobilenetv2_100", 8, ("conv_stem", "bn1", "blocks.0", "blocks.1", "blocks.2")),
        ("convnext_atto", 4, ("stem", "stages.0")),
    ],
)
def test_frozen_stride_freezes_the_right_stages_of_other_networks(backbone, stride, still):
    model = learner(backbone=backbone, frozen_stride=stride)
    learning = {name for name, value in model.network.named_parameters() if value.requires_grad}
    everything = {name for name, _ in model.network.named_parameters()}
    assert everything - learning == {
        name for name in everything if name.startswith(tuple(f"{part}." for part in still))
    }


@pytest.mark.parametrize("backbone", ["test_efficientnet", "resnet18", "test_vit", "convnext_atto"])
def test_whole_backbone_can_be_frozen(backbone):
    sizes = {"image_size": 160, "test_size": 160} if backbone == "test_vit" else {}
    model = learner(backbone=backbone, frozen_stride=32, **sizes)
    head = {id(value) for value in model.network.get_classifier().parameters()}
    learning = {
        name for name, value in model.network.named_parameters() if value.requires_grad and id(value) not in head
    }
    assert learning == set()
    assert all(value.requires_grad for value in model.network.get_classifier().parameters())


def test_stages_are_unfrozen_one_by_one_from_the_deepest():
    model = learner(frozen_stride=32, unfreeze=[1, 2, 2.5, 4, 5], head="16-bn-relu-16", softmax="linear")
    for epoch, opened in [(0, 0), (0.99, 0), (1, 1), (2.4, 2), (2.5, 3), (4, 4), (5, 5), (9, 5), (1, 1)]:
        model.open_stages(epoch)
        strides = (32, 16, 8, 4, 2)[:opened]
        learning = {name for name, value in model.network.named_parameters() if value.requires_grad}
        everything = {name for name, _ in model.network.named_parameters()}
        assert learning == {name for name in everything if parts(name) in (0, *strides)}, epoch
        moving = {name for name, module in model.network.named_modules() if "bn" in name and module.training}
        norms = {name for name, module in model.network.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
        assert moving & norms == {name for name in norms if parts(name) in strides}, epoch
    assert all(value.requires_grad for value in model.objective.parameters())
    found = learn(model)
    assert {parts(name) for name in found} == {0, 32}
    assert "classifier.1.running_mean" in found, "batch norm of the head is always new"


def test_batch_norm_alone_can_be_frozen():
    model = learner(freeze_norm=True, head="16-bn-relu-16")
    found = learn(model)
    names = set(model.network.state_dict())
    statistics = {name for name in names if "running" in name or "num_batches" in name}
    assert found == names - {name for name in statistics if not name.startswith("classifier")}


@pytest.mark.parametrize("freeze", [{"freeze_norm": True}, {"frozen_stride": 32}])
def test_batch_norm_stays_frozen_through_validation(freeze):
    model = learner(**freeze)
    model.eval()
    model.train()
    norms = [module for module in model.network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(module.training for module in norms)
    before = state(model)
    model.embed(pixels(), 64)
    assert model.training
    assert not any(module.training for module in norms)
    assert changed(model, before) == set()


@pytest.mark.parametrize(
    ("backbone", "head", "softmax"),
    [
        ("test_efficientnet", "linear-16", "normalised"),
        ("resnet18", "16-bn-relu-dropout0.5-16", "linear"),
        ("convnext_atto", "16-relu-16", "none"),
        ("test_vit", "none", "normalised"),
    ],
)
def test_each_parameter_has_one_learning_rate_and_weight_decay(backbone, head, softmax):
    sizes = {"image_size": 160, "test_size": 160} if backbone == "test_vit" else {}
    rates = {"learning_rate": 1e-4, "head_learning_rate": 1e-3, "weight_decay": 0.03}
    model = learner(backbone=backbone, head=head, softmax=softmax, **rates, **sizes)
    groups = model.parameter_groups()
    grouped = [id(value) for group in groups for value in group["params"]]
    assert len(set(grouped)) == len(grouped)
    assert set(grouped) == {id(value) for value in model.parameters()}
    group_of = {id(value): group for group in groups for value in group["params"]}
    of_head = {id(value) for value in model.network.get_classifier().parameters()}
    for name, value in model.network.named_parameters():
        group = group_of[id(value)]
        assert group["lr"] == (1e-3 if id(value) in of_head else 1e-4)
        assert group["weight_decay"] == (0 if name.endswith(".bias") or value.ndim == 1 else 0.03), name
    for value in model.objective.parameters():
        assert (group_of[id(value)]["lr"], group_of[id(value)]["weight_decay"]) == (1e-3, 0)
    assert {group["weight_decay"] for group in groups} == {0, 0.03}


# From pictures to vectors


def test_training_normalises_pictures_as_the_encoder_does():
    model = learner()
    picture = Image.effect_noise((64, 64), 90).convert("RGB")
    encoder = at_size(model.network, 64)
    stacked = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None]
    assert torch.allclose(model.normalised(stacked)[0], torch.from_numpy(encoder.preprocess(picture)), atol=1e-5)
    assert model.normalised(stacked, 32).shape == (1, 3, 32, 32)
    assert torch.equal(model.normalised(stacked, 64), model.normalised(stacked))


def test_embedding_is_the_head_applied_to_the_features():
    model = learner()
    features, vectors = model.embed(pixels(), 64, head=False), model.embed(pixels(), 64)
    assert (features.shape, vectors.shape) == ((16, 256), (16, 16))
    head = model.network.get_classifier()
    assert torch.allclose(features @ head.weight.T + head.bias, vectors, atol=1e-5)
    recipe = tiny_recipe()
    half = Learner(starting_encoder(recipe), recipe, CLASSES, bf16=True).embed(pixels(), 64)
    assert half.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(half, vectors).min() > 0.99
    rows = np.array([3, 0, 7])

    class Stored:
        def batch(self, wanted):
            return pixels()[torch.as_tensor(wanted)]

    assert torch.allclose(features_of(model, Stored(), rows, 64), features[rows], atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "changes", "said"),
    [
        ("deit_tiny_distilled_patch16_224", {"frozen_stride": 0}, "does not end in one linear layer"),
        (
            "hrnet_w18_small",
            {"frozen_stride": 8},
            "does not say where its stage 'stem' ends: train all of it with --set frozen_stride=0",
        ),
    ],
)
def test_unsuitable_backbone_is_an_error(backbone, changes, said):
    with pytest.raises(RecipeError, match=said):
        starting_encoder(tiny_recipe(backbone=backbone, image_size=224, test_size=224, **changes))


def test_finished_encoder_keeps_its_picture_size(tmp_path):
    encoder = starting_encoder(tiny_recipe(test_size=96))
    picture = Image.effect_noise((150, 50), 90).convert("RGB")
    assert encoder.preprocess(picture).shape == (3, 96, 96)
    other = at_size(encoder.model, 48)
    assert other.preprocess(picture).shape == (3, 48, 48)
    assert other.fingerprint != encoder.fingerprint
    other.save(tmp_path)
    loaded = Encoder.load(tmp_path)
    assert loaded.preprocess(picture).shape == (3, 48, 48)
    assert loaded.fingerprint == other.fingerprint


def test_network_made_for_one_size_is_trained_and_used_with_it():
    with pytest.raises(RecipeError, match=r"test_vit is trained and used with pictures of one size.*image_size=160"):
        starting_encoder(tiny_recipe(backbone="test_vit", image_size=96, test_size=160))
    with pytest.raises(RecipeError, match="image_size=224 --set test_size=224"):
        starting_encoder(tiny_recipe(backbone="dinov2-small", image_size=518))
    with pytest.raises(EncoderError, match=r"patches of 16 pixels\. The nearest sizes are 96 and 112"):
        starting_encoder(tiny_recipe(backbone="test_vit", image_size=100, test_size=100))
    encoder = starting_encoder(tiny_recipe(backbone="test_vit", image_size=96, test_size=96))
    assert encoder.embed_images([Image.effect_noise((150, 50), 90).convert("RGB")]).shape == (1, 16)


def test_training_can_start_from_a_weights_file(tmp_path):
    trained = Encoder.create("test_efficientnet", pretrained=False, embedding_size=5, seed=9)
    trained.save(tmp_path)
    weights = str(tmp_path / "model.safetensors")
    encoder = starting_encoder(tiny_recipe(weights=weights, pretrained=True))
    own, started = trained.model.state_dict(), encoder.model.state_dict()
    assert all(torch.equal(own[name], started[name]) for name in own if not name.startswith("classifier"))
    assert encoder.dim == 16
    with pytest.raises(EncoderError, match=r"nothing\.safetensors"):
        starting_encoder(tiny_recipe(weights=str(tmp_path / "nothing.safetensors")))
    seeds = [starting_encoder(tiny_recipe(seed=seed)).fingerprint for seed in (0, 0, 1)]
    assert seeds[0] == seeds[1] != seeds[2]


# Initialising the head


@pytest.fixture
def clusters():
    """(200, 256) features with standard deviations from large to small, and their four classes."""
    generator = torch.Generator().manual_seed(5)
    targets = torch.arange(200) % CLASSES
    scales = torch.logspace(1, -1, 256)
    centres = torch.randn(CLASSES, 256, generator=generator)
    noise = torch.randn(200, 256, generator=generator)
    return (centres[targets] + noise) * scales + 3, targets


def head_on(model, features):
    with torch.no_grad():
        return model.network.get_classifier()(features).numpy().astype(np.float64)


def test_pca_head_gives_whitened_principal_components(clusters):
    features, targets = clusters
    model = learner(head="pca-8", triplet="none", softmax="none", epochs=0)
    before = state(model.network)
    start_head(model, features, targets)
    assert changed(model.network, before) == {"classifier.weight", "classifier.bias"}
    found = head_on(model, features)
    covariance = found.T @ found / len(found)
    assert np.allclose(found.mean(axis=0), 0, atol=1e-4)
    assert np.allclose(covariance / covariance[0, 0], np.eye(8), atol=1e-3)
    centred = features.numpy().astype(np.float64)
    centred -= centred.mean(axis=0)
    left, _, _ = np.linalg.svd(centred, full_matrices=False)
    for number in range(8):
        cosine = found[:, number] @ left[:, number] / np.linalg.norm(found[:, number])
        assert abs(cosine) == pytest.approx(1, abs=1e-3)


def test_linear_head_starts_half_whitened(clusters):
    features, targets = clusters
    model = learner(head="linear-8", head_start=2, softmax="none")
    start_head(model, features, targets)
    found = head_on(model, features)
    deviation = np.linalg.svd(features.numpy() - features.numpy().mean(axis=0), compute_uv=False)[:8]
    covariance = found.T @ found
    assert np.allclose(covariance / covariance[0, 0], np.diag(deviation / deviation[0]), atol=2e-3)
    untouched = learner(head="linear-8", head_start=0)
    before = state(untouched)
    start_head(untouched, features, targets)
    assert changed(untouched, before) == set()


@pytest.mark.parametrize("rows", [6, 200])
def test_directions_without_variance_are_not_amplified(clusters, rows):
    """Only four features are independent, and six images span at most five directions: the rest stays small."""
    features = clusters[0][:rows].clone()
    features[:, 4:] = features[:, :4].repeat(1, 63)
    model = learner(head="pca-16", triplet="none", softmax="none", epochs=0)
    start_head(model, features, clusters[1][:rows])
    found = head_on(model, features)
    assert np.isfinite(found).all()
    deviations = found.std(axis=0)
    assert np.allclose(deviations[:4], deviations[0], rtol=0.02)
    assert deviations[4:].max() < 0.05 * deviations[0]
    weights = model.network.get_classifier().weight.detach().numpy()
    assert np.linalg.norm(weights, axis=1).max() < 150 * np.linalg.norm(weights, axis=1)[0]


@pytest.mark.parametrize(("head", "softmax"), [("linear-8", "normalised"), ("16-bn-relu-dropout0.5-8", "linear")])
def test_head_separates_the_classes_after_its_start_phase(clusters, head, softmax):
    features, targets = clusters

    def accuracy(model):
        model.eval()
        with torch.no_grad():
            logits = model.objective.logits(model.network.get_classifier()(features))
        return float((logits.argmax(dim=1) == targets).float().mean())

    model = learner(head=head, softmax=softmax, triplet="none", head_start=20)
    before, network = accuracy(model), state(model.network)
    model.train()
    start_head(model, features, targets)
    assert model.training
    assert all(name.startswith("classifier") for name in changed(model.network, network))
    assert accuracy(model) > max(0.9, before)
    again = learner(head=head, softmax=softmax, triplet="none", head_start=20)
    if "dropout" not in head:
        torch.manual_seed(77)  # has no effect: random numbers come from the recipe's seed
        start_head(again, features, targets)
        assert changed(again, state(model)) == set()


def finished(clusters, share, head="linear-24"):
    """A learner whose head is computed from the clusters, and its embeddings of them."""
    features, targets = clusters
    model = learner(int(targets.max()) + 1, head=head, generic_share=share)
    finish_head(model, features, targets)
    return model, head_on(model, features).astype(np.float64)


def test_finished_head_begins_with_linear_discriminants(clusters):
    """They equal scipy's generalised eigenvectors of between- and within-class scatter, up to rotation and scale."""
    features, targets = clusters[0].numpy().astype(np.float64), clusters[1].numpy()
    count = targets.max() + 1
    means = np.stack([features[targets == label].mean(axis=0) for label in range(count)])
    within = np.cov((features - means[targets]).T, bias=True)
    within += 0.03 * features.var(axis=0).mean() * np.eye(len(within))
    _, directions = scipy.linalg.eigh(np.cov(means.T), within)
    expected = (features - features.mean(axis=0)) @ directions[:, 1 - count :]
    model, found = finished(clusters, 0.4)
    found = found[:, : count - 1]
    assert np.linalg.norm(found, axis=1).mean() == pytest.approx(0.6**0.5, rel=1e-4)
    expected *= 0.6**0.5 / np.linalg.norm(expected, axis=1).mean()
    assert np.allclose(found @ found.T, expected @ expected.T, atol=2e-3)
    logits = model.objective.logits(torch.from_numpy(head_on(model, clusters[0])))
    assert float((logits.argmax(dim=1) == clusters[1]).float().mean()) > 0.95, "class vectors are the means of classes"


def test_generic_part_of_the_head_does_not_separate_known_classes(clusters):
    targets = clusters[1].numpy()
    count = targets.max() + 1
    rest = finished(clusters, 0.4)[1][:, count - 1 :]
    means = np.stack([rest[targets == label].mean(axis=0) for label in range(count)])
    assert np.linalg.norm(rest, axis=1).mean() == pytest.approx(0.4**0.5, rel=1e-4)
    assert np.abs(means - means.mean(axis=0)).max() < 1e-4
    covariance = np.cov(rest.T)
    assert np.allclose(covariance, np.diag(np.diag(covariance)), atol=1e-5)
    assert (np.diff(np.diag(covariance)) < 1e-6).all(), "principal components, the largest first"


def test_generic_part_of_the_head_improves_on_unseen_classes(clusters):
    features, targets = clusters
    known = targets < 2
    parts = (features[known], targets[known])
    new, labels = features[~known], [str(int(label)) for label in targets[~known]]
    assert len(set(labels)) > 1

    def precision(share):
        vectors = head_on(finished(parts, share)[0], new)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        own = np.arange(len(labels))
        return query_figures(vectors, labels, vectors, labels, exclude=own).means()["P@5"]

    assert precision(0.5) > precision(0.001) + 0.02


@pytest.mark.parametrize("head", ["linear-2", "linear-3", "linear-300"])
def test_finished_head_can_have_any_size_and_be_saved(clusters, head, tmp_path):
    """Smaller than the number of classes or larger than the features; also with four images, two of them equal."""
    few = (torch.cat([clusters[0][:3], clusters[0][:1]]), torch.tensor([0, 0, 1, 1]))
    for data in (clusters, few):
        model, found = finished(data, 0.5, head)
        assert np.isfinite(found).all()
        assert np.linalg.norm(found, axis=1).max() < 10
    encoder = at_size(model.network, 64)
    encoder.save(tmp_path)
    assert Encoder.load(tmp_path).fingerprint == encoder.fingerprint
