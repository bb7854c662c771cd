"""Presets: encoders with a short name, which `--backbone` takes besides any timm model.

Nothing here imports torch or timm, so that the table is printed at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from retrieval.encoders.presets.licences import Weights, link_of

DEFAULT = "resnet50"


@dataclass(frozen=True)
class Preset:
    """A timm model with the tag of its weights, and what helps to choose it."""

    name: str
    timm: str
    """timm's name, with the tag of the weights; also their name on the Hub, below `timm/`."""
    parameters: int
    dimension: int
    """Numbers of an embedding, if no head is added."""
    pixels: int
    """Side of the square pictures that it gets; timm's own, unless a comment says why not."""
    license: str
    """Licence of the weights, as their page on the Hub and timm state it."""
    cpu_ms: float
    """Milliseconds for one picture, on one core; see CPU_MS."""
    torch_ms: float
    """The same with torch instead."""
    good_at: str

    @property
    def weights(self) -> Weights:
        """The weights that timm downloads for it."""
        return Weights(f"timm/{self.timm}", self.license)


CPU_MS = "milliseconds of processor time for one picture at a time, on one core, in float32, with ONNX Runtime"
# The two times were measured with random weights, on one machine (ONNX Runtime 1.32, torch 2.15 in channels-last). They
# are there to compare presets, not to predict another machine.
_ROWS = (
    Preset(
        "tiny", "mobilenetv4_conv_small.e2400_r224_in1k", 2_493_024, 1280, 224, "apache-2.0", 1.8, 6.1,
        "many pictures, small machines",
    ),
    Preset(
        "small-cnn", "tf_efficientnet_lite2.in1k", 4_811_072, 1280, 260, "apache-2.0", 11, 39,
        "objects, at little cost",
    ),
    Preset(
        DEFAULT, "resnet50.a1_in1k", 23_508_032, 2048, 224, "apache-2.0", 36, 73,
        "the default; a start for training; explains itself",
    ),
    Preset(
        "pe-core-small", "vit_pe_core_small_patch16_384.fb", 23_783_168, 512, 384, "apache-2.0", 160, 330,
        "classes of objects, trained with captions",
    ),
    Preset(
        "pe-core-base", "vit_pe_core_base_patch16_224.fb", 93_673_984, 1024, 224, "apache-2.0", 170, 380,
        "classes of objects, trained with captions",
    ),
    Preset(
        "pe-core-large", "vit_pe_core_large_patch14_336.fb", 317_152_256, 1024, 336, "apache-2.0", 1900, 4000,
        "classes of objects, if time does not matter",
    ),
    Preset(
        "siglip2-base", "vit_base_patch16_siglip_224.v2_webli", 92_884_224, 768, 224, "apache-2.0", 170, 380,
        "products, clothes",
    ),
    # timm's own size is 518 pixels: 1,369 patches instead of 256, and eight times as long for a picture.
    Preset(
        "dinov2-small", "vit_small_patch14_dinov2.lvd142m", 21_628_800, 384, 224, "apache-2.0", 63, 130,
        "the same object or place, under an open licence",
    ),
    Preset(
        "dinov3-small", "vit_small_patch16_dinov3.lvd1689m", 21_586_944, 384, 256, "dinov3-license", 62, 140,
        "landmarks, the same object again",
    ),
    Preset(
        "dinov3-base", "vit_base_patch16_dinov3.lvd1689m", 85_641_216, 768, 256, "dinov3-license", 220, 480,
        "landmarks, the same object again",
    ),
    Preset(
        "convnext-dinov3-tiny", "convnext_tiny.dinov3_lvd1689m", 27_820_128, 768, 224, "dinov3-license", 48, 100,
        "as dinov3, in the time of a CNN",
    ),
)  # fmt: skip
PRESETS = {preset.name: preset for preset in _ROWS}
"""Name -> preset, from small to large within each family."""


def timm_name(backbone: str) -> str:
    """timm's name for a backbone: that of a preset, with the tag of its weights, or the name as it is."""
    preset = PRESETS.get(backbone)
    return preset.timm if preset else backbone


def table_lines() -> Iterator[str]:
    """The presets as plain text, two lines each, at most 120 characters wide."""
    yield f"{'name':<20}  parameters  dimension  pixels  CPU ms  {'licence':<14}  timm name"
    for preset in PRESETS.values():
        count, milliseconds = f"{preset.parameters / 1e6:.1f} M", f"{preset.cpu_ms:g}"
        name = f"{preset.name:<20}  {count:>10}  {preset.dimension:>9}  {preset.pixels:>6}  {milliseconds:>6}"
        yield f"{name}  {preset.license:<14}  {preset.timm}"
        yield f"{'':<20}  good at: {preset.good_at}"


def facts() -> dict[str, Any]:
    """The table as JSON: what the milliseconds mean, and a list of the presets."""
    return {
        "cpu_ms": CPU_MS,
        "encoders": [
            {**asdict(preset), "license_link": link_of(preset.license), "weights": preset.weights.page}
            for preset in PRESETS.values()
        ],
    }
