"""The training benchmark: rates are finite and ratios fit the rates. The speed itself is not tested."""

import math

import pytest
import torch
from conftest import BACKBONE, tiny_recipe

from training.__main__ import main
from training.bench import bench

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"classes_per_batch": 2, "images_per_class": 2, "image_size": 32, "test_size": 32, "head": "linear-8"}
RATIOS = {
    "bf16 / fp32": ("training, bf16 and channels last", "training, fp32"),
    "frozen / whole": ("training, bf16, frozen_stride=8", "training, bf16 and channels last"),
    "cached / decoded": ("preparing pictures, from the cache", "preparing pictures, decoded each time"),
}


def test_bench_reports_rates_and_their_ratios(drawings):
    torch.manual_seed(5)
    found = bench(tiny_recipe("caltech101", data=str(drawings), frozen_stride=8, **SMALL))
    for ratio, (one, other) in RATIOS.items():
        assert math.isfinite(found[one])
        assert found[one] > 0 < found[other]
        assert found[ratio] == pytest.approx(found[one] / found[other])
    assert f"{BACKBONE}, 4 images of 32 pixels" in found.values()
    assert isinstance(found["native bf16"], bool)


def test_bench_command_draws_its_own_pictures(capsys):
    """Of at least as many classes as a batch of the recipe has."""
    changes = {"pretrained": "false", "image_size": 32, "test_size": 32, "images_per_class": 2}
    pairs = [part for key, value in changes.items() for part in ("--set", f"{key}={value}")]
    assert main(["bench", "--backbone", "test_resnet", *pairs]) == 0
    lines = capsys.readouterr().out.splitlines()
    for ratio in ("bf16 / fp32", "frozen / whole", "cached / decoded"):
        (line,) = (line for line in lines if line.startswith(ratio))
        assert float(line.removeprefix(ratio).replace(",", "")) > 0
    assert any("test_resnet, 32 images of 32 pixels" in line for line in lines)


@pytest.mark.parametrize(
    ("recipe", "said"), [("frozen", "frozen does not train"), ("classifer", "did you mean 'classifier'")]
)
def test_bench_command_refuses_recipes_it_cannot_measure(recipe, said, capsys):
    assert main(["bench", recipe, "--backbone", "test_resnet"]) == 1
    assert said in capsys.readouterr().err
