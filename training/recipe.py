"""Recipe: the settings of a training run, as YAML on disk and as a frozen pydantic model in memory.

Every key is validated first. The error for an unknown key suggests the closest valid key; the error for a wrong type or
an out-of-range value says what is expected.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from retrieval.errors import RecipeError
from retrieval.sources.archives.patterns import is_pattern
from retrieval.words import did_you_mean

FOLDER = Path(__file__).parent / "recipes"
_LAYER = r"(?:[1-9]\d*|bn|relu|dropout0?\.\d+)"
_HEAD = re.compile(rf"none|(?:linear|pca|{_LAYER}(?:-{_LAYER})*)-[1-9]\d*")

_TYPES = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list of numbers",
}  # pydantic error type -> expected value, for messages
_RANGE = ("greater_than_equal", "less_than_equal", "finite_number")


def _number(value: Any) -> Any:
    """Convert numeric text to float: YAML reads 5e-4 as text."""
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value


_Number = Annotated[float, BeforeValidator(_number)]
_Share = Annotated[_Number, Field(ge=0, le=1)]
_Times = Annotated[tuple[Annotated[_Number, Field(ge=0)], ...], Strict(False)]  # not strict: YAML has lists, not tuples


class Recipe(BaseModel):
    """Settings of one training run. Sizes are in pixels, learning rates are AdamW's, times are in epochs."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    name: str = Field("", description="name of the recipe")
    about: str = Field("", description="description of the recipe, in one line")
    # data
    data: str = Field("", description="a folder, an archive, a parquet file, or a dataset's folder or Hub name")
    data_config: str | None = Field(None, description="configuration of the dataset; null: its only or default one")
    data_revision: str | None = Field(None, description="branch, tag or commit of a dataset on the Hub; null: main")
    data_license: str | None = Field(
        None, description="licence of the images, as named on the Hub, e.g. cc-by-4.0; null: what the source states"
    )
    image_column: str | None = Field(None, description="the image column; null: the first column that contains images")
    label_column: str | None = Field(None, description="the label column; null: label")
    label_level: int | None = Field(
        None, description="the folder that is the label, counted from the source; null: the innermost class", ge=1
    )
    skip_unusable: bool = Field(
        False, description="leave out images without a label and classes with fewer than two training images"
    )
    hold_out_classes: _Number = Field(0.0, description="fraction of the classes to hold out of training", ge=0, le=0.9)
    # network
    backbone: str = Field("resnet50", description="a preset of `python -m retrieval encoders`, or any timm model")
    weights: str | None = Field(None, description="a local safetensors file instead of the Hub's weights")
    weights_license: str | None = Field(
        None, description="licence of the weights in that file, as named on the Hub, for the card; null: not known"
    )
    pretrained: bool = Field(
        True, description="start from the Hub's weights if no file is given; false: random weights"
    )
    head: str = Field(
        "linear-256", description="none, linear-D, pca-D, or layers such as 512-relu-256 or 512-bn-relu-dropout0.5-128"
    )
    head_start: int = Field(
        0,
        description="epochs that train the head alone, on features computed once, before the network is trained",
        ge=0,
    )
    generic_share: _Share = Field(
        0.0,
        description="fraction of an embedding's squared length for unseen classes, in a head recomputed after "
        "training; 0: not recomputed",
    )
    image_size: int = Field(160, description="side of the square training images", ge=16, le=1024)
    test_size: int = Field(192, description="side of the square images that the finished encoder gets", ge=16, le=1024)
    # batches
    classes_per_batch: int = Field(16, description="P: classes per batch", ge=2)
    images_per_class: int = Field(
        4, description="K: images of each class; 1: images are drawn regardless of class", ge=1
    )
    balance: _Share = Field(
        0.5, description="classes are drawn in proportion to their number of images to this power; 0: all equally often"
    )
    # loss
    triplet: Literal["none", "hard", "semihard", "random"] = Field(
        "hard", description="which triplets of a batch are used"
    )
    triplet_weight: _Number = Field(0.5, description="weight of the triplet loss", ge=0)
    margin: _Number = Field(0.1, description="margin of the triplet loss", ge=0, le=4)
    squared: bool = Field(False, description="use squared distances in the triplet loss")
    softmax: Literal["none", "normalised", "linear"] = Field(
        "normalised", description="softmax loss over the classes, added to the triplet loss"
    )
    temperature: _Number = Field(0.05, description="temperature of the normalised softmax", ge=1e-4, le=10)
    label_smoothing: _Number = Field(0.1, description="label smoothing of the softmax loss", ge=0, le=0.9)
    # optimiser
    epochs: _Number = Field(8.0, description="passes over the training images; 0: the network is not trained", ge=0)
    learning_rate: _Number = Field(5e-4, description="highest learning rate of the backbone", ge=0, le=10)
    head_learning_rate: _Number = Field(
        5e-3, description="highest learning rate of the head and the class vectors", ge=0, le=10
    )
    weight_decay: _Share = Field(0.05, description="weight decay, except for normalisation layers and biases")
    warmup: _Number = Field(
        0.05,
        description="fraction of the steps in which the learning rates rise; then they fall to 0 along a cosine",
        ge=0,
        le=0.9,
    )
    max_grad_norm: _Number = Field(0.0, description="gradients are clipped to this norm; 0: never", ge=0)
    frozen_stride: int = Field(
        0, description="backbone stages with a stride of at most this many pixels are frozen; 0: none", ge=0
    )
    unfreeze: _Times = Field((), description="epochs at which one more stage is unfrozen, the deepest first")
    freeze_norm: bool = Field(False, description="keep the batch norm statistics of the whole backbone")
    # augmentation
    crop: _Number = Field(
        0.35, description="smallest fraction of the picture that a random crop keeps; 1: no crop", ge=0.01, le=1
    )
    flip: bool = Field(True, description="mirror half of the pictures")
    jitter: _Share = Field(0.2, description="largest random change of brightness, contrast and saturation")
    rotation: _Number = Field(0.0, description="largest random rotation, in degrees", ge=0, le=180)
    shift: _Share = Field(0.0, description="largest random shift, as a fraction of the side")
    erasing: _Share = Field(0.0, description="fraction of the pictures in which a random part is erased")
    # the run
    seed: int = Field(0, description="seed of all random numbers", ge=0)
    bf16: bool | None = Field(None, description="bf16 mixed precision; null: if the processor or GPU supports it")
    threads: int | None = Field(None, description="processor threads; null: torch's default", ge=1)
    workers: int = Field(0, description="processes that prepare batches", ge=0)
    cache_gb: _Number = Field(4.0, description="memory for decoded images in GB, per process", ge=0)
    save_steps: int = Field(100, description="steps between checkpoints; each epoch also ends with one", ge=1)
    precision: Literal["float32", "int8"] = Field(
        "float32", description="precision of the artifact's encoder; int8: quantized, unless mAP falls by over 0.005"
    )
    index: str = Field("AUTO", description="FAISS factory string of the artifact")

    @property
    def batch_size(self) -> int:
        """Images per batch, summed over all processes."""
        return self.classes_per_batch * self.images_per_class

    @property
    def embedding_size(self) -> int:
        """Embedding dimension; 0 means that of the backbone."""
        return 0 if self.head == "none" else int(self.head.rpartition("-")[2])

    @field_validator("head")
    @classmethod
    def _check_head(cls, head: str) -> str:
        if not _HEAD.fullmatch(head):
            raise ValueError(
                f"head={head!r} is not a valid head: use none, linear-256, pca-256, or layers such as 512-relu-256 or "
                "512-bn-relu-dropout0.5-128."
            )
        return head

    @model_validator(mode="after")
    def _check_together(self) -> Recipe:
        """Reject contradictory settings."""
        if self.epochs and self.triplet == "none" and self.softmax == "none":
            raise ValueError("triplet and softmax are both none, so there is no loss: set one of them, or epochs=0.")
        if self.epochs and self.triplet != "none" and self.images_per_class < 2:
            raise ValueError("a triplet needs two images of a class: set images_per_class to 2 or more.")
        if self.softmax == "linear" and self.head == "none":
            raise ValueError("softmax=linear needs a head to classify from: set head=linear-256, for example.")
        if self.generic_share and (self.head.rpartition("-")[0] != "linear" or self.softmax == "linear"):
            raise ValueError(
                "generic_share needs a linear head and no linear softmax: set head=linear-256, softmax=normalised."
            )
        return self

    def changed(self, values: Mapping[str, Any]) -> Recipe:
        """A copy with `values` replaced, validated. Raises RecipeError for an invalid key or value."""
        try:
            return Recipe.model_validate({**dict(self), **values})
        except ValidationError as error:
            raise RecipeError(_sentence(error)) from error

    def settings(self) -> dict[str, Any]:
        """All keys with JSON-compatible values."""
        return self.model_dump(mode="json")


def recipe_keys() -> list[tuple[str, str, Any]]:
    """(name, description, default) of each recipe key, in order of definition."""
    return [(name, field.description or "", field.default) for name, field in Recipe.model_fields.items()]


def without_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings safe to publish: local paths are reduced to their last component."""

    def seen(key: str, value: Any) -> Any:
        here = key in ("data", "weights") and value and (Path(value).expanduser().exists() or is_pattern(value))
        return Path(value).expanduser().resolve().name if here else value

    return {key: seen(key, value) for key, value in settings.items()}


def load_recipe(name: str, changes: Mapping[str, Any] | None = None) -> Recipe:
    """Load a built-in recipe by name or a YAML file by path, with `changes` applied.

    Raises RecipeError if the recipe does not exist, is not valid YAML, or has an invalid key or value.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise RecipeError(f"there is no recipe {name!r}{_nearest(name, recipe_names())}")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise RecipeError(f"{path} does not contain keys and values.")
    return Recipe().changed({"name": path.stem, **values, **(changes or {})})


def recipe_names() -> list[str]:
    """Names of the built-in recipes, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def parse_changes(pairs: Iterable[str]) -> dict[str, Any]:
    """Parse `key=value` arguments into a dict; values are YAML. Raises RecipeError for malformed arguments."""
    changes = {}
    for pair in pairs:
        key, sign, text = pair.partition("=")
        if not sign:
            raise RecipeError(f"--set takes key=value, not {pair!r}.")
        try:
            changes[key.strip()] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise RecipeError(f"--set {key}: {text!r} is not a valid YAML value.") from error
    return changes


def _sentence(error: ValidationError) -> str:
    """The first validation error in one line: key, expected value, actual value."""
    first = error.errors(include_url=False)[0]
    kind, value, context = first["type"], first["input"], first.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    key = first["loc"][0]
    setting = Recipe.model_fields.get(str(key))
    if setting is None:
        return f"a recipe has no key {key!r}{_nearest(str(key), Recipe.model_fields)}"
    if kind == "literal_error":
        return f"{key} cannot be {value!r}{_nearest(str(value), get_args(setting.annotation))}"
    if kind in _RANGE:
        return f"{key} must be {_limits(setting)} ({setting.description}), not {value!r}."
    wanted = _TYPES.get(kind, first["msg"])
    if NoneType in get_args(setting.annotation):
        wanted += " or null"
    return f"{key} must be {wanted}, not {value!r}."


def _limits(setting: FieldInfo) -> str:
    bounds = {name: getattr(each, name) for each in setting.metadata for name in ("ge", "le") if hasattr(each, name)}
    low = bounds.get("ge", 0)  # items of a list are at least 0
    return f"from {low:g} to {bounds['le']:g}" if "le" in bounds else f"at least {low:g}"


def _nearest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    return f"; {did_you_mean(name, names, most=1, otherwise='choose one of ' + ', '.join(names) + '.')}"
