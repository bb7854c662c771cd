"""What may normalise a pooled vector, and whether the layers after it are affine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_TOLERANCE = 1e-4  # relative to the largest output: float32 rounding reaches a tenth of it, a ReLU far exceeds it
_FACTORS = (-1e6, -1e3, -1.0, 1.0, 1e3, 1e6)
# What timm's norms call. In one of its own that calls none of these, the layers behind it cannot be tested.
_NORMS = {
    functional.layer_norm, functional.rms_norm, functional.group_norm, functional.normalize,
    torch.rsqrt, Tensor.rsqrt,
}  # fmt: skip


@dataclass(frozen=True)
class Norm:
    """What normalises the pooled vector: a layer norm, or an RMS norm, which does not subtract the mean, or nothing."""

    centres: bool = False
    epsilon: float | None = None
    """What is added to the variance; None if nothing is normalised."""

    def centred(self, cells: Tensor) -> Tensor:
        """(N, h, w, C) to the same shape."""
        return cells - cells.mean(dim=3, keepdim=True) if self.centres else cells

    def divisor(self, pooled: Tensor) -> Tensor:
        """(N, 1, 1, C), centred, to (N, 1, 1, 1)."""
        if self.epsilon is None:
            return torch.ones_like(pooled[..., :1])
        return (pooled.square().mean(dim=3, keepdim=True) + self.epsilon).sqrt()


class _Scaled(TorchFunctionMode):
    """Multiplies what norms give by a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        return self.factor * found if function in _NORMS else found


def is_affine_after_norm(head: Callable[[], Tensor]) -> bool:
    """Whether the layers of a head after its norm are affine; False if no norm is found that its whole input passes.

    `head` gives the (N, D) embeddings of a few pictures. A norm bounds what comes after it, however large its input
    is: a ReLU with a large bias looks linear, and clips for a few pictures only. So the output of the norm is scaled.
    """

    def scaled(factor: float) -> Tensor:
        with _Scaled(factor):
            return head()

    bias, most = scaled(0.0), _FACTORS[-1]
    slope = (scaled(most) - scaled(-most)) / (2 * most)  # rounding counts less here than at a factor of 1
    return same(bias, bias[:1].expand_as(bias)) and all(
        same(bias + factor * slope, scaled(factor)) for factor in _FACTORS
    )


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two (N, D) outputs differ by no more than rounding."""
    # Finite, too: an infinite difference is not more than an infinite tolerance.
    close = one.shape == other.shape and one.ndim == 2
    largest = other.abs().max() if close else torch.tensor(torch.inf)
    return bool(torch.isfinite(largest)) and bool((one - other).abs().max() <= _TOLERANCE * largest)
