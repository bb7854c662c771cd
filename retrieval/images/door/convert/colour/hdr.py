"""Pictures brighter than white: their curves (ITU-R BT.2100), and how they fit into sRGB."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from retrieval.images.door.convert.colour.codes import Floats

WHITE = 203  # cd/m2: the white of a page (ITU-R BT.2408)
BRIGHTEST = 1000 / WHITE  # what a picture that does not say it is taken to reach, in whites
_MOST, _STEPS = 10000 / WHITE, 2**16  # the brightest light of PQ; steps from darkness to it


def pq_to_linear(values: Floats) -> Floats:
    """BT.2100 table 4; returns light in units of `WHITE`."""
    root = values ** (32 / 2523)
    return 10000 / WHITE * (np.maximum(root - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * root)) ** (16384 / 2610)


def hlg_to_scene(values: Floats) -> Floats:
    """BT.2100 table 5: the light of the scene, from 0 to 1."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)


def hlg_to_display(scene: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The light of a screen of 1000 cd/m2, in units of `WHITE`, from that of the scene in BT.2020 colours."""
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593], scene.dtype)
    scaled = np.float32(BRIGHTEST) * np.maximum(luminance, np.float32(1e-6)) ** np.float32(0.2)
    light: npt.NDArray[np.float32] = scene * scaled[..., None]
    return light


def tone_map(linear: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Bring light of up to `BRIGHTEST` whites into [0, 1]: up to one white it is halved, and above a parabola leads to
    1; the brightest BT.2020 colour of a pixel decides for all three, which keeps the hue. This is the reference mapping
    of SMPTE ST 2094-50 for a screen without reserve, which browsers use."""
    peak = np.maximum(np.maximum(linear[..., 0], linear[..., 1]), linear[..., 2])
    places = np.minimum(peak, np.float32(_MOST)) * np.float32(_STEPS / _MOST) + np.float32(0.5)
    result: npt.NDArray[np.float32] = linear * _factors()[places.astype(np.uint32)][..., None]
    return result


@lru_cache(maxsize=1)
def _factors() -> npt.NDArray[np.float32]:
    """By what to multiply light whose brightest colour is a multiple of _MOST / _STEPS: computing it costs ten times
    as much for each pixel."""
    peak = np.linspace(0, _MOST, _STEPS + 1)
    # A quadratic Bezier curve from (1, 0.5) by (1.65, 0.825) to (BRIGHTEST, 1), solved for its parameter.
    bend = BRIGHTEST - 2 * 1.65 + 1
    t = (-1.3 + np.sqrt(1.69 + 4 * bend * np.clip(peak - 1, 0, BRIGHTEST - 1))) / (2 * bend)
    return np.where(peak <= 1, 0.5, (0.5 + 0.65 * t - 0.15 * t * t) / np.maximum(peak, 1)).astype(np.float32)
