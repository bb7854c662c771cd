"""Weights from strangers: a network is compared with the header of its weights before memory is allocated for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules import module as hooks
from torch.overrides import TorchFunctionMode

from retrieval.errors import EncoderError

_SPARE = 1_000  # parts beyond those with weights, such as activations
_MOST_BUFFERS = 256 * 2**20  # bytes that are computed and not stored, such as positions


def planned(make: Callable[[], Any], stored: Mapping[str, tuple[int, ...]]) -> Any:
    """The network that `make` builds, without memory for its weights (on torch's meta device).

    Raises EncoderError if it has many more parts than there are stored tensors, or computes large buffers itself.
    """
    with _counted(10 * len(stored) + _SPARE), torch.device("meta"), NoNumbers():
        model = make()
    kept = model.state_dict()
    extra = sum(buffer.nbytes for name, buffer in model.named_buffers() if name not in kept)
    if extra > _MOST_BUFFERS:
        raise EncoderError(f"it needs {extra:,} bytes besides its weights, more than {_MOST_BUFFERS:,}.")
    return model


class NoNumbers(TorchFunctionMode):
    """Leaves out drawing the first weights, which takes half the time of making some networks, even without memory."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(function, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return function(*args, **kwargs)


@contextmanager
def _counted(most: int) -> Iterator[None]:
    """Raise EncoderError when more than `most` modules and parameters are made in this thread."""
    made, thread = 0, threading.get_ident()

    def count(*_: Any) -> None:
        nonlocal made
        if threading.get_ident() != thread:
            return
        made += 1
        if made > most:
            raise EncoderError(f"it has more than {most:,} layers and parameters, far more than are stored.")

    handles = [
        hooks.register_module_parameter_registration_hook(count),
        hooks.register_module_module_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_fit(model: Any, stored: Mapping[str, tuple[int, ...]], file: str, skip: Sequence[str] = ()) -> None:
    """Raise EncoderError unless the stored tensors are those of the model; layers named in `skip` do not count."""
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items() if is_kept(name, skip)}
    found = {name: shape for name, shape in stored.items() if is_kept(name, skip)}
    # A counter used only in training with momentum=None; older files lack it.
    optional = {name for name in wanted if name.endswith("num_batches_tracked")}
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if wrong := [name for name in wrong if name not in optional]:
        name = wrong[0]
        raise EncoderError(
            f"the weights in {file} are not for {model.pretrained_cfg['architecture']!r}: "
            f"{len(wrong)} tensors do not fit, the first is {name!r}: "
            f"the model needs {wanted.get(name, 'none')}, the file has {found.get(name, 'none')}."
        )


def is_kept(name: str, skip: Sequence[str]) -> bool:
    """Whether a tensor belongs to none of the layers named in `skip`."""
    return not name.startswith(tuple(f"{layer}." for layer in skip))
