"""Nonlinear heads: small stacks of layers on top of the pooled features, described by a short spec.

`512-relu-256` is Linear(512), ReLU, Linear(256); `512-bn-relu-dropout0.5-128` adds batch norm and dropout.
Linear heads are not handled here: timm's own classifier layer serves as one.
"""

from __future__ import annotations

import re

import torch

from retrieval.errors import EncoderError

_WORD = re.compile(r"(?P<width>[1-9]\d{0,4})|(?P<layer>bn|relu)|dropout(?P<rate>0?\.\d+)")


class Head(torch.nn.Sequential):
    """The layers described by `spec`; `dim` is the output dimension."""

    def __init__(self, spec: str, features: int) -> None:
        """Create the layers for `features` inputs; raises EncoderError if the spec is invalid."""
        layers: list[torch.nn.Module] = []
        width = features
        for word in spec.split("-"):
            match = _WORD.fullmatch(word)
            if match is None:
                raise EncoderError(
                    f"{spec!r} is not a valid head: {word!r} is not a width, bn, relu or a dropout such as dropout0.5."
                )
            if match["width"]:
                layers.append(torch.nn.Linear(width, int(word)))
                width = int(word)
            elif match["layer"] == "bn":
                layers.append(torch.nn.BatchNorm1d(width))
            elif match["layer"] == "relu":
                layers.append(torch.nn.ReLU())
            else:
                layers.append(torch.nn.Dropout(float(match["rate"])))
        if not isinstance(layers[-1], torch.nn.Linear):
            raise EncoderError(f"{spec!r} is not a valid head: the last layer must be a width, as in 512-relu-256.")
        super().__init__(*layers)
        self.spec = spec
        self.dim = width
