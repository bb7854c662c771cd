"""Recipes: those that ship with the project, and the errors for invalid keys and values."""

import json

import pytest
import yaml
from conftest import tiny_recipe
from pydantic import ValidationError
from torch.nn import BatchNorm1d, Dropout, Linear, ReLU
from torchvision.transforms import v2

from retrieval.errors import RecipeError, TrainingError
from training.data.batches import augmentation
from training.model.learner import starting_encoder
from training.recipe import FOLDER, Recipe, load_recipe, parse_changes, recipe_keys, recipe_names, without_places


def refused(**changes):
    with pytest.raises(RecipeError) as raised:
        Recipe().changed(changes)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# Shipped recipes


def test_project_ships_the_expected_recipes():
    published = {"frozen", "frozen-pca", "random-triplet", "classifier"}
    assert recipe_names() == sorted({"caltech101", "fashion"} | published)
    assert {path.stem for path in FOLDER.iterdir()} == set(recipe_names())


@pytest.mark.parametrize("name", recipe_names())
def test_every_shipped_recipe_loads(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.about
    settings = recipe.settings()
    assert list(settings) == [name for name, _, _ in recipe_keys()]
    for written in (yaml.safe_dump(settings), json.dumps(settings)):
        assert Recipe().changed(yaml.safe_load(written)) == recipe


@pytest.mark.parametrize(("name", "data"), [("caltech101", "caltech101"), ("fashion", "fashion-product-images")])
def test_caltech101_and_fashion_recipes_have_the_expected_settings(name, data):
    recipe = load_recipe(name)
    assert data in recipe.data
    assert recipe.head.startswith("linear-"), "so that the cosine can be divided among the cells of a picture"
    assert recipe.triplet in ("hard", "semihard")
    assert recipe.softmax == "normalised"
    assert recipe.images_per_class >= 2
    assert recipe.warmup > 0 < recipe.weight_decay


def test_frozen_recipes_do_not_train():
    for name, head in (("frozen", "none"), ("frozen-pca", "pca-256")):
        recipe = load_recipe(name)
        assert (recipe.epochs, recipe.head, recipe.triplet, recipe.softmax) == (0, head, "none", "none")
    assert (load_recipe("frozen").embedding_size, load_recipe("frozen-pca").embedding_size) == (0, 256)


def head_of(name):
    """The layers of the head that a recipe starts with."""
    return list(starting_encoder(tiny_recipe(name)).model.get_classifier())


def test_random_triplet_recipe_has_the_expected_settings():
    recipe = load_recipe("random-triplet")
    assert (recipe.triplet, recipe.squared, recipe.softmax) == ("random", True, "none")
    assert (recipe.triplet_weight, recipe.margin > 0) == (1, True)
    assert (recipe.frozen_stride, recipe.unfreeze) == (0, ())
    first, relu, last = head_of("random-triplet")
    assert (first.out_features, type(relu), last.in_features, last.out_features) == (512, ReLU, 512, 256)


def test_classifier_recipe_has_the_expected_settings():
    recipe = load_recipe("classifier")
    assert (recipe.softmax, recipe.triplet, recipe.epochs) == ("linear", "none", 30)
    assert recipe.label_smoothing > 0
    assert recipe.frozen_stride == 32, "the whole backbone"
    assert list(recipe.unfreeze) == sorted(recipe.unfreeze)
    assert len(recipe.unfreeze) == 5, "one stage of a ResNet after the other"
    assert 0 < recipe.unfreeze[0] < recipe.unfreeze[-1] < 30
    first, norm, relu, dropout, last = head_of("classifier")
    assert [type(layer) for layer in (first, norm, relu, dropout, last)] == [Linear, BatchNorm1d, ReLU, Dropout, Linear]
    assert (first.out_features, dropout.p, last.out_features) == (512, 0.5, 128)
    crop, flip, colour, affine, erasing = (
        next(step for step in augmentation(recipe).transforms if isinstance(step, kind))
        for kind in (v2.RandomResizedCrop, v2.RandomHorizontalFlip, v2.ColorJitter, v2.RandomAffine, v2.RandomErasing)
    )
    assert crop.scale[0] < 1
    assert (flip.p, erasing.p) == (0.5, recipe.erasing)
    assert affine.degrees == [-recipe.rotation, recipe.rotation]
    assert affine.translate == (recipe.shift, recipe.shift)
    assert recipe.rotation > 0 < recipe.shift
    assert colour.brightness == colour.contrast == colour.saturation == (1 - recipe.jitter, 1 + recipe.jitter)


def test_default_recipe_is_valid_and_immutable():
    assert Recipe().changed({}) == Recipe()
    assert Recipe().batch_size == Recipe().classes_per_batch * Recipe().images_per_class
    with pytest.raises(ValidationError, match="frozen"):
        Recipe().epochs = 3


# Invalid keys and values


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("caltech", "did you mean 'caltech101'?"),
        ("Fashion", "did you mean 'fashion'?"),
        ("random_triplet", "did you mean 'random-triplet'?"),
        ("zzz", f"choose one of {', '.join(recipe_names())}."),
        ("", f"choose one of {', '.join(recipe_names())}."),
        ("../recipes/zzz", "there is no recipe '../recipes/zzz'"),
    ],
)
def test_unknown_recipe_error_suggests_the_nearest_name(name, near):
    with pytest.raises(RecipeError) as raised:
        load_recipe(name)
    assert str(raised.value).startswith(f"there is no recipe {name!r}")
    assert near in str(raised.value)
    assert isinstance(raised.value, TrainingError)


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("epoch", "did you mean 'epochs'?"),
        ("learning-rate", "did you mean 'learning_rate'?"),
        ("lerning_rate", "did you mean 'learning_rate'?"),
        ("Margin", "did you mean 'margin'?"),
        ("classes_per_bach", "did you mean 'classes_per_batch'?"),
        ("xyzzy", "choose one of name, about, data,"),
    ],
)
def test_unknown_key_error_suggests_the_nearest_key(key, near):
    message = refused(**{key: 3})
    assert message.startswith(f"a recipe has no key {key!r}")
    assert near in message


def test_key_that_is_not_text_is_an_error():
    with pytest.raises(RecipeError, match="a recipe has no key 7"):
        Recipe().changed({7: 3})


@pytest.mark.parametrize(
    ("key", "value", "near"),
    [
        ("triplet", "semi-hard", "did you mean 'semihard'?"),
        ("triplet", "Hard", "did you mean 'hard'?"),
        ("softmax", "normalized", "did you mean 'normalised'?"),
        ("softmax", True, "choose one of none, normalised, linear."),
        ("triplet", None, "did you mean 'none'?"),
        ("triplet", ["hard"], "did you mean 'hard'?"),
    ],
)
def test_invalid_choice_error_suggests_the_nearest_one(key, value, near):
    message = refused(**{key: value})
    assert message.startswith(f"{key} cannot be {value!r}")
    assert near in message


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("seed", 1.5, "a whole number"),
        ("seed", True, "a whole number"),
        ("seed", "1", "a whole number"),
        ("classes_per_batch", 4.0, "a whole number"),
        ("classes_per_batch", None, "a whole number"),
        ("epochs", "many", "a number"),
        ("epochs", True, "a number"),
        ("epochs", [1], "a number"),
        ("flip", "yes", "true or false"),
        ("flip", 1, "true or false"),
        ("bf16", "no", "true or false or null"),
        ("threads", "all", "a whole number or null"),
        ("backbone", 18, "text"),
        ("data", None, "text"),
        ("weights", False, "text or null"),
        ("data_config", 1, "text or null"),
        ("data_revision", 1e5, "text or null"),
        ("unfreeze", 3, "a list of numbers"),
        ("unfreeze", "3, 6", "a list of numbers"),
        ("unfreeze", [3, "six"], "a number"),
        ("unfreeze", [3, True], "a number"),
        ("unfreeze", {3: 6}, "a list of numbers"),
        ("head", None, "text"),
    ],
)
def test_wrong_type_error_names_the_expected_type(key, value, wanted):
    assert refused(**{key: value}).startswith(f"{key} must be {wanted}, not ")


@pytest.mark.parametrize(
    ("key", "value", "limits"),
    [
        ("seed", -1, "at least 0"),
        ("epochs", -0.5, "at least 0"),
        ("classes_per_batch", 1, "at least 2"),
        ("images_per_class", 0, "at least 1"),
        ("hold_out_classes", 0.95, "from 0 to 0.9"),
        ("crop", 0, "from 0.01 to 1"),
        ("margin", 4.5, "from 0 to 4"),
        ("temperature", 0, "from 0.0001 to 10"),
        ("learning_rate", float("nan"), "from 0 to 10"),
        ("learning_rate", "nan", "from 0 to 10"),
        ("learning_rate", -1e-9, "from 0 to 10"),
        ("image_size", 8, "from 16 to 1024"),
        ("threads", 0, "at least 1"),
        ("save_steps", 0, "at least 1"),
        ("label_smoothing", 1, "from 0 to 0.9"),
    ],
)
def test_out_of_range_error_states_the_range(key, value, limits):
    assert refused(**{key: value}).startswith(f"{key} must be {limits} (")


@pytest.mark.parametrize("changes", [{"unfreeze": [float("nan")]}, {"epochs": float("inf")}, {"unfreeze": [-1]}])
def test_numbers_of_epochs_must_be_finite_and_not_negative(changes):
    assert next(iter(changes)) in refused(**changes)


@pytest.mark.parametrize("head", ["", "linear", "linear-0", "pca-", "512-tanh-256", "linear-256\n"])
def test_invalid_head_is_an_error(head):
    message = refused(head=head)
    assert message.startswith(
        f"head={head!r} is not a valid head: use none, linear-256, pca-256, or layers such as 512-"
    )


def test_contradictory_settings_are_an_error():
    assert "so there is no loss" in refused(triplet="none", softmax="none")
    assert "set images_per_class to 2" in refused(images_per_class=1)
    assert "set head=linear-256" in refused(softmax="linear", head="none")
    Recipe().changed({"triplet": "none", "softmax": "none", "epochs": 0})
    Recipe().changed({"triplet": "none", "images_per_class": 1})
    Recipe().changed({"images_per_class": 1, "epochs": 0})


def test_values_are_converted_to_their_types():
    recipe = Recipe().changed({"learning_rate": "5e-4", "epochs": 3, "unfreeze": [1, "2e-1"], "threads": None})
    assert (recipe.learning_rate, recipe.epochs, recipe.unfreeze, recipe.threads) == (5e-4, 3.0, (1.0, 0.2), None)
    assert type(recipe.epochs) is float
    assert Recipe().seed == 0, "the one that was changed is another"


# Command line and files


def test_set_options_are_parsed_and_applied():
    pairs = ["epochs=8", "learning_rate=5e-4", " seed = 3", "unfreeze=[1, 2.5]", "flip=false", "weights=null"]
    pairs += ["data=a=b", "image_column=", "about=an 'odd' one", "triplet=none", "index=IVF16,SQ8", "epochs=9"]
    changes = parse_changes(pairs)
    assert changes == {
        "epochs": 9,
        "learning_rate": "5e-4",
        "seed": 3,
        "unfreeze": [1, 2.5],
        "flip": False,
        "weights": None,
        "data": "a=b",
        "image_column": None,
        "about": "an 'odd' one",
        "triplet": "none",
        "index": "IVF16,SQ8",
    }
    recipe = load_recipe("caltech101", changes)
    assert (recipe.epochs, recipe.learning_rate, recipe.unfreeze, recipe.flip) == (9, 5e-4, (1, 2.5), False)
    assert parse_changes([]) == {}


@pytest.mark.parametrize(
    ("pair", "said"), [("epochs", "key=value, not 'epochs'"), ("a=[1", "--set a: '[1' is not a valid YAML value")]
)
def test_malformed_set_option_is_an_error(pair, said):
    with pytest.raises(RecipeError) as raised:
        parse_changes([pair])
    assert said in str(raised.value)


def test_recipe_can_be_read_from_a_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("epochs: 2\nlearning_rate: 1e-3  # YAML takes this for a word\nunfreeze: [1, 2]\n")
    recipe = load_recipe(str(path), {"epochs": 3})
    expected = {"name": "mine", "epochs": 3, "learning_rate": 1e-3, "unfreeze": [1, 2]}
    assert recipe == Recipe().changed(expected)
    other = tmp_path / "other.yml"
    other.write_text("name: called otherwise\n")
    assert load_recipe(str(other)).name == "called otherwise"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"epochs: [1", "is not valid YAML"),
        (b"\xff\xfe\x00epochs", "is not valid YAML"),
        (b"- epochs\n- 2\n", "does not contain keys and values"),
        (b"", "does not contain keys and values"),
        (b"epochs: 2\nepoch: 3\n", "no key 'epoch'; did you mean 'epochs'?"),
        (b"!!python/object/apply:os.getcwd []\n", "is not valid YAML"),
    ],
)
def test_file_that_is_not_a_recipe_is_an_error(tmp_path, content, said):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError) as raised:
        load_recipe(str(path))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_missing_recipe_file_is_an_error(tmp_path):
    with pytest.raises(RecipeError, match=r"there is no recipe '.*/caltech101\.yaml'"):
        load_recipe(str(tmp_path / "caltech101.yaml"))


def test_settings_to_publish_hold_no_folders(tmp_path):
    (tmp_path / "set").mkdir()
    for data, published in {"set": "set", "shard-{0..9}.tar": "shard-{0..9}.tar", "owner/name": "owner/name"}.items():
        given = data if data == "owner/name" else str(tmp_path / data)
        assert without_places(Recipe().changed({"data": given}).settings())["data"] == published
