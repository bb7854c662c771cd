"""The loss, checked against plain loops over the batch, in one process and in two."""

import math

import numpy as np
import pytest
import torch
from conftest import in_two_processes, tiny_recipe

from training.model.loss import Objective, spread

LABELS = [0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 0, 1]
DIM, CLASSES = 6, 5
BASE = {"margin": 0.3, "triplet_weight": 0.7, "temperature": 0.2, "label_smoothing": 0.1}


def objective(seed=0, **changes):
    torch.manual_seed(seed)
    return Objective(tiny_recipe(**{**BASE, **changes}), CLASSES, DIM)


@pytest.fixture(scope="module")
def batch():
    """(12, 6) embeddings of different norms, and their classes."""
    generator = torch.Generator().manual_seed(4)
    centres = torch.randn(CLASSES, DIM, generator=generator)
    noise = torch.randn(len(LABELS), DIM, generator=generator)
    lengths = torch.rand(len(LABELS), 1, generator=generator) * 3 + 0.5
    return (centres[LABELS] + noise) * lengths, torch.tensor(LABELS)


def distances(embeddings, squared=False):
    """distance[i][j] between the normalised embeddings, as lists of floats."""
    unit = [[value / math.hypot(*row) for value in row] for row in embeddings.tolist()]
    apart = [[sum((x - y) ** 2 for x, y in zip(one, other, strict=True)) for other in unit] for one in unit]
    return apart if squared else [[math.sqrt(value) for value in row] for row in apart]


def triplets():
    """Every (anchor, positive, negative) of the batch."""
    everyone = range(len(LABELS))
    for a in everyone:
        for p in everyone:
            for n in everyone:
                if a != p and LABELS[a] == LABELS[p] != LABELS[n]:
                    yield a, p, n


def hard(distance, margin):
    values = []
    for a in range(len(LABELS)):
        mine = [(p, n) for anchor, p, n in triplets() if anchor == a]
        furthest, nearest = max(distance[a][p] for p, _ in mine), min(distance[a][n] for _, n in mine)
        values.append(max(0, furthest - nearest + margin))
    return sum(values) / len(values)


def semihard(distance, margin):
    values = [distance[a][p] - distance[a][n] + margin for a, p, n in triplets()]
    values = [value for value in values if 0 <= value < margin]
    return sum(values) / len(values)


# Triplets


@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize(("triplet", "expected"), [("hard", hard), ("semihard", semihard)])
def test_mined_triplet_loss_matches_plain_loops(batch, triplet, expected, squared):
    embeddings, labels = batch
    found = objective(triplet=triplet, softmax="none", squared=squared)(embeddings, labels)
    value = expected(distances(embeddings, squared), 0.3)
    assert value > 0.01
    assert float(found["triplet"]) == pytest.approx(value, abs=1e-5)
    assert float(found["loss"]) == pytest.approx(0.7 * value, abs=1e-5)
    assert found.keys() == {"loss", "triplet", "spread"}


def test_random_triplet_loss_averages_to_that_of_all_triplets(batch):
    """Each anchor draws a positive and a negative uniformly; over many draws the mean is that of all triplets."""
    embeddings, labels = batch
    distance = distances(embeddings, squared=True)
    of_anchor = [
        np.array([max(0, distance[a][p] - distance[a][n] + 0.3) for anchor, p, n in triplets() if anchor == a])
        for a in range(len(LABELS))
    ]
    expected = np.mean([values.mean() for values in of_anchor])
    deviation = math.sqrt(sum(values.var() for values in of_anchor)) / len(LABELS)
    loss = objective(triplet="random", softmax="none", squared=True)
    draws = 600
    found = [float(loss(embeddings, labels)["triplet"]) for _ in range(draws)]
    assert abs(np.mean(found) - expected) < 4 * deviation / math.sqrt(draws)
    assert np.std(found) == pytest.approx(deviation, rel=0.15)
    possible = [sum(extreme(values) for values in of_anchor) / len(LABELS) for extreme in (min, max)]
    assert possible[0] - 1e-5 <= min(found) < max(found) <= possible[1] + 1e-5


def test_triplet_loss_is_zero_when_no_triplet_violates_the_margin(batch):
    """Classes far apart: no triplet is within the margin, and the gradient is zero or not set."""
    labels = torch.tensor([0, 0, 1, 1])
    apart = torch.tensor([[1.0, 0], [1, 0.01], [-1, 0], [-1, 0.01]]).repeat(1, 3).requires_grad_()
    for triplet in ("hard", "semihard", "random"):
        apart.grad = None
        loss = objective(triplet=triplet, softmax="none")(apart, labels)["loss"]
        loss.backward()
        assert float(loss.detach()) == 0
        assert apart.grad is None or not apart.grad.any()


# Softmax loss over classes


def log_softmax(logits):
    total = math.log(sum(math.exp(value) for value in logits))
    return [value - total for value in logits]


def smoothed(logits, smoothing):
    """Mean cross-entropy, smoothed: (1 - s) times -log p of the right class plus s times the mean of -log p."""
    values = []
    for row, label in zip(logits, LABELS, strict=True):
        shares = log_softmax(row)
        values.append(-(1 - smoothing) * shares[label] - smoothing * sum(shares) / len(shares))
    return sum(values) / len(values)


def normalised_logits(embeddings, class_vectors):
    """Cosines with the columns of (D, C) class vectors, divided by the temperature."""
    columns = class_vectors.T.tolist()
    return [
        [
            sum(x * y for x, y in zip(row, column, strict=True)) / math.hypot(*row) / math.hypot(*column) / 0.2
            for column in columns
        ]
        for row in embeddings.tolist()
    ]


@pytest.mark.parametrize("smoothing", [0, 0.1])
def test_normalised_softmax_loss_matches_plain_loops(batch, smoothing):
    embeddings, labels = batch
    loss = objective(triplet="none", softmax="normalised", label_smoothing=smoothing)
    logits = normalised_logits(embeddings, loss.softmax.W.detach())
    found = loss(embeddings, labels)
    assert float(found["loss"].detach()) == pytest.approx(smoothed(logits, smoothing), abs=1e-5)
    assert torch.equal(found["softmax"], found["loss"])
    assert found.keys() == {"loss", "softmax", "spread"}
    assert np.allclose(loss.logits(embeddings).detach(), logits, atol=1e-5)
    assert np.allclose(loss.logits(3 * embeddings).detach(), logits, atol=1e-5), "lengths do not count"


@pytest.mark.parametrize("smoothing", [0, 0.1])
def test_linear_softmax_loss_matches_plain_loops(batch, smoothing):
    embeddings, labels = batch
    loss = objective(triplet="none", softmax="linear", label_smoothing=smoothing)
    weight, bias = (value.tolist() for value in (loss.classifier.weight, loss.classifier.bias))
    logits = [
        [sum(x * y for x, y in zip(row, each, strict=True)) + own for each, own in zip(weight, bias, strict=True)]
        for row in embeddings.tolist()
    ]
    assert float(loss(embeddings, labels)["softmax"].detach()) == pytest.approx(smoothed(logits, smoothing), abs=1e-5)
    assert np.allclose(loss.logits(embeddings).detach(), logits, atol=1e-5)


def test_triplet_and_softmax_losses_are_added(batch):
    embeddings, labels = batch
    loss = objective(triplet="hard", softmax="normalised")
    found = loss(embeddings, labels)
    logits = normalised_logits(embeddings, loss.softmax.W.detach())
    expected = 0.7 * hard(distances(embeddings), 0.3) + smoothed(logits, 0.1)
    assert float(found["loss"].detach()) == pytest.approx(expected, abs=1e-5)
    assert loss(embeddings.bfloat16(), labels)["loss"].dtype == torch.float32
    assert objective(triplet="hard", softmax="none").logits(embeddings) is None


def test_class_vectors_can_be_set(batch):
    embeddings, labels = batch
    loss = objective(triplet="none", softmax="normalised", label_smoothing=0)
    means = torch.stack([embeddings[labels == label].mean(dim=0) for label in range(4)] + [torch.ones(DIM)])
    before = float(loss(embeddings, labels)["loss"].detach())
    loss.set_class_vectors(means)
    assert np.allclose(loss.logits(embeddings).detach(), normalised_logits(embeddings, means.T), atol=1e-5)
    assert float(loss(embeddings, labels)["loss"].detach()) < before
    objective(triplet="hard", softmax="none").set_class_vectors(means)  # does nothing: this loss has no class vectors


@pytest.mark.parametrize(
    ("triplet", "softmax"), [("hard", "normalised"), ("semihard", "none"), ("random", "none"), ("none", "linear")]
)
def test_gradients_flow_to_embeddings_and_class_vectors(batch, triplet, softmax):
    """A small step against the gradients lowers the loss by the predicted amount."""
    embeddings, labels = batch[0].clone().requires_grad_(), batch[1]
    loss = objective(triplet=triplet, softmax=softmax)

    def value():
        torch.manual_seed(1)  # of the random triplets
        return loss(embeddings, labels)["loss"]

    value().backward()
    learned = [embeddings, *loss.parameters()]
    assert all(torch.isfinite(each.grad).all() and each.grad.any() for each in learned)
    assert len(learned) == {"none": 1, "normalised": 2, "linear": 3}[softmax]
    slope, before, step = sum(float(each.grad.square().sum()) for each in learned), value().item(), 1e-3
    with torch.no_grad():
        for each in learned:
            each -= step * each.grad
        assert before - value().item() == pytest.approx(step * slope, rel=0.05)


def test_spread_is_one_minus_the_mean_cosine(batch):
    embeddings, _ = batch
    unit = [[value / math.hypot(*row) for value in row] for row in embeddings.tolist()]
    cosines = [
        sum(x * y for x, y in zip(one, other, strict=True))
        for i, one in enumerate(unit)
        for j, other in enumerate(unit)
        if i != j
    ]
    assert float(spread(embeddings)) == pytest.approx(1 - sum(cosines) / len(cosines), abs=1e-5)
    same = torch.tensor([[3.0, 4.0]]).repeat(5, 1) * torch.arange(1, 6)[:, None]
    assert float(spread(same)) == pytest.approx(0, abs=1e-6)
    assert float(spread(torch.tensor([[1.0, 0], [-1.0, 0]]))) == pytest.approx(2)
    assert math.isfinite(float(spread(torch.ones(1, 3))))


# Two processes


def gradients(pictures, labels, changes):
    """The loss, and the gradients of a small network and of the loss's parameters, averaged over the processes."""
    torch.manual_seed(8)
    network, loss = torch.nn.Linear(10, DIM), objective(seed=9, **changes)
    torch.manual_seed(10)  # of the random triplets
    value = loss(network(pictures), labels)["loss"]
    value.backward()
    found = [each.grad for each in (*network.parameters(), *loss.parameters())]
    if torch.distributed.is_initialized():
        for each in found:
            torch.distributed.all_reduce(each)
            each /= 2
    return float(value.detach()), [each.tolist() for each in found]


def halves(pictures, labels, changes):
    torch.distributed.init_process_group("gloo")
    mine = slice(6 * torch.distributed.get_rank(), 6 * torch.distributed.get_rank() + 6)
    return [gradients(torch.tensor(pictures)[mine], torch.tensor(labels)[mine], change) for change in changes]


def test_two_processes_give_the_loss_and_gradients_of_one():
    """The two halves share classes, so some triplets span both."""
    pictures = torch.randn(12, 10, generator=torch.Generator().manual_seed(3))
    changes = [
        {"triplet": "hard", "softmax": "normalised"},
        {"triplet": "semihard", "softmax": "none"},
        {"triplet": "random", "softmax": "none", "squared": True},
        {"triplet": "none", "softmax": "linear"},
    ]
    answers = in_two_processes(halves, pictures.tolist(), LABELS, changes)
    for number, change in enumerate(changes):
        whole, expected = gradients(pictures, torch.tensor(LABELS), change)
        for answer in answers:
            value, averaged = answer[number]
            assert value == pytest.approx(whole, abs=1e-5)
            for one, other in zip(averaged, expected, strict=True):
                assert np.allclose(one, other, atol=1e-5)
                assert np.any(other)
