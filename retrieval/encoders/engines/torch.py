"""torch: runs the timm network itself; what every other engine is held against."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch

from retrieval.arrays import Floats
from retrieval.encoders.engines.base import Name, Split
from retrieval.encoders.engines.device import Device, wanted_device
from retrieval.encoders.network.backbone import feature_count
from retrieval.encoders.network.split import split_of
from retrieval.encoders.preprocess import data_config_of
from retrieval.errors import EncoderError, first_line
from retrieval.forking import in_child, threads_in_child

# In a forked child torch makes its pool of threads anew when it is first needed, and fails where two threads need it at
# once. Here, one thread does; with a single thread, as in the workers of a DataLoader.
in_child(lambda: torch.set_num_threads(threads_in_child()))


def device_named(name: str) -> torch.device:
    """The device of this name; `auto` is the first CUDA GPU that torch sees, else the processor.

    Raises EncoderError, with the devices that there are, for one that torch does not see.
    """
    seen = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device("cuda" if seen["cuda"] else "cpu")
    if not seen[name]:
        there = " and ".join(other for other, is_there in seen.items() if is_there)
        raise EncoderError(
            f"torch {torch.__version__} sees no device {name} here, only {there}: leave out the device, or install the "
            "driver and a torch that is made for it."
        )
    return torch.device(name)


@contextmanager
def _full_float32() -> Iterator[None]:
    """No TF32 on a GPU inside, which is the default of its convolutions: its 10 bits move scores by thousandths."""
    backends: Any = torch.backends  # mypy does not see all of its settings
    settings = (backends.cudnn.conv, backends.cuda.matmul)
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee"
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value


class TorchEngine:
    """A timm network in eval mode, float32.

    On a GPU, a copy of it computes, made when it is first needed: also in float32, not in the shorter TF32 that cuDNN
    would take, so the vectors are those of the processor. `model` stays where it is.
    """

    name: Name = "torch"
    pixels_at_once = 4 * 224 * 224

    def __init__(self, model: Any, device: torch.device | None = None, *, channels_last: bool = True) -> None:
        """`device` None is what LOOKALIKE_DEVICE says; raises EncoderError if torch does not see it.

        `channels_last` is the layout of pixels in memory that oneDNN prefers: a third faster on a processor.
        """
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model = model.eval().to(memory_format=self._layout)
        self.dim = int(self.model.num_classes or feature_count(self.model))
        self._device, self._pid = device_named(wanted_device()) if device is None else device, os.getpid()

    @property
    def device(self) -> Device:
        """Where it computes: in a child of the process that it was made in, always on the processor."""
        return cast(Device, self._device.type) if self._pid == os.getpid() else "cpu"  # a GPU cannot be forked

    def embed(self, pixels: Floats) -> Floats:
        """See `Engine`. What is too much for the memory of a GPU is halved."""
        try:
            with torch.inference_mode():
                embedding: Floats = self.forward(pixels).cpu().numpy()
                return embedding
        except torch.OutOfMemoryError as error:
            if len(pixels) == 1:
                raise EncoderError(
                    f"{self.device} has too little memory for this network: {first_line(error)}; choose the device cpu."
                ) from error
        half = len(pixels) // 2
        return np.concatenate([self.embed(pixels[:half]), self.embed(pixels[half:])])

    def forward(self, pixels: Floats) -> torch.Tensor:
        """The embeddings of N inputs, (N, 3, H, W) float32, before normalisation, where they were computed."""
        if self.device == "cpu":
            return torch.as_tensor(self.model(self._tensor(pixels)))
        inputs = self._tensor(pixels)
        if self.device == "cuda":
            inputs = inputs.pin_memory()  # memory that the GPU reads without the processor
        with _full_float32():
            return torch.as_tensor(self._copy(inputs.to(self._device, non_blocking=True)))

    @cached_property
    def _copy(self) -> Any:
        return copy.deepcopy(self.model).to(self._device).requires_grad_(False)

    @cached_property
    def explains(self) -> bool:
        """Whether `split` can be called; found out with the network itself, in the time of a few images."""
        return self.splitting is not None

    @cached_property
    def splitting(self) -> Any:
        """The network with its embedding split over the cells; None if that cannot be done."""
        return split_of(self.model, data_config_of(self.model.pretrained_cfg)["input_size"])

    @torch.inference_mode()
    def split(self, pixels: Floats) -> Split:
        """See `Engine`."""
        embedding, parts = self.splitting(self._tensor(pixels))
        return Split(embedding.numpy(), parts.numpy(), self.splitting.bias.numpy())

    def _tensor(self, pixels: Floats) -> torch.Tensor:
        return torch.from_numpy(pixels).contiguous(memory_format=self._layout)
