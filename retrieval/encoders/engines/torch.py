"""torch: runs the timm network itself; what every other engine is held against."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch

from retrieval.arrays import Floats
from retrieval.encoders.engines.base import Name, Split
from retrieval.encoders.network.backbone import feature_count
from retrieval.encoders.network.split import split_of
from retrieval.encoders.preprocess import data_config_of
from retrieval.forking import in_child, threads_in_child

# In a forked child torch makes its pool of threads anew when it is first needed, and fails where two threads need it at
# once. Here, one thread does; with a single thread, as in the workers of a DataLoader.
in_child(lambda: torch.set_num_threads(threads_in_child()))


class TorchEngine:
    """A timm network in eval mode, float32."""

    name: Name = "torch"
    pixels_at_once = 4 * 224 * 224

    def __init__(self, model: Any, *, channels_last: bool = True) -> None:
        """`channels_last` is the layout of pixels in memory that oneDNN prefers: a third faster on a processor."""
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model = model.eval().to(memory_format=self._layout)
        self.dim = int(self.model.num_classes or feature_count(self.model))

    @torch.inference_mode()
    def embed(self, pixels: Floats) -> Floats:
        """See `Engine`."""
        embedding: Floats = self.model(self._tensor(pixels)).numpy()
        return embedding

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
