"""Recipe: what a training run is made from, as YAML on disk and as a frozen dataclass in memory.

Every key is checked before anything else happens: an unknown one is answered with the nearest that exists, a value of
the wrong kind or out of its range with what was expected.
"""

from __future__ import annotations

import difflib
import math
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from retrieval.errors import RecipeError

FOLDER = Path(__file__).parent / "recipes"
_LAYER = r"(?:[1-9]\d*|bn|relu|dropout0?\.\d+)"
_HEAD = re.compile(rf"none|(?:linear|pca|{_LAYER}(?:-{_LAYER})*)-[1-9]\d*")


def _setting(default: Any, text: str, low: float | None = None, high: float | None = None) -> Any:
    return field(default=default, metadata={"help": text, "low": low, "high": high})


@dataclass(frozen=True)
class Recipe:
    """One training run. Sizes in pixels, rates per step of AdamW, times in epochs."""

    name: str = _setting("", "how the recipe is called")
    about: str = _setting("", "what it is, in a line")
    # data
    data: str = _setting("", "a folder, a parquet file, or a data set's folder or Hub name")
    data_config: str | None = _setting(None, "the configuration of the data set; null: its only or default one")
    data_revision: str | None = _setting(None, "branch, tag or commit of a data set on the Hub; null: main")
    data_license: str | None = _setting(None, "of the images, as the Hub writes it (cc-by-4.0); null: what they state")
    image_column: str | None = _setting(None, "the column of the images; null: the first that is one")
    label_column: str | None = _setting(None, "the column of the labels; null: label")
    skip_unusable: bool = _setting(False, "go on without images that have no label and classes with one image")
    hold_out_classes: float = _setting(0.0, "share of the classes that training never sees", 0, 0.9)
    # network
    backbone: str = _setting("resnet50", "any timm model")
    weights: str | None = _setting(None, "a local safetensors file instead of the Hub's weights")
    pretrained: bool = _setting(True, "start from the Hub's weights where no file is given; false: random")
    head: str = _setting("linear-256", "none, linear-D, pca-D, or layers like 512-relu-256, 512-bn-relu-dropout0.5-128")
    head_start: int = _setting(0, "epochs of the head alone on features computed once, before the network learns", 0)
    generic_share: float = _setting(
        0.0,
        "share of an embedding's squared length for classes never seen, in a head computed at the end",
        0,
        1,
    )
    image_size: int = _setting(160, "side of the square that training sees", 16, 1024)
    test_size: int = _setting(192, "side that the finished encoder sees", 16, 1024)
    # batches
    classes_per_batch: int = _setting(16, "P: classes in a batch", 2)
    images_per_class: int = _setting(4, "K: images of each; 1: images are drawn whatever their class", 1)
    balance: float = _setting(0.5, "a class is drawn in proportion to its images to this power; 0: all alike", 0, 1)
    # loss
    triplet: Literal["none", "hard", "semihard", "random"] = _setting("hard", "which triplets of a batch count")
    triplet_weight: float = _setting(0.5, "weight of the triplet loss", 0)
    margin: float = _setting(0.1, "of the triplet loss", 0, 4)
    squared: bool = _setting(False, "squared distances in the triplet loss")
    softmax: Literal["none", "normalised", "linear"] = _setting("normalised", "the loss over classes beside it")
    temperature: float = _setting(0.05, "of the normalised softmax", 1e-4, 10)
    label_smoothing: float = _setting(0.1, "of the loss over classes", 0, 0.9)
    # optimiser
    epochs: float = _setting(8.0, "passes over the training images; 0: the network stays as it is", 0)
    learning_rate: float = _setting(5e-4, "of the backbone, at its highest", 0, 10)
    head_learning_rate: float = _setting(5e-3, "of the head and the class vectors", 0, 10)
    weight_decay: float = _setting(0.05, "not on norms and biases", 0, 1)
    warmup: float = _setting(0.05, "share of the steps in which the rates rise; then they fall as a cosine", 0, 0.9)
    max_grad_norm: float = _setting(0.0, "gradients longer than this are shortened; 0: never", 0)
    frozen_stride: int = _setting(0, "stages with a cell for so many pixels, or fewer, do not learn; 0: all learn", 0)
    unfreeze: tuple[float, ...] = _setting((), "epochs at which one more frozen stage learns, the deepest first", 0)
    freeze_norm: bool = _setting(False, "batch norm of the whole backbone keeps its statistics")
    # augmentation
    crop: float = _setting(0.35, "least share of the picture that a random crop keeps; 1: no crop", 0.01, 1)
    flip: bool = _setting(True, "mirror half of the pictures")
    jitter: float = _setting(0.2, "of brightness, contrast and saturation", 0, 1)
    rotation: float = _setting(0.0, "degrees, at most, either way", 0, 180)
    shift: float = _setting(0.0, "share of the side, at most, either way", 0, 1)
    erasing: float = _setting(0.0, "share of the pictures of which a part is blanked", 0, 1)
    # the run
    seed: int = _setting(0, "of everything that is drawn", 0)
    bf16: bool | None = _setting(None, "mixed precision; null: where the processor or GPU has it")
    threads: int | None = _setting(None, "of the processor; null: torch's own choice", 1)
    workers: int = _setting(0, "processes that prepare batches", 0)
    cache_gb: float = _setting(4.0, "memory for decoded images, of each process", 0)
    save_steps: int = _setting(100, "steps between checkpoints; each epoch's end has one too", 1)
    index: str = _setting("AUTO", "FAISS factory string of the artifact")

    @property
    def batch_size(self) -> int:
        """Images in a batch, over all processes."""
        return self.classes_per_batch * self.images_per_class

    @property
    def embedding_size(self) -> int:
        """Numbers in an embedding; 0: as many as the backbone gives."""
        return 0 if self.head == "none" else int(self.head.rpartition("-")[2])

    def changed(self, values: Mapping[str, Any]) -> Recipe:
        """The recipe with other values, checked; raises RecipeError."""
        hints = get_type_hints(Recipe)
        checked = {key: _checked(key, value, hints) for key, value in values.items()}
        recipe = replace(self, **checked)
        _agree(recipe)
        return recipe

    def settings(self) -> dict[str, Any]:
        """All keys and values, as YAML and JSON hold them."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


def without_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings for others to see: of a folder or file on this disk its name, and not where it lies."""

    def seen(key: str, value: Any) -> Any:
        here = key in ("data", "weights") and value and Path(value).expanduser().exists()
        return Path(value).expanduser().resolve().name if here else value

    return {key: seen(key, value) for key, value in settings.items()}


def load_recipe(name: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe by its name, or a YAML file by its path, and change some of its keys.

    Raises RecipeError where there is none of that name, or where a key or a value cannot be.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise RecipeError(f"there is no recipe {name!r}{_nearest(name, recipe_names())}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{path} holds no keys and values.")
    return Recipe().changed({"name": path.stem, **values, **(changes or {})})


def recipe_names() -> list[str]:
    """The recipes that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def parse_changes(pairs: Iterable[str]) -> dict[str, Any]:
    """`key=value` words of a command line to a dict; values are YAML. Raises RecipeError for anything else."""
    changes = {}
    for pair in pairs:
        key, sign, text = pair.partition("=")
        if not sign:
            raise RecipeError(f"--set takes key=value, not {pair!r}.")
        try:
            changes[key.strip()] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RecipeError(f"--set {key}: {text!r} is no value.") from error
    return changes


def _checked(key: str, value: Any, hints: Mapping[str, Any]) -> Any:
    known = {item.name: item for item in fields(Recipe)}
    if key not in known:
        raise RecipeError(f"a recipe has no key {key!r}{_nearest(str(key), known)}")
    value = _as_kind(key, value, hints[key])
    low, high = known[key].metadata["low"], known[key].metadata["high"]
    numbers = value if isinstance(value, tuple) else (value,)
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int | float):
            continue
        if not (low is None or number >= low) or not (high is None or number <= high) or not math.isfinite(number):
            limits = f"at least {low:g}" if high is None else f"from {low:g} to {high:g}"
            raise RecipeError(f"{key} is {limits} ({known[key].metadata['help']}), not {number!r}.")
    return value


def _as_kind(key: str, value: Any, kind: Any) -> Any:
    """The value as what the field is annotated with; raises RecipeError where it is another kind of thing."""
    options = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    for option in options:
        if option is types.NoneType and value is None:
            return None
        if get_origin(option) is Literal:
            if value in get_args(option):
                return value
            raise RecipeError(f"{key} cannot be {value!r}{_nearest(str(value), get_args(option))}")
        if get_origin(option) is tuple and isinstance(value, list | tuple):
            return tuple(_as_kind(key, item, float) for item in value)
        if option is float and isinstance(value, str):  # YAML takes 5e-4 for a word
            try:
                value = float(value)
            except ValueError:
                continue
        if option is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if option in (int, bool, str) and type(value) is option:
            return value
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "null"}
    wanted = " or ".join(names.get(option, "a list of numbers") for option in options)
    raise RecipeError(f"{key} is {wanted}, not {value!r}.")


def _agree(recipe: Recipe) -> None:
    """Raise RecipeError where keys contradict each other."""
    if not _HEAD.fullmatch(recipe.head):
        raise RecipeError(
            f"head={recipe.head!r} is none: it is none, linear-256, pca-256, or layers like 512-relu-256 or "
            "512-bn-relu-dropout0.5-128."
        )
    if recipe.epochs and recipe.triplet == "none" and recipe.softmax == "none":
        raise RecipeError("triplet and softmax are both none: there is nothing to learn by; set one, or epochs=0.")
    if recipe.epochs and recipe.triplet != "none" and recipe.images_per_class < 2:
        raise RecipeError("a triplet needs two images of a class: set images_per_class to 2 or more.")
    if recipe.softmax == "linear" and recipe.head == "none":
        raise RecipeError("softmax=linear needs a head to stand on; set head=linear-256, for one.")
    if recipe.generic_share and (recipe.head.rpartition("-")[0] != "linear" or recipe.softmax == "linear"):
        raise RecipeError(
            "generic_share needs a linear head and no linear softmax: set head=linear-256, softmax=normalised."
        )


def _nearest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    return f"; did you mean {near[0]!r}?" if near else f"; there is {', '.join(names)}."
