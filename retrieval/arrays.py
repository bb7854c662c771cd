"""Type aliases for numpy arrays; shapes are documented by the functions that take them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
"""Embeddings: (N, D), or (D,) for one; of unit length unless stated otherwise."""
Floats = npt.NDArray[np.float32]
"""Other float32 values: scores, grey levels, heat maps."""
Numbers = npt.NDArray[np.float64]
"""float64 values: metrics and sums."""
Rows = npt.NDArray[np.int64]
"""Row numbers, or label codes."""
Ids = npt.NDArray[np.int64]
"""Results of a store: gallery rows, or -1 for none."""
Mask = npt.NDArray[np.bool_]
"""Boolean mask."""
