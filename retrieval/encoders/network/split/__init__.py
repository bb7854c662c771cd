"""Split an embedding exactly into the contributions of the cells of its picture.

Most networks end in a map of h * w cells with C features each, average pooling, and at most linear layers. Then the
embedding is a sum over the cells: W applied to the mean of f_i, plus b, is the sum of W f_i / (h * w), plus b (class
activation mapping, Zhou et al. 2016, arXiv:1512.04150). Some normalise the pooled vector first, with a layer norm.
That is linear except for one divisor, the deviation of the pooled vector over its channels. So each cell, centred over
its channels and divided by that number, still contributes its exact share. Nothing is estimated.

The cells are those of a feature map, or the tokens of a transformer. Whether a network is of this form is not read off
its class: `split_of` fits the form to what the network computes, and then compares the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from retrieval.encoders.network.split.norms import Norm, is_affine_after_norm, same

_LARGE = 1024.0  # size of the inputs to fit with; a power of two, so that the identity is found without rounding
_AT_ONCE = 512  # of these inputs go through the head together
_SCALES = (1e-3, 1.0, 1e3, 1e6)  # a bias can hide a ReLU's nonlinearity at small inputs, not at large ones
_CHANNELS = {"NCHW": 1, "NHWC": 3, "NLC": 2}


@dataclass(frozen=True)
class _Layout:
    """How the cells lie in what `forward_features` returns: `NCHW`, `NHWC`, or `NLC` after `prefix` other tokens."""

    axes: str
    grid: tuple[int, int]
    prefix: int = 0

    def cells(self, features: Tensor) -> Tensor:
        """Features to (N, h, w, C) cells."""
        if self.axes == "NCHW":
            return features.permute(0, 2, 3, 1)
        return features[:, self.prefix :].unflatten(1, self.grid) if self.axes == "NLC" else features

    def features(self, cells: Tensor, others: Tensor | None = None) -> Tensor:
        """(N, h, w, C) cells to features, the inverse of `cells`; the (N, prefix, C) other tokens are 0 by default."""
        if self.axes == "NCHW":
            return cells.permute(0, 3, 1, 2).contiguous()
        if self.axes == "NHWC":
            return cells
        if others is None:
            others = cells.new_zeros(len(cells), self.prefix, cells.shape[-1])
        return torch.cat([others, cells.flatten(1, 2)], dim=1)


class Split(torch.nn.Module):
    """A network that also gives the contribution of each cell to its embedding; made by `split_of`.

    `bias` is (D,) float32, what the biases of the layers after pooling contribute: the same for every picture. The
    module can be exported with `torch.onnx.export`, with any batch size.
    """

    bias: Tensor
    weight: Tensor | None
    """(C,) factors or a (C, D) matrix; None for the identity."""

    def __init__(self, model: Any, layout: _Layout, norm: Norm, bias: Tensor, weight: Tensor | None) -> None:
        super().__init__()
        self.model, self.layout, self.norm = model, layout, norm
        self.register_buffer("bias", bias)
        self.register_buffer("weight", weight)
        self.train(model.training)  # else an export would put a network in eval mode back into training mode

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) float32 pixels to (N, D) embeddings before normalisation and their (N, h, w, D) parts.

        The parts of a picture and `bias` add up to its embedding, up to float32 rounding.
        """
        features = self.model.forward_features(pixels)
        return self.model.forward_head(features), self.parts(features)

    def parts(self, features: Tensor) -> Tensor:
        """What `forward_features` returns for N pictures to the (N, h, w, D) contributions of their cells."""
        cells = self.norm.centred(self.layout.cells(features))
        if self.norm.epsilon is not None:
            cells = cells / self.norm.divisor(cells.mean(dim=(1, 2), keepdim=True))
        if self.weight is not None:
            cells = cells * self.weight if self.weight.ndim == 1 else cells @ self.weight
        return cells / (cells.shape[1] * cells.shape[2])


@torch.no_grad()
def split_of(model: Any, input_size: Sequence[int]) -> Split | None:
    """The network as a `Split`, or None if its embedding is not a sum over cells.

    `model` is a timm network in eval mode, `input_size` is (channels, height, width). The form is tested on the cells
    of a picture of noise, and on random ones of many sizes, with and without negative numbers, and with a few large
    ones. This takes about the time of embedding two pictures.
    """
    generator = torch.Generator().manual_seed(0)
    try:
        picture = torch.randn(1, *input_size, generator=generator).to(next(model.parameters()))
        features = model.forward_features(picture)
        layouts = list(_layouts(model, features, input_size))
        if not same(model(picture), model.forward_head(features)):
            return None
    except Exception:  # a network of another kind fails in its own way
        return None
    return next((split for layout in layouts if (split := _fitted(model, layout, features, generator))), None)


def _fitted(model: Any, layout: _Layout, features: Tensor, generator: torch.Generator) -> Split | None:
    """The split for cells that lie like this; None if it is not exact, whatever the head is."""
    try:
        pair = torch.randn(1, 1, 2, features.shape[_CHANNELS[layout.axes]], generator=generator).to(features)
        one = layout.features(pair.mean(dim=2, keepdim=True))
        if not same(model.forward_head(layout.features(pair)), model.forward_head(one)):
            return None  # it does not average; what follows takes long where the head has many weights
        probes = [(probe, model.forward_head(probe)) for probe in _probes(layout, features, generator)]
        for split in _fits(model, layout, features, generator):
            if all(same(split.parts(probe).sum(dim=(1, 2)) + split.bias, found) for probe, found in probes):
                cells = torch.cat([pair.mean(dim=2, keepdim=True), *pair.split(1, dim=2)])
                head = partial(model.forward_head, layout.features(cells))
                return split if split.norm.epsilon is None or is_affine_after_norm(head) else None
    except Exception:  # a head that cannot process a single cell fails in its own way, too
        return None
    return None


def _layouts(model: Any, features: Tensor, input_size: Sequence[int]) -> Iterator[_Layout]:
    """The ways in which the features of a picture may be cells."""
    shape = tuple(features.shape)
    if len(shape) == 4:
        yield _Layout("NCHW", (shape[2], shape[3]))
        yield _Layout("NHWC", (shape[1], shape[2]))
    elif len(shape) == 3:
        prefix = int(getattr(model, "num_prefix_tokens", 0))
        count = shape[1] - prefix
        grids = [_patches(model, input_size), _in_proportion(count, input_size)]
        if grid := next((grid for grid in grids if count > 1 and grid[0] * grid[1] == count), None):
            yield _Layout("NLC", grid, prefix)


def _patches(model: Any, input_size: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of the patches that a transformer cuts the picture into; (0, 0) if it does not say."""
    patch_embed = getattr(model, "patch_embed", None)
    if patch_embed is None or not hasattr(patch_embed, "dynamic_feat_size"):
        return 0, 0
    height, width = patch_embed.dynamic_feat_size(tuple(input_size[1:]))
    return int(height), int(width)


def _in_proportion(count: int, input_size: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of a map of this many square cells over the picture; (0, 0) if there is none."""
    height = round((max(count, 0) * input_size[1] / input_size[2]) ** 0.5)
    width = round(height * input_size[2] / input_size[1])
    return (height, width) if height * input_size[2] == width * input_size[1] else (0, 0)


def _fits(model: Any, layout: _Layout, features: Tensor, generator: torch.Generator) -> Iterator[Split]:
    """The forms that a head may have, from the simplest on, each with the numbers that fit it best."""
    channels = features.shape[_CHANNELS[layout.axes]]

    def head(cells: Tensor) -> Tensor:  # of pictures with one cell each, (M, 1, 1, C) to (M, D)
        return torch.as_tensor(model.forward_head(layout.features(cells)))

    def odd(cells: Tensor) -> Tensor:  # the part that changes its sign with the input, so without the bias
        return (head(cells) - head(-cells)) / 2

    bias = head(features.new_zeros(1, 1, 1, channels))[0]
    signs = torch.ones(channels).index_fill(0, torch.randperm(channels, generator=generator)[::2], -1)
    probe = _LARGE * signs.to(features)[None, None, None]
    norms = [Norm(), *(Norm(centres, _epsilon(odd, probe, centres)) for centres in (False, True))]
    if bias.shape == signs.shape:
        answer = odd(probe)[0]
        for norm in norms:
            centred = norm.centred(probe)
            weight = answer * norm.divisor(centred).flatten() / centred.flatten()
            yield Split(model, layout, norm, bias, None if bool((weight == 1).all()) else weight)
    each = _LARGE * torch.eye(channels).to(features)[:, None, None]
    answers = torch.cat([odd(some) for some in each.split(_AT_ONCE)])
    for norm in norms:
        divisor = norm.divisor(norm.centred(each[:1])).flatten()  # the same for all: only the order differs
        yield Split(model, layout, norm, bias, answers * divisor / _LARGE)


def _epsilon(odd: Callable[[Tensor], Tensor], probe: Tensor, centres: bool) -> float:
    """What a norm adds to the variance, from how much smaller its output is for a small input than for a large one."""
    small = torch.logspace(-8, 0, 17).to(probe)[:, None, None, None] / _LARGE * probe
    variances = Norm(centres, 0.0).divisor(Norm(centres).centred(small)).flatten().double().square()
    shares = (odd(small).double().norm(dim=1) / odd(probe).double().norm()).clamp(1e-6, 1)
    best = (shares - 0.7).abs().argmin()  # where the variance and the number count about the same
    return float(variances[best] * (shares[best] ** -2 - 1))


def _probes(layout: _Layout, features: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """Features to compare with: those of the picture, and random ones; tokens that are no cells are random as well."""
    yield features
    shape = layout.cells(features).shape[1:]
    for scale in _SCALES:
        signed = torch.randn(2, *shape, generator=generator).to(features)
        others = torch.randn(2, layout.prefix, shape[-1], generator=generator).to(features)
        for probe in (signed, signed.abs(), signed**5):
            yield layout.features(scale * probe, scale * others)
