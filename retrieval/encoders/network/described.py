"""The timm network that a config.json describes."""

from __future__ import annotations

from typing import Any

import timm

from retrieval.encoders.description import Description
from retrieval.encoders.network.backbone import put_head


def make_described(description: Description) -> Any:
    """The described network, with random weights; raises whatever timm raises, and ValueError for an unknown one."""
    if not timm.is_model(description.name):  # a prefix like `hf-hub:` would make timm fetch another model
        raise ValueError(f"timm has no model {description.name!r}")
    model = timm.create_model(
        description.name, pretrained=False, pretrained_cfg=description.pretrained_cfg, **description.arguments
    )
    if description.head:
        put_head(model, description.head)
    return model
