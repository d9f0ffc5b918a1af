"""Distances that are computed here, for servers without a search module."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from kong_ai_proxy.vectors.store import Match, Space, check_length, check_size

Floats = npt.NDArray[np.float64]

_LITTLE = np.dtype("<f4")


def packed(space: Space, vector: Sequence[float]) -> bytes:
    """The vector brought to length 1, as the search module wants it: 32-bit floats, the lowest byte
    first. Raises StoreError for a vector that does not fit the space."""
    return _unit(space, vector).astype(_LITTLE).tobytes()


class Table:
    """All vectors of a space, to be compared with others.

    100 vectors of 1,536 numbers take 30 µs to be compared, and as long to read the other one.
    """

    __slots__ = ("_matrix", "_metric", "_names", "_squares")

    def __init__(self, space: Space, vectors: Mapping[str, bytes]) -> None:
        """The vectors as `packed` gives them. Raises ValueError where one has another length."""
        self._metric = space.metric
        self._names = tuple(vectors)
        data = np.frombuffer(b"".join(vectors.values()), _LITTLE).astype(np.float64)
        # In 64 bits, since the square of a small distance is the difference of two large numbers.
        self._matrix: Floats = data.reshape(len(vectors), space.dimensions)
        self._squares: Floats = np.einsum("ij,ij->i", self._matrix, self._matrix)

    def nearest(self, space: Space, vector: Sequence[float], most: int) -> list[Match]:
        """The nearest first; of equal ones, that which was put first."""
        distances = self._distances(_unit(space, vector))
        order = np.argsort(distances, kind="stable")[:most]
        return [Match(self._names[index], float(distances[index])) for index in order.tolist()]

    def _distances(self, unit: Floats) -> Floats:
        products: Floats = self._matrix @ unit
        if self._metric == "cosine":
            return np.maximum(1.0 - products, 0.0)
        return np.sqrt(np.maximum(self._squares + 1.0 - 2.0 * products, 0.0)) / 2.0


def _unit(space: Space, vector: Sequence[float]) -> Floats:
    check_length(space, len(vector))
    exact: Floats = np.asarray(vector, dtype=np.float64)
    length = math.sqrt(exact @ exact)
    check_size(length)
    return exact / length
