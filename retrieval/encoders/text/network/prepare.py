"""How a model's processor prepares pictures and words, in the terms in which exported towers do the same."""

from __future__ import annotations

from typing import Any

from PIL import Image

from retrieval.encoders.text.towers import MASK, Reading


def reading_of_processor(processor: Any, words: int, *, fixed: bool) -> Reading | None:
    """How exported towers read words and pictures; None where only `transformers` can prepare them."""
    pictures = _data_config(processor.image_processor.to_dict())
    tokenizer = processor.tokenizer
    if pictures is None or tokenizer.padding_side != "right" or tokenizer.pad_token_id is None:
        return None
    # CLIP's text tower looks back only, and what it gives is read off the last word: padding changes nothing.
    masked = fixed and MASK in tokenizer.model_input_names
    return Reading(words, fixed, int(tokenizer.pad_token_id), masked, pictures)


def _data_config(settings: dict[str, Any]) -> dict[str, Any] | None:
    """timm's preprocessing configuration for that of an image processor; None if it does more or less than these."""
    steps = [settings.get(f"do_{step}") for step in ("resize", "rescale", "normalize")]
    size, crop = settings.get("size") or {}, settings.get("crop_size") if settings.get("do_center_crop") else None
    if not all(steps) or settings.get("do_pad") or abs(settings["rescale_factor"] * 255 - 1) > 1e-6:
        return None
    if crop and size.get("shortest_edge") == crop["height"] == crop["width"]:
        mode, sides = "center", (crop["height"], crop["width"])
    elif not crop and size.get("height") and size.get("width"):
        mode, sides = "squash", (size["height"], size["width"])
    else:
        return None
    return {
        "input_size": [3, *sides],
        "interpolation": Image.Resampling(int(settings["resample"])).name.lower(),
        "mean": list(settings["image_mean"]),
        "std": list(settings["image_std"]),
        "crop_pct": 1.0,
        "crop_mode": mode,
    }
