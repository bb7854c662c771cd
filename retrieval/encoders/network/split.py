"""A network whose embedding is split over the cells of its feature map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

_PROBE_SCALES = (1.0, 1e3, 1e6)  # a bias can hide a ReLU's nonlinearity at small inputs, not at large ones
_PROBE_TOLERANCE = 1e-4  # relative to the largest output: float32 rounding reaches a tenth of it, a ReLU far exceeds it


class Split(torch.nn.Module):
    """Gives the embeddings and the contribution of each cell: (N, D) and (N, H, W, D); their sum and `bias` agree."""

    def __init__(self, model: Any, bias: torch.Tensor) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("bias", bias)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings and parts of (N, 3, H, W) pixels."""
        features = self.model.forward_features(pixels)
        _, channels, height, width = features.shape
        cells = features.permute(0, 2, 3, 1).reshape(-1, channels, 1, 1)
        parts = (self.model.forward_head(cells) - self.bias) / (height * width)
        return self.model.forward_head(features), parts.reshape(-1, height, width, parts.shape[-1])


@torch.inference_mode()
def split_of(model: Any, input_size: Sequence[int]) -> Split | None:
    """The split network; None if the embedding is not the mean of the head applied to each cell alone."""
    generator = torch.Generator().manual_seed(0)
    try:
        picture = torch.randn(1, *input_size, generator=generator)
        features = model.forward_features(picture)
        signed = torch.randn(1, features.shape[1], 3, 2, generator=generator)
        probes = [scale * probe for scale in _PROBE_SCALES for probe in (signed, signed.abs())]
        fits = _same(model(picture), model.forward_head(features)) and all(
            _same(model.forward_head(probe), _cells(model, probe).mean(dim=0, keepdim=True))
            for probe in [features, *probes]
        )
        return Split(model, model.forward_head(torch.zeros_like(features[:, :, :1, :1]))[0]).eval() if fits else None
    except Exception:  # a head that cannot process a single cell fails in its own way
        return None


def _cells(model: Any, features: torch.Tensor) -> torch.Tensor:
    cells = features.flatten(2)[0].T[:, :, None, None]
    return torch.as_tensor(model.forward_head(cells))


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    # Finite, too: an infinite difference is not more than an infinite tolerance.
    close = one.shape == other.shape and one.ndim == 2
    largest = other.abs().max() if close else torch.tensor(torch.inf)
    return bool(torch.isfinite(largest)) and bool((one - other).abs().max() <= _PROBE_TOLERANCE * largest)
