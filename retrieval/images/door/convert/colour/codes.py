"""The colour spaces that PNG (cICP) and AVIF (nclx) give by number: ITU-T H.273 (CICP), tables 2 and 3."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Points = tuple[float, ...]  # x and y of white, red, green and blue

D65, C, E, DCI = (0.3127, 0.3290), (0.310, 0.316), (1 / 3, 1 / 3), (0.314, 0.351)
SRGB_POINTS: Points = (*D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
PRIMARIES: dict[int, Points] = {
    1: SRGB_POINTS,
    4: (*C, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    8: (*C, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    10: (*E, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0),
    11: (*DCI, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}


def srgb_to_linear(values: Floats) -> Floats:
    """IEC 61966-2-1."""
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(values: Floats) -> Floats:
    """IEC 61966-2-1; values below 0 and above 1 must not occur."""
    return np.where(values <= 0.0031308, values * 12.92, 1.055 * values ** (1 / 2.4) - 0.055)


def power(exponent: float) -> Callable[[Floats], Floats]:
    """A curve that is one power."""
    return lambda values: values**exponent


def _smpte240(values: Floats) -> Floats:
    return np.where(values < 0.0913, values / 4, ((values + 0.1115) / 1.1115) ** (1 / 0.45))


def _smpte428(values: Floats) -> Floats:
    return values**2.6 * (52.37 / 48)


CURVES: dict[int, Callable[[Floats], Floats]] = {
    # Screens show what cameras recorded by BT.709 and its kin with the power of BT.1886.
    1: power(2.4),
    4: power(2.2),
    5: power(2.8),
    6: power(2.4),
    7: _smpte240,
    8: power(1.0),
    11: power(2.4),
    13: srgb_to_linear,
    14: power(2.4),
    15: power(2.4),
    17: _smpte428,
}
PQ, HLG = 16, 18  # see `hdr`
