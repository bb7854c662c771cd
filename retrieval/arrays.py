"""Arrays: what numpy arrays are called where they are passed around; shapes are in the docstrings of who takes them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
"""(N, D) embeddings, or (D,) for one; of unit length, where nothing else is said."""
Floats = npt.NDArray[np.float32]
"""What is not an embedding, but of the same precision: scores, grey levels, heat maps."""
Numbers = npt.NDArray[np.float64]
"""Figures, and what sums are made of."""
Rows = npt.NDArray[np.int64]
"""Numbers of rows, or codes of labels."""
Ids = npt.NDArray[np.int64]
"""What a store finds: rows of the gallery, or -1 for none."""
Mask = npt.NDArray[np.bool_]
"""Which of some there are, one by one."""
